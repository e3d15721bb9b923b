"""What an earlier run trained and validated on, so that a later one does not test on it.

A run's manifest lists the content of every image. A training that starts from the run's weights
validates on what the run validated on, wherever the files lie now, and never on what it trained on.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from vitrail.data.items import SPLITS, Item, Problem, format_count
from vitrail.data.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class History:
    """The parts of images known by content.

    ``name`` is what a person called the run; ``parts`` map an image's mark to train, val or test;
    ``share`` is the part of the training images that was used; ``gaps`` are earlier runs that
    could not be read.
    """

    name: str
    parts: Mapping[str, str]
    share: float = 1.0
    gaps: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        manifests: Sequence[Manifest],
        *,
        share: float = 1.0,
        gaps: Sequence[str] = (),
    ) -> Self:
        """The history in manifests, the latest run's first.

        What any of them trained on was trained on; for the rest the latest decides.
        """
        parts: dict[str, str] = {}
        for manifest in manifests:
            for split in ("test", "val"):
                for item in manifest.parts.get(split, ()):
                    parts.setdefault(image_id(item, manifest.source), split)
        for manifest in manifests:
            for item in manifest.parts.get("train", ()):
                parts[image_id(item, manifest.source)] = "train"
        return cls(name=name, parts=parts, share=share, gaps=tuple(gaps))

    @classmethod
    def merge(cls, histories: "Sequence[History]") -> "History | None":
        """What several runs saw: trained on by any is trained on; None without any."""
        if not histories:
            return None
        parts: dict[str, str] = {}
        for split in ("test", "val", "train"):
            for history in histories:
                parts |= {mark: split for mark, part in history.parts.items() if part == split}
        return cls(
            name=" and ".join(history.name for history in histories),
            parts=parts,
            share=min(history.share for history in histories),
            gaps=tuple(gap for history in histories for gap in history.gaps),
        )

    def part_of(self, item: Item, source: str) -> str | None:
        """The part that an image had; None for one that is new."""
        return self.parts.get(image_id(item, source))

    def overlap(self, items: Iterable[Item], source: str) -> int:
        """How many of ``items`` were trained on."""
        return sum(self.part_of(item, source) == "train" for item in items)

    def line(self, items: Iterable[Item], moved: int, source: str) -> Problem:
        """One line on what was taken over; ``moved`` images went from val or test to train."""
        known, fresh = Counter[str](), Counter[str]()
        for item in items:
            (fresh if self.part_of(item, source) is None else known)[item.split] += 1
        parts = [f"as {self.name} had them: {_by_split(known)}"]
        if not known:
            parts = [f"none of these pictures is among those of {self.name}"]
        if fresh:
            parts.append(f"new: {_by_split(fresh)}")
        if moved:
            parts.append(f"{moved:,} of val or test were trained on and stay in train")
        if not (known["val"] or fresh["val"]):
            parts.append("no picture to validate with: all were trained on")
        parts += [f"not known what {gap} trained on (the folder is gone)" for gap in self.gaps]
        return Problem("seen-before", source, "; ".join(parts))


def image_id(item: Item, source: str) -> str:
    """What an image is known by: its content, or its place in a set of another library's."""
    return item.digest or f"{source.partition('@')[0]} {item.key}"


def _by_split(numbers: Mapping[str, int]) -> str:
    named = [f"{numbers[split]:,} {split}" for split in SPLITS if numbers.get(split)]
    return f"{format_count(sum(numbers.values()), 'picture')} ({', '.join(named)})"
