"""Choosing, taking and putting back against the boolean way."""

import pytest
import torch

from vitrail.tokens.selection import (
    gather,
    keep_count,
    lattice,
    scatter,
    stable_topk_indices,
    topk_indices,
)


def test_best_take_put_are_a_mask_and_nonzero():
    score, x, z = torch.randn(3, 40), torch.randn(3, 40, 5), torch.randn(3, 7, 5)
    index = topk_indices(score, 7)
    taken, placed = gather(x, index), scatter(x, index, z)
    for b in range(3):
        mask = score[b] >= score[b].sort(descending=True).values[6]
        assert torch.equal(index[b], mask.nonzero().squeeze(1))
        assert torch.equal(taken[b], x[b][mask])
        wanted = x[b].clone()
        wanted[mask] = z[b]
        assert torch.equal(placed[b], wanted)


def test_putting_back_what_was_taken_changes_nothing_and_leaves_the_input():
    x = torch.randn(2, 12, 3)
    kept, index = x.clone(), topk_indices(torch.randn(2, 12), 4)
    assert torch.equal(scatter(x, index, gather(x, index)), x)
    scatter(x, index, torch.zeros(2, 4, 3))
    assert torch.equal(x, kept)


@pytest.mark.parametrize(
    ("keep", "grid", "count"),
    [
        (256 / 55**2, (55, 55), 256),
        (128 / 28**2, (28, 28), 128),
        (1.0, (3, 5), 15),
        (0.01, (2, 2), 1),
    ],
)
def test_shares(keep, grid, count):
    assert keep_count(keep, grid) == count


@pytest.mark.parametrize("grid", [(1, 1), (5, 7), (8, 3), (1, 9), (6, 6)])
def test_lattice_has_every_count_without_repeats(grid):
    places = grid[0] * grid[1]
    for count in range(1, places + 1):
        index = lattice(count, grid, torch.device("cpu"))[0]
        assert index.shape == (count,) and (index.diff() > 0).all()
        assert index.min() >= 0 and index.max() < places
    assert torch.equal(index, torch.arange(places))


def test_lattice_is_even():
    index = lattice(16, (8, 8), torch.device("cpu"))[0]
    assert (index // 8).unique().tolist() == [1, 3, 5, 7]
    assert (index % 8).unique().tolist() == [1, 3, 5, 7]


def test_of_equal_scores_the_first_places_are_taken():
    score = torch.tensor([[0.5, 0.9, 0.5, 0.5, 0.7, 0.5]])
    assert stable_topk_indices(score, 4).tolist() == [[0, 1, 2, 4]]
    drawn = torch.rand(3, 50)
    assert torch.equal(stable_topk_indices(drawn, 7), topk_indices(drawn, 7))
