"""Shares of a set: seeded, stratified, nested.

Inside each class images are ranked by a hash of (seed, key), and a share takes the first ones.
So a smaller share lies inside every larger one, and an image's rank does not depend on what
else is in the set, on the order of files or on the machine.
"""

import math
from collections import defaultdict
from collections.abc import Iterable

from vitrail.data.items import Item, stable_seed
from vitrail.errors import UserError


def take_fraction(items: Iterable[Item], share: float, seed: int) -> tuple[Item, ...]:
    """``share`` (0 < share <= 1) of each class, at least one image of each.

    Nested: for one seed, 1 % lies inside 10 % inside 100 %. Items keep their order.

    Raises:
        UserError: a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise UserError(f"a data share must be above 0 and at most 1, not {share} (10 % is 0.1)")
    items = tuple(items)
    chosen: set[str] = set()
    for members in _by_class(items).values():
        ranked = _rank(members, "share", seed)
        chosen.update(item.key for item in ranked[: max(1, _round(share * len(ranked)))])
    return tuple(item for item in items if item.key in chosen)


def choose_validation(items: Iterable[Item], share: float, seed: int) -> frozenset[str]:
    """Keys of the images of ``items`` that become the validation part.

    ``share`` of each class, at least one image of each class that has two or more, never all.

    Raises:
        UserError: a share outside (0, 1).
    """
    if not 0 < share < 1:
        raise UserError(f"the validation share must be above 0 and below 1, not {share}")
    keys: set[str] = set()
    for members in _by_class(items).values():
        number = min(max(1, _round(share * len(members))), len(members) - 1)
        keys.update(item.key for item in _rank(members, "val", seed)[:number])
    return frozenset(keys)


def _by_class(items: Iterable[Item]) -> dict[int, list[Item]]:
    classes = defaultdict(list)
    for item in items:
        classes[item.label].append(item)
    return classes


def _rank(items: list[Item], purpose: str, seed: int) -> list[Item]:
    return sorted(items, key=lambda item: (stable_seed(purpose, seed, item.key), item.key))


def _round(number: float) -> int:
    return math.floor(number + 0.5)
