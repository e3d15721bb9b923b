"""Every way in which the zoo wires a model keeps every point of the contract.

Between them the structures stand for every registered name; see ``structures``. The dearest points
are held by one structure of each backbone and reducer, ``exports`` by ``tests/export``, which
captures one of each kind of parts with a free batch; ``benchmarks.contract_sweep`` asks all
of all.
"""

import pytest
from tests.contracts.points import POINTS, STATIC
from tests.contracts.structures import HASHED, STRUCTURES, kinds, narrow

import vitrail
from vitrail.models.zoo import ZOO

DEAR = ("compiles", "learns_by_heart")
ONE_EACH = {
    (ZOO[name].model, str(ZOO[name].config.reducer)): name for name in reversed(kinds())
}.values()
HELD = [
    (name, point)
    for point in POINTS
    if point != "exports"
    for name in (ONE_EACH if point in DEAR else STRUCTURES)
    if not (point in STATIC and name.endswith(HASHED))  # so many clusters as the picture has
]


def test_structures_stand_for_every_variant():
    assert sorted(n for names in STRUCTURES.values() for n in names) == vitrail.list_models()


@pytest.mark.parametrize(("name", "point"), HELD)
def test_point(name, point):
    POINTS[point](lambda **options: narrow(name, **options))
