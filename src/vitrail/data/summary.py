"""What a set holds, in numbers and lines: the report of ``vitrail check``."""

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from vitrail.data.dataset import ImageDataset
from vitrail.data.items import SPLITS, Item, Problem, format_count
from vitrail.errors import printable

UNBALANCED = 10
"""So many times as many images in the largest class as in the smallest deserve a line."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """``counts``: images by class and split. ``short_sides``: smallest, median, largest in pixels
    (None where sizes are unknown). ``problems``: how many of each kind."""

    source: str
    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    short_sides: tuple[int, int, int] | None
    problems: dict[str, int]
    lines: tuple[str, ...]

    @classmethod
    def of(cls, dataset: ImageDataset) -> Self:
        """Count."""
        by_split = {split: dataset.counts(split) for split in SPLITS}
        counts = {
            name: {split: numbers[label] for split, numbers in by_split.items()}
            for label, name in enumerate(dataset.classes)
        }
        kinds = Counter(problem.kind for problem in dataset.problems)
        return cls(
            source=dataset.name,
            classes=dataset.classes,
            counts=counts,
            short_sides=_short_sides(dataset),
            problems=dict(sorted(kinds.items())),
            lines=tuple(problem.line for problem in sort_problems(dataset.problems)),
        )

    def total(self, split: str) -> int:
        """Images in a split."""
        return sum(numbers[split] for numbers in self.counts.values())

    def describe(self) -> str:
        """One line: ``3,781 images in 10 classes (train 3,068, ...), short side 192 to 256``."""
        totals = {split: self.total(split) for split in SPLITS}
        parts = ", ".join(f"{split} {number:,}" for split, number in totals.items() if number)
        sizes = ""
        if self.short_sides:
            low, middle, high = self.short_sides
            sizes = f", short side {low} px"
            sizes += f" to {high} px (median {middle})" if high > low else ""
        images = format_count(sum(totals.values()), "picture")
        return f"{images} in {format_count(len(self.classes), 'class', 'classes')} ({parts}){sizes}"

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def describe_imbalance(items: Iterable[Item], classes: Sequence[str]) -> str:
    """One line for training images of very unlike counts by class; nothing for others."""
    counts = Counter(item.label for item in items).most_common()
    if not counts or counts[0][1] < UNBALANCED * counts[-1][1]:
        return ""
    (most, many), (least, few) = counts[0], counts[-1]
    return (
        f"the classes are very unbalanced ({many:,} training pictures of "
        f"{printable(repr(classes[most]))}, {few:,} of {printable(repr(classes[least]))}); train "
        "with --set sampling=sqrt (or class_weights=balanced) best=balanced_accuracy if the rare "
        "ones matter as much"
    )


def sort_problems(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    """What was left out first, then by place."""
    return tuple(sorted(problems, key=lambda p: (not p.left_out, p.where, p.kind)))


def _short_sides(dataset: ImageDataset) -> tuple[int, int, int] | None:
    sides = [min(item.size) for item in dataset.items if min(item.size) > 0]
    if not sides:
        return None
    return min(sides), int(statistics.median(sides)), max(sides)
