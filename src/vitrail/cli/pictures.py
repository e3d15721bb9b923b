"""``vitrail check | predict``: look at a set of pictures; say what is on new ones."""

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from tyro.conf import Positional, arg

from vitrail.cli.command import FLAG, Answer, Command, say, table
from vitrail.cli.progress import bar, gauge
from vitrail.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from vitrail.data import Pictures

AT_ONCE = 32
SHOWN = 40


@dataclass(kw_only=True)
class Check(Command):
    """Look at a set of pictures before training: classes, counts, and every problem in one line.

    Example: vitrail check photos/
    """

    data: Positional[str]
    """Folder of class folders, CSV or Parquet table, zip, torchvision:NAME, fashion or scenes."""
    strict: Annotated[bool, FLAG] = False
    """Exit with 2 at the first broken picture."""
    val: float = 0.2
    """Share kept for validation where the set has no split of its own."""
    seed: int = 0
    """Seed of that split."""

    def run(self) -> Answer:
        """Open the set and report."""
        from vitrail.data import open_pictures

        with gauge("looking at the pictures") as seen:
            pictures = open_pictures(
                self.data, strict=self.strict, val=self.val, seed=self.seed, progress=seen
            )
        return Answer(*checked(pictures))


def checked(pictures: "Pictures") -> tuple[dict[str, Any], list[Any]]:
    """What ``check`` says of a set: as data, and as table and lines."""
    from vitrail.data import imbalance

    counts = Counter((item.label, item.split) for item in pictures.items)
    splits = [s for s in ("train", "val", "test") if any(split == s for _, split in counts)]
    rows = [
        {"class": name} | {split: counts[label, split] for split in splits}
        for label, name in enumerate(pictures.classes)
    ]
    problems = [vars_of(problem) for problem in pictures.problems]
    unbalanced = imbalance(pictures.split("train"), pictures.classes)
    total = f"{pictures.name}: {len(pictures.items)} pictures, {len(pictures.classes)} classes"
    lines = [problem["line"] for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"… and {len(problems) - SHOWN} more (all with --json)")
    cells = [list(row.values()) for row in rows]
    data = {"name": pictures.name, "classes": rows, "problems": problems, "note": unbalanced}
    notes = [unbalanced] if unbalanced else []
    return data, [total, table(("class", *splits), cells), *notes, *(lines or ["no problems"])]


def vars_of(problem: Any) -> dict[str, str]:
    """A problem as JSON."""
    return {"kind": problem.kind, "where": str(problem.where), "line": problem.line}


@dataclass(kw_only=True)
class Predict(Command):
    """Say what is on pictures, with a trained run's own classes and preprocessing.

    A picture that cannot be read gets one line on stderr, the rest goes on, and the exit status
    is 1. Example: vitrail predict runs/photos-1 new/*.jpg --top 3
    """

    folder: Positional[Annotated[str, arg(metavar="RUN")]]
    """A folder of train, create, study, export or save_timm, or the model's file in it."""
    pictures: Positional[Annotated[tuple[str, ...], arg(metavar="PICTURES ...")]]
    """Files, folders (searched through) and patterns such as "new/**/*.png"."""
    top: int = 3
    """How many classes to name."""

    def run(self) -> Answer:
        """Predict every picture that can be read."""
        if self.top < 1:
            raise UserError(f"--top must be 1 or more, not {self.top}")
        paths = find(self.pictures)
        rows = predictions(opened(self.folder), paths, self.top)
        shown = [
            (row["picture"], *(f"{p['class']} {p['probability']:.1%}" for p in row["top"]))
            for row in rows
            if "top" in row
        ]
        width = max((len(row) for row in shown), default=1)
        head = ("picture", *(f"{i}." for i in range(1, width)))
        failed = len(rows) - len(shown)
        tail = [f"{failed} of {len(rows)} pictures could not be read"] if failed else []
        parts = [*([table(head, shown, left=width)] if shown else []), *tail]
        return Answer(rows, parts, status=1 if failed else 0)


class Predictor(Protocol):
    """What a run and an exported folder have in common."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the probabilities."""
        ...

    def predict(self, images: Sequence[Any]) -> "Tensor":
        """Pictures -> probabilities ``(B, classes)``."""
        ...


def opened(folder: str) -> Predictor:
    """Whatever Vitrail saved: a run, a job of a study, a saved or an exported model."""
    from vitrail.export import holds_export, open_exported

    if holds_export(folder):
        return open_exported(folder)
    from vitrail.hub import open_run

    return open_run(folder)


def find(wanted: Sequence[str]) -> list[Path]:
    """The pictures that ``wanted`` names, each once, folders and patterns in sorted order.

    Raises:
        UserError: a name or pattern that matches nothing, a folder without pictures.
    """
    if not wanted:
        raise UserError("name at least one picture, folder or pattern")
    found: dict[Path, None] = {}
    for text in wanted:
        found |= dict.fromkeys(matches(text))
    return list(found)


def matches(text: str) -> list[Path]:
    """The pictures that one argument names."""
    from vitrail.data.decode import ENDINGS

    path = Path(text)
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS)
        if not inside:
            raise UserError(f"no pictures in folder {text!r}")
        return inside
    if path.is_file():
        return [path]
    if glob.has_magic(text):
        seen = sorted(Path(name) for name in glob.glob(text, recursive=True))  # noqa: PTH207 - absolute too
        files = [name for name in seen if name.is_file()]
        if files:
            return files
        raise UserError(f"no picture matches {text!r}")
    raise UserError(f"no picture {text!r}{near(path)}")


def near(path: Path) -> str:
    """The close names in the folder of a path that is not there."""
    import difflib

    if not path.parent.is_dir():
        return f" (there is no folder {str(path.parent)!r})"
    close = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=3)
    return f"; close: {', '.join(close)}" if close else ""


def predictions(run: Predictor, paths: Sequence[Path], top: int) -> list[dict[str, Any]]:
    """One row a picture: its top classes, or its problem."""
    rows: list[dict[str, Any]] = []
    for some in bar("predicting", chunks(paths, AT_ONCE)):
        read = [(path, *picture_or_problem(path)) for path in some]
        images = [image for _, image, _ in read if image is not None]
        tops = iter(top_classes(run, images, top) if images else [])
        for path, image, problem in read:
            if image is None:
                say(problem)
                rows.append({"picture": str(path), "problem": problem})
            else:
                rows.append({"picture": str(path), "top": next(tops)})
    return rows


def picture_or_problem(path: Path) -> tuple[Any, str]:
    """The picture and no words, or nothing and one line."""
    from vitrail.data.decode import decode

    try:
        return decode(path.read_bytes()), ""
    except (OSError, ValueError) as error:
        return None, f"{path}: {' '.join(str(error).split())}"


def top_classes(run: Predictor, images: Sequence[Any], top: int) -> list[list[dict[str, Any]]]:
    """For each picture its ``top`` classes, the likeliest first."""
    chances, labels = run.predict(images).topk(min(top, len(run.classes)))
    return [
        [
            {"class": run.classes[label], "probability": round(chance, 6)}
            for chance, label in zip(*pair, strict=True)
        ]
        for pair in zip(chances.tolist(), labels.tolist(), strict=True)
    ]


def chunks(paths: Sequence[Path], size: int) -> list[Sequence[Path]]:
    """``paths`` in pieces of at most ``size``."""
    return [paths[start : start + size] for start in range(0, len(paths), size)]
