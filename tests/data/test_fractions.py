import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrail.data.fractions import choose_validation, take_fraction
from vitrail.data.items import Item
from vitrail.errors import UserError

sets = st.lists(st.integers(0, 4), min_size=1, max_size=80).map(
    lambda labels: tuple(Item(f"{i}.png", label, "train") for i, label in enumerate(labels))
)
shares = st.floats(0.001, 1.0)
seeds = st.integers(0, 1000)


def per_class(items):
    return {label: sum(i.label == label for i in items) for label in {i.label for i in items}}


@given(sets, shares, shares, seeds)
def test_nested(items, one, other, seed):
    small, large = sorted((one, other))
    assert set(take_fraction(items, small, seed)) <= set(take_fraction(items, large, seed))


@given(sets, shares, seeds)
def test_stratified_with_one_of_each_class_at_least(items, share, seed):
    whole, part = per_class(items), per_class(take_fraction(items, share, seed))
    assert part.keys() == whole.keys()
    for label, number in part.items():
        assert number == max(1, int(share * whole[label] + 0.5))


@given(sets, seeds)
def test_everything_is_everything_in_its_order(items, seed):
    assert take_fraction(items, 1.0, seed) == items


@given(sets, shares, seeds, st.randoms())
def test_the_choice_does_not_depend_on_order(items, share, seed, random):
    shuffled = list(items)
    random.shuffle(shuffled)
    assert set(take_fraction(shuffled, share, seed)) == set(take_fraction(items, share, seed))


@given(sets, shares, seeds)
def test_a_part_keeps_the_order_of_the_whole(items, share, seed):
    part = take_fraction(items, share, seed)
    assert list(part) == [item for item in items if item in set(part)]


def test_seeds_choose_differently_and_the_same_seed_the_same():
    items = tuple(Item(f"{i}", i % 2, "train") for i in range(100))
    assert take_fraction(items, 0.1, 0) != take_fraction(items, 0.1, 1)
    # Written down: the choice must not change between versions or machines.
    assert [item.key for item in take_fraction(items, 0.04, 0)] == PINNED


PINNED = ["56", "57", "73", "76"]


@pytest.mark.parametrize("share", [0, -0.1, 1.01, 10])
def test_shares_out_of_range(share):
    with pytest.raises(UserError, match="above 0 and at most 1, not"):
        take_fraction((), share, 0)


@given(sets, st.floats(0.01, 0.99), seeds)
def test_held_out_takes_some_of_each_class_but_never_all(items, share, seed):
    keys = choose_validation(items, share, seed)
    for label, number in per_class(items).items():
        taken = sum(item.label == label and item.key in keys for item in items)
        assert taken == 0 if number == 1 else 1 <= taken < number
