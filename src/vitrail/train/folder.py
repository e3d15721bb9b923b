"""The run folder: what is in it, how it begins, how it is read.

::

    run.json  recipe.yaml  manifest.json  problems.csv     what was asked for
    metrics.jsonl  best.safetensors  last.safetensors      what came of it so far
    checkpoint.safetensors                                 everything to go on
    result.json                                            at the end

A folder appears at once and complete (it is filled under another name and renamed), so there is
never a run that cannot go on.
"""

import contextlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail import schema
from vitrail.data import Manifest, read_manifest
from vitrail.digests import add_digest, check_text_digest
from vitrail.errors import UserError, printable, shell_path
from vitrail.files import (
    Destination,
    lock_folder,
    new_folder,
    publish,
    refuse_non_utf8_name,
    refuse_occupied,
    write_text,
)
from vitrail.tasks.card import Card
from vitrail.train import checkpoint
from vitrail.train.recipe import Recipe
from vitrail.train.stop import resume_command
from vitrail.yaml_text import MOST_BYTES

FORMAT = "vitrail-run-1"
EpochRow = dict[str, int | float | None]
"""A row of ``metrics.jsonl``, as it must stand in a file."""
BEST, LAST = "best.safetensors", "last.safetensors"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder as read; ``result`` is None while the run is not finished."""

    folder: Path
    facts: dict[str, Any]
    card: Card
    recipe: Recipe
    manifest: Manifest
    metrics: list[dict[str, Any]]
    result: dict[str, Any] | None

    @property
    def is_finished(self) -> bool:
        """Whether training ended (by its budget or by early stopping)."""
        return self.result is not None


def read_run(folder: str | Path) -> Run:
    """Read a run folder, finished or not.

    Raises:
        UserError: not a run folder, or a damaged one.
    """
    folder = Path(folder)
    if not is_run(folder):
        raise UserError(f"{str(folder)!r} is not a run folder (it holds no run.json)")
    facts = read_facts(folder)
    if facts.get("format") != FORMAT:
        raise UserError(f"{str(folder)!r} has format {facts.get('format')!r}, not {FORMAT}")
    result = folder / "result.json"
    metrics = read_rows(folder / "metrics.jsonl")
    check_epochs(metrics, folder / "metrics.jsonl")
    done = schema.read_json(result, dict[str, Any]) if result.is_file() else None
    if done is not None and (folder / "metrics.jsonl").is_file():
        check_last(len(metrics), done, folder / "metrics.jsonl")
    return Run(
        folder=folder,
        facts=facts,
        card=card_of(facts, f"{str(folder / 'run.json')!r}"),
        recipe=read_recipe(folder),
        manifest=read_manifest(folder / "manifest.json"),
        metrics=metrics,
        result=done,
    )


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a run, as it was written.

    Raises:
        UserError: it cannot be read, is none, or was changed.
    """
    path = folder / "recipe.yaml"
    if path.is_file():
        check_text_digest(schema.read_text(path, MOST_BYTES), repr(str(path)))
    return Recipe.from_yaml(path)


def is_run(folder: Path) -> bool:
    """Whether ``folder`` holds a run."""
    return (folder / "run.json").is_file()


@dataclass(frozen=True, kw_only=True)
class OpenOptions:
    """How a run's images were opened."""

    strict: bool = False
    val: float = 0.2
    seed: int = 0
    copies: bool = False


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The keys of ``run.json`` that the code reads; the others are for people."""

    format: str | None = None
    data: str = ""
    open: OpenOptions = OpenOptions()
    fraction: float | None = None
    teacher: dict[str, Any] | None = None
    manifest: str | None = None


def read_facts(folder: Path) -> dict[str, Any]:
    """``run.json`` as it stands, what is used in it held against its type.

    Raises:
        UserError: it cannot be read, or is of another shape.
    """
    path = folder / "run.json"
    facts: dict[str, Any] = schema.read_json(path, dict[str, Any])
    held = schema.convert(RunFacts, facts, repr(str(path)), extra_keys=True)
    said = facts.get("open") or {}
    used = {key: value for key, value in vars(held).items() if key in facts}
    if "open" in facts:  # a share as a text, "0.2", is that share
        used["open"] = {key: value for key, value in vars(held.open).items() if key in said}
    return {**facts, **used}


def card_of(facts: dict[str, Any], where: str = "run.json") -> Card:
    """The card that ``run.json`` describes.

    Raises:
        UserError: it describes none.
    """
    extra = {key: facts[key] for key in ("plugins", "from", "weights") if facts.get(key)}
    card: Card = schema.convert(Card, {**facts, "extra": extra}, where, extra_keys=True)
    card.check(where)
    return card


def create_run(out: Destination, fill: Callable[[Path], None]) -> Path:
    """Create the run folder and return its path: ``fill`` writes into a hidden draft, then renamed.

    Raises:
        UserError: something is there already, or the place cannot be written.
    """
    if isinstance(out, Path):
        refuse_non_utf8_name(out)
        refuse_existing(out)
    with new_folder(out) as draft:
        fill(draft.path)
        return publish(draft, out)


def refuse_existing(out: Path) -> None:
    """Nothing that exists is overwritten; an empty folder may be used."""
    if is_run(out):
        raise UserError(
            f"{str(out)!r} already holds a run; go on with 'vitrail train --resume "
            f"{shell_path(out)}', "
            "or choose another --out"
        )
    refuse_occupied(out)


def lock_run(out: Path, main: bool = True) -> contextlib.AbstractContextManager[None]:
    """Lock the run folder, so that two trainings never write to it; a kill releases the lock.

    Only the ``main`` process of a training holds it.

    Raises:
        UserError: another training holds it, or the folder cannot be written.
    """
    if not main:
        return contextlib.nullcontext()
    return lock_folder(out, f"another process is training in {str(out)!r}; wait for it")


def remove_leftovers(out: Path) -> None:
    """Remove what a kill at the very end of a run left: its checkpoint, drafts.

    A folder that cannot be written, or that another process holds, is left as it is.
    """
    leftovers = (out / checkpoint.NAME).is_file() or any(out.glob(".*.vitrail-tmp"))
    if leftovers:
        with contextlib.suppress(UserError, OSError), lock_run(out):
            (out / checkpoint.NAME).unlink(missing_ok=True)


def require_best(out: Path) -> None:
    """Refuse to go on where the weights of the best epoch are gone.

    Raises:
        UserError: they are; says what can be done.
    """
    best, last = (shell_path(out / name) for name in (BEST, LAST))
    if not (out / BEST).is_file():
        raise UserError(
            f"{best} is gone; put it back, or take the last weights in its place "
            f"(cp {last} {best}), and go on with: {resume_command(out)}"
        )


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write JSON lines as a whole file: never a torn or doubled line."""
    write_text(
        path, "".join(json.dumps(add_digest(replace_non_finite(row))) + "\n" for row in rows)
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; none where there is no file yet."""
    if not path.is_file():
        return []
    where, lines = repr(str(path)), schema.read_text(path).splitlines()
    return [schema.parse_json(line, EpochRow, where) for line in lines if line]


def check_epochs(rows: list[dict[str, Any]], path: Path) -> None:
    """The rows of ``metrics.jsonl`` are epochs 1, 2, 3, ...

    Raises:
        UserError: a row is missing, or stands twice.
    """
    for expected, row in enumerate(rows, 1):
        if row.get("epoch") != expected:
            found = printable(row.get("epoch"))[:20]
            raise UserError(
                f"{str(path)!r} is damaged: row {expected} is of epoch {found}; take it from a "
                "copy, or delete it (a stopped run writes it again when it goes on)"
            )


def check_last(last: int, result: Mapping[str, Any], path: Path) -> None:
    """The last row of a finished run's ``metrics.jsonl`` is the epoch that its result ends with.

    Raises:
        UserError: rows are missing at the end, or too many.
    """
    ends = result.get("epochs")
    if isinstance(ends, int) and last != ends:
        raise UserError(
            f"{str(path)!r} is damaged: it ends with epoch {last}, result.json with "
            f"{printable(ends)[:20]}; take it from a copy, or delete it"
        )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its digest, as a whole file."""
    write_text(
        path,
        json.dumps(add_digest(replace_non_finite(content)), indent=1, ensure_ascii=False) + "\n",
    )


def read_json(path: Path) -> Any:
    """Read one JSON value."""
    return schema.read_json(path)


def replace_non_finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: replace_non_finite(item) for key, item in value.items()}
    return (
        [replace_non_finite(item) for item in value] if isinstance(value, list | tuple) else value
    )


def check_same(run: Run, *, recipe: Recipe, classes: tuple[str, ...], digest: str) -> None:
    """A run goes on only as what it was.

    Raises:
        UserError: recipe, classes or images differ; both sides are shown.
    """
    where = f"cannot go on with {str(run.folder)!r}"
    changed = run.recipe.differences(recipe)
    if changed:
        raise UserError(f"{where}: the recipe changed (run, now): {'; '.join(changed)}")
    if run.card.classes != classes:
        raise UserError(
            f"{where}: its classes are {_short(run.card.classes)}, the pictures' are "
            f"{_short(classes)}; train anew in another folder"
        )
    if run.manifest.digest != digest:
        raise UserError(
            f"{where}: the pictures changed (manifest {run.manifest.digest[:12]} then, "
            f"{digest[:12]} now); bring them back, or train anew in another folder"
        )


def check_teacher(run: Run, now: dict[str, Any] | None) -> None:
    """A run goes on with the teacher it had, weight for weight.

    Raises:
        UserError: it is another one.
    """
    then = run.facts.get("teacher")
    if then != now:
        raise UserError(
            f"cannot go on with {str(run.folder)!r}: the teacher {then and then['name']} has other "
            "weights now; bring the old ones back, or train anew in another folder"
        )


def check_checkpoint(folder: Path) -> Path:
    """The checkpoint's path."""
    path = folder / checkpoint.NAME
    if not path.is_file():
        raise UserError(f"{str(folder)!r} has no {checkpoint.NAME} to go on with")
    return path


def _short(names: tuple[str, ...]) -> str:
    some = ", ".join(names[:8])
    return f"{some}, … ({len(names)})" if len(names) > 8 else f"{some} ({len(names)})"
