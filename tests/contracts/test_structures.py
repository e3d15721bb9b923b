"""Every way in which the zoo wires a model keeps every point of the contract.

Between them the structures stand for every registered name; see ``structures``.
"""

import pytest
from tests.contracts.points import POINTS, STATIC
from tests.contracts.structures import HASHED, STRUCTURES, narrow

import vitrail


def test_structures_stand_for_every_variant():
    assert sorted(n for names in STRUCTURES.values() for n in names) == vitrail.list_models()


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", STRUCTURES)
def test_point(name, point):
    if point in STATIC and name.endswith(HASHED):
        pytest.skip("a hash finds as many clusters as the picture has: no static shapes")
    POINTS[point](lambda **options: narrow(name, **options))
