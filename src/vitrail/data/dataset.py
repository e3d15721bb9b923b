"""A set of labelled images: what every other room takes.

It knows what there is and how to read it; ``sources.open_dataset`` makes it.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image

from vitrail.data.decode import ImageError, decode
from vitrail.data.files import Files
from vitrail.data.items import SPLITS, Item, Problem
from vitrail.errors import UserError


class ImageStore(Protocol):
    """Where images come from, by key. Must pickle."""

    def image(self, key: str, short_side: int | None) -> Image.Image:
        """The upright RGB image; ``short_side`` as for :func:`vitrail.data.decode.decode`."""
        ...


@dataclass(frozen=True)
class FileStore:
    """Images in files."""

    files: Files

    def image(self, key: str, short_side: int | None) -> Image.Image:
        """Read and decode one file."""
        return decode(self.files.read(key), short_side=short_side)


@dataclass(frozen=True)
class ImageDataset:
    """A set of labelled images, all of which can be read.

    ``items`` are in a fixed order; ``problems`` say what was left out or deserves a line. The
    object is small, pickles, and may be used in worker processes.
    """

    name: str
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    problems: tuple[Problem, ...]
    store: ImageStore = field(repr=False)

    def split(self, name: str) -> tuple[Item, ...]:
        """The items of ``train``, ``val`` or ``test`` (none, if there is no such split)."""
        if name not in SPLITS:
            raise UserError(f"no split {name!r}; there are {', '.join(SPLITS)}")
        return tuple(item for item in self.items if item.split == name)

    def read(self, item: Item, short_side: int | None = None) -> Image.Image:
        """The upright RGB image of ``item``.

        Raises:
            ImageError: the file has changed since the set was opened; the message names it.
        """
        try:
            return self.store.image(item.key, short_side)
        except ImageError as error:
            raise ImageError(f"{self.name}, {item.key}: {error}", error.kind) from error

    def counts(self, split: str) -> tuple[int, ...]:
        """Number of images of each class in a split, in the order of ``classes``."""
        found = Counter(item.label for item in self.items if item.split == split)
        return tuple(found[label] for label in range(len(self.classes)))
