import pytest

from vitrail.testing import MixerLaws, ReducerLaws, case


def test_what_fails_gives_the_name_of_its_case():
    with pytest.raises(AssertionError) as caught:
        for grid in ((8, 8), (7, 5), (1, 1)):
            with case("pool", grid):
                assert grid[0] == grid[1]
    assert caught.value.__notes__ == ["in the case pool, (7, 5)"]


def test_a_suite_leaves_out_the_laws_that_do_not_speak_of_its_specs():
    class Untraced(MixerLaws):
        traces = False

    class OtherParts(MixerLaws):
        def spelled_out(self, mixer, x, grid, shared, plan=None):
            return x

    class Dynamic(ReducerLaws):
        traces = False

    assert absent(Untraced, MixerLaws) == ["test_one_graph_and_export"]
    assert absent(OtherParts, MixerLaws) == ["test_keys_are_means_of_tokens"]
    assert absent(Dynamic, ReducerLaws) == ["test_one_graph"]


def absent(suite, laws):
    return [name for name in dir(laws) if name.startswith("test") and not getattr(suite, name)]
