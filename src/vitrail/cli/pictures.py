"""``vitrail check | predict``: look at a set of pictures; say what is on new ones."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from tyro.conf import Positional, arg

from vitrail.cli.command import FLAG, Answer, Command, table
from vitrail.console import counting_bar, print_stderr, track_items
from vitrail.errors import UserError, printable

if TYPE_CHECKING:
    from torch import Tensor

    from vitrail.data import ImageDataset, Preprocess

AT_ONCE = 32
BYTES_PER_VALUE = 4
MOST_LINES = 40


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
    copies: Annotated[bool, FLAG] = False
    """Count copies of a training picture as often as they are there."""

    def run(self) -> Answer:
        """Open the set and report."""
        from vitrail.data import open_dataset

        with counting_bar("looking at the pictures") as seen:
            pictures = open_dataset(
                self.data,
                strict=self.strict,
                val=self.val,
                seed=self.seed,
                copies=self.copies,
                progress=seen,
            )
        return Answer(*check_report(pictures))


def check_report(pictures: "ImageDataset") -> tuple[dict[str, Any], list[Any]]:
    """What ``check`` says of a set: as data, and as table and lines."""
    from vitrail.data import describe_imbalance

    counts = Counter((item.label, item.split) for item in pictures.items)
    splits = [s for s in ("train", "val", "test") if any(split == s for _, split in counts)]
    rows = [
        {"class": name} | {split: counts[label, split] for split in splits}
        for label, name in enumerate(pictures.classes)
    ]
    problems = [problem_data(problem) for problem in pictures.problems]
    unbalanced = describe_imbalance(pictures.split("train"), pictures.classes)
    total = f"{pictures.name}: {len(pictures.items)} pictures, {len(pictures.classes)} classes"
    lines = [problem["line"] for problem in problems[:MOST_LINES]]
    if len(problems) > MOST_LINES:
        lines.append(f"… and {len(problems) - MOST_LINES} more (all with --json)")
    cells = [list(row.values()) for row in rows]
    data = {"name": pictures.name, "classes": rows, "problems": problems, "note": unbalanced}
    notes = [unbalanced] if unbalanced else []
    return data, [total, table(("class", *splits), cells), *notes, *(lines or ["no problems"])]


def problem_data(problem: Any) -> dict[str, str]:
    """A problem as JSON."""
    return {"kind": problem.kind, "where": str(problem.where), "line": problem.line}


@dataclass(kw_only=True)
class Predict(Command):
    """Say what is on pictures, with a trained run's own classes and preprocessing.

    A picture that cannot be read gets one line on stderr, the rest goes on, and the exit status
    is 1. Example: vitrail predict runs/photos-1 new/*.jpg --top 3
    """

    folder: Positional[Annotated[str, arg(metavar="RUN")]]
    """A folder of train, create, study, export or save_timm, a model's file in it, or timm:NAME."""
    pictures: Positional[Annotated[tuple[str, ...], arg(metavar="PICTURES ...")]]
    """Files, folders (searched through) and patterns such as "new/**/*.png"."""
    top: int = 3
    """How many classes to name."""

    def run(self) -> Answer:
        """Predict every picture that can be read."""
        if self.top < 1:
            raise UserError(f"--top must be 1 or more, not {self.top}")
        paths = find_pictures(self.pictures)
        rows = predictions(open_predictor(self.folder), paths, self.top)
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

    @property
    def preprocess(self) -> "Preprocess":
        """How pictures are made ready."""
        ...

    def predict(self, images: Sequence[Any]) -> "Tensor":
        """Pictures -> probabilities ``(B, classes)``."""
        ...


def open_predictor(folder: str) -> Predictor:
    """Whatever Vitrail saved: a run, a job of a study, a saved or an exported model; timm:NAME."""
    from vitrail.export import holds_export, open_exported

    if holds_export(folder):
        return open_exported(folder)
    from vitrail.hub import open_run

    return open_run(folder)


def find_pictures(names: Sequence[str]) -> list[Path]:
    """The pictures that ``names`` stand for, each once, folders and patterns in sorted order.

    Raises:
        UserError: a name or pattern that matches nothing, a folder without pictures.
    """
    if not names:
        raise UserError("name at least one picture, folder or pattern")
    found: dict[Path, None] = {}
    for text in names:
        found |= dict.fromkeys(pictures_named(text))
    return list(found)


def pictures_named(text: str) -> list[Path]:
    """The pictures that one argument names; folders are listed by the rules of training."""
    path = Path(text)
    if is_there(path):
        return pictures_in(text) if path.is_dir() else [regular_file(text)]
    if glob.has_magic(text):
        files = pictures_matching(text)
        if files:
            return files
        raise UserError(f"no picture matches {text!r}")
    raise UserError(f"no picture {text!r}{close_names(path)}")


def is_there(path: Path) -> bool:
    """Whether something is at ``path``; nothing can be at a name that no system takes."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def regular_file(text: str) -> Path:
    """A file that can be read to its end.

    Raises:
        UserError: a pipe, a socket or a device.
    """
    if not Path(text).is_file():
        raise UserError(f"{text!r} is a pipe, a socket or a device, not a picture's file")
    return Path(text)


def pictures_in(folder: str) -> list[Path]:
    """The pictures in a folder and the folders below, sorted; what cannot be listed is said."""
    from vitrail.data.files import Folder
    from vitrail.data.layout import is_picture

    listing = Folder(folder).listing()
    for problem in listing.problems:
        print_stderr(problem.line)
    inside = [Path(folder, name) for name in listing.files if is_picture(name)]
    if not inside:
        raise UserError(f"no pictures in folder {folder!r}")
    return inside


def pictures_matching(pattern: str) -> list[Path]:
    """The files that a pattern names, sorted, by the rules for folders.

    What is hidden counts only where the pattern itself says so; a file that loops of links lead to
    counts once.
    """
    from vitrail.data.files import is_hidden

    fixed = [part for part in Path(pattern).parts if not glob.has_magic(part)]
    found: dict[str, Path] = {}
    for name in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - absolute too
        path = Path(name)
        fresh = [part for part in path.parts if part not in fixed]
        if path.is_file() and not is_hidden("/".join(fresh)):
            place = os.path.realpath(path.parent)
            found.setdefault(os.path.join(place, path.name), path)  # noqa: PTH118
    return list(found.values())


def close_names(path: Path) -> str:
    """The close names in the folder of a path that is not there."""
    import difflib

    if not path.parent.is_dir():
        return f" (there is no folder {str(path.parent)!r})"
    close = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=3)
    return f"; close: {', '.join(close)}" if close else ""


def predictions(run: Predictor, paths: Sequence[Path], top: int) -> list[dict[str, Any]]:
    """One row a picture: its top classes, or its problem."""
    rows: list[dict[str, Any]] = []
    seen = run.preprocess
    each = BYTES_PER_VALUE * seen.in_chans * seen.image**2
    for some in batches(track_items("predicting", paths), each):
        rows += rows_of(run, some, top)
    return rows


def rows_of(
    run: Predictor, some: Sequence[tuple[Path, Any, str]], top: int
) -> list[dict[str, Any]]:
    """The rows of one batch."""
    rows: list[dict[str, Any]] = []
    images = [image for _, image, _ in some if image is not None]
    tops = iter(top_classes(run, images, top) if images else [])
    for path, image, problem in some:
        if image is None:
            print_stderr(problem)
            rows.append({"picture": str(path), "problem": problem})
        else:
            rows.append({"picture": str(path), "top": next(tops)})
    return rows


def batches(paths: Iterable[Path], each: int = 0) -> Iterator[list[tuple[Path, Any, str]]]:
    """Pictures (or problems) to predict together: few enough to be held, decoded, in memory.

    ``each`` is what a model takes of any picture, in bytes.
    """
    from vitrail.data import limits

    some: list[tuple[Path, Any, str]] = []
    held = 0
    for path in paths:
        some.append((path, *picture_or_problem(path)))
        held += max(each, decoded_bytes(some[-1][1]))
        if len(some) == AT_ONCE or held > limits.BATCH_BYTES:
            done, some, held = some, [], 0
            yield done
            done.clear()  # also for the one who got it: nothing is held while the next are read
    if some:
        yield some


def decoded_bytes(image: Any) -> int:
    """What a picture takes in memory; nothing, where there is none."""
    from vitrail.data.limits import BYTES_PER_PIXEL

    return 0 if image is None else BYTES_PER_PIXEL * image.width * image.height


def picture_or_problem(path: Path) -> tuple[Any, str]:
    """The picture and no words, or nothing and one line."""
    from vitrail.data.decode import ImageError, decode
    from vitrail.data.files import read_regular

    try:
        return decode(read_regular(path)), ""
    except ImageError as error:
        return None, printable(f"{path}: {' '.join(str(error).split())}")


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
