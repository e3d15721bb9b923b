"""Every way in which the zoo wires a model keeps every point of the contract.

Between them the structures stand for every registered name; see ``structures``. The dearest points
are held by one structure of each backbone and reducer, ``exports`` by ``tests/export``, which
captures one of each kind of parts with a free batch; ``benchmarks.contract_sweep`` asks all
of all.
"""

import pytest
from tests.contracts.points import POINTS, STATIC
from tests.contracts.structures import HASHED, STRUCTURES, narrow, one_each

import vitrail
from vitrail.testing import case

DEAR = ("compiles", "learns_by_heart")
CHEAP = [point for point in POINTS if point not in (*DEAR, "exports")]


def test_structures_stand_for_every_variant():
    assert sorted(n for names in STRUCTURES.values() for n in names) == vitrail.list_models()


@pytest.mark.parametrize("name", STRUCTURES)
def test_cheap_points(name):
    for point in CHEAP:
        with case(point):
            POINTS[point](lambda **options: narrow(name, **options))


@pytest.mark.parametrize("point", DEAR)
@pytest.mark.parametrize("name", one_each())
def test_dear_points(name, point):
    if point in STATIC and name.endswith(HASHED):
        pytest.skip("it has as many clusters as the image asks for: no static shapes")
    POINTS[point](lambda **options: narrow(name, **options))
