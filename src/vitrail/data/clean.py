"""From decodable images to a dataset: duplicates, leaks, classes, validation split."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from vitrail.data.fractions import choose_validation
from vitrail.data.history import History
from vitrail.data.items import SPLITS, Item, Problem, format_count
from vitrail.data.layout import ImageRow, Layout
from vitrail.data.scan import ScannedImage
from vitrail.errors import UserError


@dataclass(frozen=True)
class CleanSet:
    """Classes in order, items in the order of their keys, lines."""

    classes: tuple[str, ...]
    items: tuple[Item, ...]
    problems: tuple[Problem, ...]


def clean(
    source: str,
    layout: Layout,
    seen: Sequence[ScannedImage],
    lost: Sequence[Problem] = (),
    copies: bool = False,
) -> CleanSet:
    """Remove duplicates and unknown classes; :func:`split_validation` comes later.

    ``lost`` says why other images cannot be used. With ``copies`` all copies of an image in the
    training part count.

    Raises:
        UserError: fewer than two classes are left.
    """
    kept, problems = deduplicate(seen, copies)
    classes = sorted({one.row.name for one in kept if one.row.split in ("", "train")})
    if len(classes) < 2:
        raise UserError(f"{source}{_too_few(classes, [*lost, *problems])}")
    problems = _similar_classes(classes) + problems
    problems += _unknown_classes(kept, set(classes)) + _empty_classes(layout, set(classes))
    labels = {name: label for label, name in enumerate(classes)}
    items = [
        Item(one.row.key, labels[one.row.name], one.row.split or "train", one.digest, one.size)
        for one in kept
        if one.row.name in labels
    ]
    items.sort(key=lambda item: (SPLITS.index(item.split), item.key))
    return CleanSet(tuple(classes), tuple(items), tuple(problems))


def _too_few(classes: Sequence[str], lost: Sequence[Problem]) -> str:
    """What is wrong with a set of one class or none: first of all, why others are missing."""
    end = "a classifier needs two classes or more"
    if not lost:
        only = f"one class ({classes[0]!r})" if classes else "no usable training picture"
        return f" has {only}; {end}"
    only = f"only class {classes[0]!r} is left" if classes else "no training picture is left"
    more = f" (and {len(lost) - 1:,} more lines like it)" if lost[1:] else ""
    return f": {lost[0].line}{more}; {only}, and {end}"


def split_validation(
    classes: Sequence[str],
    items: Sequence[Item],
    val: float,
    seed: int,
    history: History | None = None,
    source: str = "",
) -> tuple[tuple[Item, ...], tuple[Problem, ...]]:
    """Split a validation part off train where there is none; then report classes of few images.

    Images that ``history`` knows have the part that they had; ``source`` is the set's name.
    """
    chosen = _assign_splits(items, val, seed, history, source)
    pairs = zip(items, chosen, strict=True)
    moved = sum(old.split != "train" and new.split == "train" for old, new in pairs)
    chosen, copies = _drop_copies_of_held_out(chosen)
    problems = [] if history is None else [history.line(chosen, moved, source)]
    if copies:
        left_out = format_count(copies, "copy", "copies")
        line = f"{left_out} of pictures to validate or test with left out"
        problems.append(Problem("copies", source, line))
    counts = Counter((item.label, item.split) for item in chosen)
    for label, name in enumerate(classes):
        if not counts[label, "val"]:
            line = f"class {name!r}: no picture to validate with; it is trained, never checked"
            problems.append(Problem("never-checked", name, line))
        if counts[label, "train"] == 1:
            line = f"class {name!r} has a single picture to train with; add some"
            problems.append(Problem("single-picture", name, line))
    return tuple(chosen), tuple(problems)


def _assign_splits(
    items: Sequence[Item], val: float, seed: int, history: History | None, source: str
) -> list[Item]:
    """Every item with the part that it belongs to."""
    known = [history.part_of(item, source) if history else None for item in items]
    # Of a run that trained on a share, the rest of its images are no new ones.
    partial = history is not None and history.share < 1
    pool = [
        item
        for item, part in zip(items, known, strict=True)
        if item.split == "train" and (part is None or partial)
    ]
    has_own = any(item.split == "val" for item in items)
    keys = frozenset() if has_own else choose_validation(_unique_images(pool), val, seed)
    return [
        item if part == item.split else replace(item, split=part)
        for item, part in zip(
            items,
            (part or _split_of(item, keys) for item, part in zip(items, known, strict=True)),
            strict=True,
        )
    ]


def _split_of(item: Item, keys: frozenset[str]) -> str:
    return "val" if item.split == "train" and item.key in keys else item.split


def _unique_images(items: Iterable[Item]) -> list[Item]:
    """One item of each image, the first."""
    return list({item.digest or item.key: item for item in reversed(list(items))}.values())


def _drop_copies_of_held_out(items: Sequence[Item]) -> tuple[list[Item], int]:
    """Keep one copy of each validation or test image, none in train; also returns how many went."""
    stays: dict[str, Item] = {}
    for item in items:
        if item.split != "train" and item.digest:
            stays.setdefault(item.digest, item)
    kept = [item for item in items if stays.get(item.digest, item) is item]
    return kept, len(items) - len(kept)


def deduplicate(
    seen: Iterable[ScannedImage], copies: bool = False
) -> tuple[list[ScannedImage], list[Problem]]:
    """Keep one of each image, by content: the most held-out copy; none, if labels differ.

    With ``copies`` all stay that have one label and lie in the training part alone.
    """
    groups: dict[str, list[ScannedImage]] = defaultdict(list)
    for one in seen:
        groups[one.digest].append(one)
    kept: list[ScannedImage] = []
    problems: list[Problem] = []
    extra = Counter[str]()
    for group in groups.values():
        if copies and len({(one.row.name, one.row.split) for one in group}) == 1:
            most = len(group) if group[0].row.split in ("", "train") else 1
            extra[group[0].row.name] += most - 1
            kept += group[:most]
            continue
        stays, lines = _choose_copy([one.row for one in group]) if len(group) > 1 else (0, [])
        problems += lines
        kept += [group[stays]] if stays is not None else []
    return kept, problems + _copies_line(extra)


def _copies_line(extra: Counter[str]) -> list[Problem]:
    """One line on copies that count, as asked for."""
    named = [f"{name!r} {number:,}" for name, number in extra.items() if number]
    if not named:
        return []
    more = f", … ({len(named)} classes)" if len(named) > 5 else ""
    said = f"{format_count(extra.total(), 'copy', 'copies')} of pictures counted again in training"
    line = f"{said}, as asked ({', '.join(named[:5])}{more})"
    return [Problem("copies", ".", line)]


def _choose_copy(rows: Sequence[ImageRow]) -> tuple[int | None, list[Problem]]:
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


def _unknown_classes(kept: Iterable[ScannedImage], classes: set[str]) -> list[Problem]:
    """Classes that val or test has and train has not."""
    strange = Counter((one.row.split, one.row.name) for one in kept if one.row.name not in classes)
    return [
        Problem(
            "unknown-class",
            f"{split}/{name}",
            f"class {name!r} is in {split} but not in train: its "
            f"{format_count(n, 'picture')} left out",
        )
        for (split, name), n in sorted(strange.items())
    ]


def _similar_classes(classes: Sequence[str]) -> list[Problem]:
    """One line on names that people would take for one another, as ``Cat`` and ``cat ``."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        groups[_without_looks(name)].append(name)
    alike = [" and ".join(map(repr, names)) for names in groups.values() if names[1:]]
    if not alike:
        return []
    more = f" ({len(alike)} such groups)" if alike[1:] else ""
    line = (
        f"{alike[0]} are classes of their own, and differ only in capitals, spaces or how letters "
        f"are written{more}; give them one name if they mean the same"
    )
    return [Problem("similar-classes", alike[0], line)]


def _without_looks(name: str) -> str:
    """``name`` without capitals, spaces, invisible characters and forms of one letter."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in plain if c != "_" and unicodedata.category(c) not in ("Zs", "Cf"))


def _empty_classes(layout: Layout, classes: set[str]) -> list[Problem]:
    """Class folders of the training part from which no class came."""
    return [
        Problem("empty-class", name, f"class {name!r} has no usable picture: it is left out")
        for split, name in layout.classes
        if split in ("", "train") and name not in classes
    ]
