"""From file names to (picture, class, split).

::

    photos/cat/1.jpg                  one folder a class
    photos/train/cat/1.jpg            train, val (validation, valid), test: folders of those
    anything/photos/cat/1.jpg         a single wrapping folder is looked through

Classes are the top folders in **string order** (``"1", "10", "2", "B", "a"``), like torchvision's
ImageFolder; pictures are found at any depth below.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from vitrail.data.decode import ENDINGS, UNSUPPORTED
from vitrail.data.files import Listing
from vitrail.data.items import Problem, count
from vitrail.errors import UserError

#: Folder names (in any case) that mean a split.
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One picture before it is looked at."""

    key: str
    name: str
    split: str


@dataclass(frozen=True)
class Layout:
    """What the names alone say."""

    rows: tuple[Row, ...]
    classes: tuple[tuple[str, str], ...] = ()  # (split, class) of every class folder seen
    problems: tuple[Problem, ...] = field(default=())


def is_picture(name: str) -> bool:
    """Whether a file's ending is one of a picture."""
    return PurePosixPath(name).suffix.lower() in ENDINGS


def arrange(source: str, listing: Listing) -> Layout:
    """Find splits and classes among the names.

    Raises:
        UserError: no pictures, no class folders, or two folders for one split.
    """
    pictures = [name for name in listing.files if is_picture(name)]
    if not pictures:
        raise UserError(
            f"{source} holds no pictures; wanted: one folder a class with pictures inside "
            f"({', '.join(sorted(ENDINGS))})"
        )
    top = _unwrapped(listing)
    splits = _split_folders(source, listing, top)
    rows, classes, problems = [], [], list(_other_files(listing.files))
    for split, folder in splits.items():
        inner, seen, outside = _class_folders(listing, pictures, folder, split)
        rows += inner
        classes += seen
        problems += outside
    if not rows:
        raise UserError(
            f"{source} has {count(len(pictures), 'picture')} but no class folders; "
            "put the pictures of each class into a folder of their own"
        )
    problems += _beside_splits(splits, top, listing, pictures)
    return Layout(tuple(rows), tuple(classes), tuple(problems))


def _children(listing: Listing, folder: str) -> list[str]:
    """Full names of the folders directly inside ``folder`` ("" is the top)."""
    depth = folder.count("/") + 1 if folder else 0
    inside = f"{folder}/" if folder else ""
    return [f for f in listing.folders if f.startswith(inside) and f.count("/") == depth]


def _unwrapped(listing: Listing) -> str:
    """Step through single folders that hold nothing but one folder of folders."""
    top = ""
    while True:
        inner = _children(listing, top)
        if len(inner) != 1 or not _children(listing, inner[0]):
            return top
        if _split_of(inner[0]) == "train":
            return top
        if any(f.startswith(f"{inner[0]}/") and _depth(f, inner[0]) == 1 and is_picture(f)
               for f in listing.files):  # fmt: skip
            return top
        top = inner[0]


def _depth(name: str, folder: str) -> int:
    return name[len(folder) :].count("/")


def _split_of(folder: str) -> str | None:
    return SPLIT_NAMES.get(PurePosixPath(folder).name.lower())


def _split_folders(source: str, listing: Listing, top: str) -> dict[str, str]:
    """``{"train": folder, ...}``, or ``{"": top}`` where the top folders are classes."""
    found = defaultdict(list)
    inner = _children(listing, top)
    for folder in inner:
        if split := _split_of(folder):
            found[split].append(folder)
    alone = len(found) == len(inner)  # nothing but split folders
    if "train" not in found or not (alone or len(found) > 1):
        return {"": top}
    if not any(_children(listing, folder) for folder in found["train"]):
        return {"": top}  # a class that happens to be called train
    for split, folders in found.items():
        if len(folders) > 1:
            names = " and ".join(PurePosixPath(f).name for f in folders)
            raise UserError(f"{source} has two folders for {split}: {names}; keep one of them")
    return {split: folders[0] for split, folders in found.items()}


def _class_folders(
    listing: Listing, pictures: Iterable[str], folder: str, split: str
) -> tuple[list[Row], list[tuple[str, str]], list[Problem]]:
    prefix = f"{folder}/" if folder else ""
    rows, problems = [], []
    for name in pictures:
        if not name.startswith(prefix):
            continue
        head, slash, _ = name[len(prefix) :].partition("/")
        if slash:
            rows.append(Row(name, head, split))
        else:
            line = f"{name}: lies outside the class folders; left out"
            problems.append(Problem("outside-classes", name, line))
    seen = [(split, PurePosixPath(f).name) for f in _children(listing, folder)]
    return rows, seen, problems


def _beside_splits(
    splits: dict[str, str], top: str, listing: Listing, pictures: Iterable[str]
) -> list[Problem]:
    if "" in splits:
        return []
    depth = top.count("/") + 1 if top else 0
    problems = [
        Problem("outside-classes", name, f"{name}: lies outside the class folders; left out")
        for name in pictures
        if name.count("/") == depth and name.startswith(top)
    ]
    for folder in _children(listing, top):
        number = sum(name.startswith(f"{folder}/") for name in pictures)
        if folder not in splits.values() and number:
            line = f"{folder}: neither train, val nor test: its {count(number, 'picture')} left out"
            problems.append(Problem("other-folder", folder, line))
    return problems


def _other_files(files: Iterable[str]) -> list[Problem]:
    """One quiet line for all files that are no pictures, one each for kinds worth converting."""
    endings = Counter(
        PurePosixPath(name).suffix.lower() or "no ending"
        for name in files
        if not is_picture(name)
        and PurePosixPath(name).name.lower() not in ("thumbs.db", "desktop.ini")
    )
    problems = []
    for ending in sorted(set(endings) & UNSUPPORTED):
        line = f"{count(endings.pop(ending), f'{ending} file')} left out: convert to JPEG or PNG"
        problems.append(Problem("unsupported", ending, line))
    if endings:
        each = ", ".join(f"{ending} {number}" for ending, number in sorted(endings.items()))
        line = f"{count(endings.total(), 'file')} not taken for pictures ({each})"
        problems.append(Problem("other-files", ".", line))
    return problems
