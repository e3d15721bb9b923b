"""Every way in which the zoo wires a model keeps every point of the contract.

Between them the structures stand for every registered name; see ``structures``. What is dear is
held by the backbones with the least in common (``compiles``) or by one structure of each backbone
(``learns_by_heart``), ``exports`` by ``tests/export``, which captures with a free batch;
``benchmarks.contract_sweep`` asks all of all.
"""

import pytest
from tests.contracts.points import POINTS
from tests.contracts.structures import STRUCTURES, WIRINGS, narrow, one_a_backbone

import vitrail
from vitrail.models.zoo import ZOO
from vitrail.testing import case

DEAR = ("compiles", "exports", "learns_by_heart")
CHEAP = [point for point in POINTS if point not in DEAR]


def test_structures_stand_for_every_variant():
    assert sorted(n for names in STRUCTURES.values() for n in names) == vitrail.list_models()


def test_wirings_are_of_as_many_backbones():
    assert len({ZOO[name].model for name in WIRINGS}) == len(WIRINGS)


@pytest.mark.parametrize("name", STRUCTURES)
def test_cheap_points(name):
    for point in CHEAP:
        with case(point):
            POINTS[point](lambda **options: narrow(name, **options))


@pytest.mark.parametrize("name", WIRINGS)
def test_compiles(name):
    POINTS["compiles"](lambda **options: narrow(name, **options))


@pytest.mark.parametrize("name", one_a_backbone())
def test_learns_by_heart(name):
    POINTS["learns_by_heart"](lambda **options: narrow(name, **options))
