"""From pictures that can be decoded to a set: doubles, leaks, classes, validation part."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from vitrail.data.fractions import held_out
from vitrail.data.items import SPLITS, Item, Problem, count
from vitrail.data.layout import Layout, Row
from vitrail.data.look import Seen
from vitrail.errors import UserError


@dataclass(frozen=True)
class Settled:
    """Classes in order, items in the order of their keys, lines."""

    classes: tuple[str, ...]
    items: tuple[Item, ...]
    problems: tuple[Problem, ...]


def settle(source: str, layout: Layout, seen: Sequence[Seen]) -> Settled:
    """Decide what belongs to the set. The validation part is cut later, by :func:`cut`.

    Raises:
        UserError: fewer than two classes are left.
    """
    kept, problems = without_doubles(seen)
    classes = sorted({one.row.name for one in kept if one.row.split in ("", "train")})
    if len(classes) < 2:
        only = f"one class ({classes[0]!r})" if classes else "no usable training picture"
        raise UserError(f"{source} has {only}; a classifier needs two classes or more")
    problems += _strangers(kept, classes) + _empty(layout, classes)
    labels = {name: label for label, name in enumerate(classes)}
    items = [
        Item(one.row.key, labels[one.row.name], one.row.split or "train", one.digest, one.size)
        for one in kept
        if one.row.name in labels
    ]
    items.sort(key=lambda item: (SPLITS.index(item.split), item.key))
    return Settled(tuple(classes), tuple(items), tuple(problems))


def cut(
    classes: Sequence[str], items: Sequence[Item], val: float, seed: int
) -> tuple[tuple[Item, ...], tuple[Problem, ...]]:
    """Give a set without a validation part one, cut from train; then note thin classes."""
    problems: list[Problem] = []
    if not any(item.split == "val" for item in items):
        train = [item for item in items if item.split == "train"]
        keys = held_out(train, val, seed)
        items = [
            replace(i, split="val") if i.split == "train" and i.key in keys else i for i in items
        ]
    for label, name in enumerate(classes):
        train_count = sum(i.label == label and i.split == "train" for i in items)
        if not any(i.label == label and i.split == "val" for i in items):
            line = f"class {name!r}: no picture to validate with; it is trained, never checked"
            problems.append(Problem("never-checked", name, line))
        if train_count == 1:
            line = f"class {name!r} has a single picture to train with; add some"
            problems.append(Problem("single-picture", name, line))
    return tuple(items), tuple(problems)


def without_doubles(seen: Iterable[Seen]) -> tuple[list[Seen], list[Problem]]:
    """Keep one of each picture, by content: the most held-out copy; none, if labels differ."""
    groups: dict[str, list[Seen]] = defaultdict(list)
    for one in seen:
        groups[one.digest].append(one)
    kept: list[Seen] = []
    problems: list[Problem] = []
    for group in groups.values():
        stays, lines = _one_of([one.row for one in group]) if len(group) > 1 else (0, [])
        problems += lines
        kept += [group[stays]] if stays is not None else []
    return kept, problems


def _one_of(rows: Sequence[Row]) -> tuple[int | None, list[Problem]]:
    """Which of several rows with the same content stays, and what to say about the others."""
    if len({row.name for row in rows}) > 1:
        told = " and ".join(f"{row.key} ({row.name})" for row in rows)
        line = f"{told}: the same picture with different labels; all left out"
        return None, [Problem("two-labels", rows[0].key, line)]
    rank = {"": 0, "train": 0, "val": 1, "test": 2}
    stays = max(range(len(rows)), key=lambda i: (rank[rows[i].split], -i))
    problems = []
    for row in rows:
        if row is rows[stays]:
            continue
        leak = row.split != rows[stays].split
        end = f"left out of {row.split}" if leak else "left out"
        line = f"{row.key}: the same picture as {rows[stays].key}; {end}"
        problems.append(Problem("leak" if leak else "duplicate", row.key, line))
    return stays, problems


def _strangers(kept: Iterable[Seen], classes: Sequence[str]) -> list[Problem]:
    """Classes that val or test has and train has not."""
    strange = Counter((one.row.split, one.row.name) for one in kept if one.row.name not in classes)
    return [
        Problem(
            "unknown-class",
            f"{split}/{name}",
            f"class {name!r} is in {split} but not in train: its {count(n, 'picture')} left out",
        )
        for (split, name), n in sorted(strange.items())
    ]


def _empty(layout: Layout, classes: Sequence[str]) -> list[Problem]:
    """Class folders of the training part from which no class came."""
    return [
        Problem("empty-class", name, f"class {name!r} has no usable picture: it is left out")
        for split, name in layout.classes
        if split in ("", "train") and name not in classes
    ]
