"""From file names to (image, class, split).

::

    photos/cat/1.jpg                  one folder a class
    photos/train/cat/1.jpg            train, val (validation, valid), test: folders of those
    anything/photos/cat/1.jpg         a single wrapping folder is looked through

Classes are the top folders in **string order** (``"1", "10", "2", "B", "a"``), like torchvision's
ImageFolder; images are found at any depth below.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from vitrail.data.decode import ENDINGS, UNSUPPORTED
from vitrail.data.files import Listing
from vitrail.data.items import Problem, format_count, normalize_nfc
from vitrail.errors import UserError

#: Names (in any case) that mean a split.
SPLIT_NAMES = {
    "train": "train", "training": "train", "trn": "train",
    "val": "val", "valid": "val", "validation": "val", "validate": "val",
    "dev": "val", "eval": "val", "evaluation": "val",
    "test": "test", "testing": "test", "tst": "test",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image before it is looked at."""

    key: str
    name: str
    split: str


@dataclass(frozen=True)
class Layout:
    """What the names alone say; ``table`` is the name of the table that lists them, if one does."""

    rows: tuple[ImageRow, ...]
    classes: tuple[tuple[str, str], ...] = ()  # (split, class) of every class folder seen
    problems: tuple[Problem, ...] = field(default=())
    table: str = ""


def is_picture(name: str) -> bool:
    """Whether a file's ending is one of an image."""
    return PurePosixPath(name).suffix.lower() in ENDINGS


def parse_folders(source: str, listing: Listing) -> Layout:
    """Find splits and classes among the names.

    Raises:
        UserError: no images, no class folders, or two folders for one split.
    """
    pictures = [name for name in listing.files if is_picture(name)]
    if not pictures:
        raise UserError(
            f"{source} holds no pictures; wanted: one folder a class with pictures inside "
            f"({', '.join(sorted(ENDINGS))})"
        )
    tree = _Tree.of(listing, pictures)
    top = _skip_wrapping_folders(tree)
    splits = _split_folders(source, tree, top)
    rows, classes, problems = [], [], list(_other_files(listing.files))
    for split, folder in splits.items():
        inner, seen, outside = _class_folders(tree, folder, split)
        rows += inner
        classes += seen
        problems += outside
    if not rows:
        raise UserError(
            f"{source} has {format_count(len(pictures), 'picture')} but no class folders; "
            "put the pictures of each class into a folder of their own"
        )
    problems += _folders_beside_splits(splits, top, tree)
    return Layout(tuple(rows), tuple(classes), tuple(problems))


@dataclass(frozen=True)
class _Tree:
    """Folders and images by the folder that they lie in ("" is the top)."""

    folders: dict[str, list[str]]
    pictures: dict[str, list[str]]

    @classmethod
    def of(cls, listing: Listing, pictures: Iterable[str]) -> "_Tree":
        """Sort names, in their order, into their folders."""
        tree = cls(defaultdict(list), defaultdict(list))
        for folder in listing.folders:
            tree.folders[folder.rpartition("/")[0]].append(folder)
        for name in pictures:
            tree.pictures[name.rpartition("/")[0]].append(name)
        return tree

    def inside(self, folder: str) -> list[str]:
        """Full names of the folders directly inside ``folder``."""
        return self.folders.get(folder, [])

    def beside(self, folder: str) -> list[str]:
        """The images directly in ``folder``."""
        return self.pictures.get(folder, [])

    def below(self, folder: str) -> list[str]:
        """The images in ``folder`` at any depth, sorted."""
        found, waiting = [], [folder]
        while waiting:
            here = waiting.pop()
            found += self.beside(here)
            waiting += self.inside(here)
        return sorted(found)


def _skip_wrapping_folders(tree: _Tree) -> str:
    """Step through single folders that hold nothing but one folder of folders."""
    top = ""
    while True:
        inner = tree.inside(top)
        if len(inner) != 1 or not tree.inside(inner[0]):
            return top
        if _split_of(inner[0]) == "train" or tree.beside(inner[0]):
            return top
        top = inner[0]


def _split_of(folder: str) -> str | None:
    return SPLIT_NAMES.get(PurePosixPath(folder).name.lower())


def _split_folders(source: str, tree: _Tree, top: str) -> dict[str, str]:
    """``{"train": folder, ...}``, or ``{"": top}`` where the top folders are classes."""
    found = defaultdict(list)
    inner = tree.inside(top)
    for folder in inner:
        if split := _split_of(folder):
            found[split].append(folder)
    alone = sum(map(len, found.values())) == len(inner)  # nothing but split folders
    if "train" not in found or not (alone or len(found) > 1):
        return {"": top}
    if not any(tree.inside(folder) for folder in found["train"]):
        return {"": top}  # a class that happens to be called train
    for split, folders in found.items():
        if len(folders) > 1:
            names = " and ".join(PurePosixPath(f).name for f in folders)
            raise UserError(f"{source} has two folders for {split}: {names}; keep one of them")
    return {split: folders[0] for split, folders in found.items()}


def _class_folders(
    tree: _Tree, folder: str, split: str
) -> tuple[list[ImageRow], list[tuple[str, str]], list[Problem]]:
    rows = []
    seen = []
    for inner in tree.inside(folder):
        name = normalize_nfc(PurePosixPath(inner).name)
        seen.append((split, name))
        rows += [ImageRow(picture, name, split) for picture in tree.below(inner)]
    rows.sort(key=lambda row: row.key)
    return rows, seen, _images_outside_classes(tree, folder)


def _images_outside_classes(tree: _Tree, folder: str) -> list[Problem]:
    """A line for each image directly in a folder of class folders."""
    return [
        Problem("outside-classes", name, f"{name}: lies outside the class folders; left out")
        for name in tree.beside(folder)
    ]


def _folders_beside_splits(splits: dict[str, str], top: str, tree: _Tree) -> list[Problem]:
    if "" in splits:
        return []
    problems = _images_outside_classes(tree, top)
    for folder in tree.inside(top):
        number = 0 if folder in splits.values() else len(tree.below(folder))
        if number:
            pictures = format_count(number, "picture")
            line = f"{folder}: neither train, val nor test: its {pictures} left out"
            problems.append(Problem("other-folder", folder, line))
    return problems


def _other_files(names: Iterable[str]) -> list[Problem]:
    """One quiet line for all files that are no images, one each for kinds worth converting."""
    endings = Counter(
        PurePosixPath(name).suffix.lower() or "no ending"
        for name in names
        if not is_picture(name)
        and PurePosixPath(name).name.lower() not in ("thumbs.db", "desktop.ini")
    )
    problems = []
    for ending in sorted(set(endings) & UNSUPPORTED):
        files = format_count(endings.pop(ending), f"{ending} file")
        line = f"{files} left out: convert to JPEG or PNG"
        problems.append(Problem("unsupported", ending, line))
    if endings:
        each = ", ".join(f"{ending} {number}" for ending, number in sorted(endings.items()))
        line = f"{format_count(endings.total(), 'file')} not taken for pictures ({each})"
        problems.append(Problem("other-files", ".", line))
    return problems
