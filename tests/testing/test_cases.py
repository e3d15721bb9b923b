import pytest

from vitrail.testing import case


def test_what_fails_gives_the_name_of_its_case():
    with pytest.raises(AssertionError) as caught:
        for grid in ((8, 8), (7, 5), (1, 1)):
            with case("pool", grid):
                assert grid[0] == grid[1]
    assert caught.value.__notes__ == ["in the case pool, (7, 5)"]
