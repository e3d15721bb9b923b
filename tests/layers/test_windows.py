"""Tilings: what is folded comes back, and no tile's places see another's."""

import pytest
import torch

from vitrail.layers.windows import Halo, attend_tiles, dilated_tiles, windows

TILINGS = [
    windows((8, 8), 4, 0),
    windows((8, 8), 4, 2),
    windows((7, 10), 4, 1),
    windows((3, 9), 4, 2),
    dilated_tiles((8, 8), 4),
    dilated_tiles((7, 10), 4),
    dilated_tiles((1, 5), 3),
]


@pytest.mark.parametrize("tiling", TILINGS, ids=str)
def test_unfolding_undoes_folding(tiling):
    x = torch.randn(2, tiling.grid[0] * tiling.grid[1], 3)
    tiles = tiling.fold(x)
    assert tiles.shape == (2, tiling.counts[0] * tiling.counts[1], tiling.area, 3)
    assert torch.equal(tiling.unfold(tiles), x)


@pytest.mark.parametrize("tiling", TILINGS, ids=str)
def test_the_bias_says_what_tiles_and_seats_say(tiling):
    """Fold each place's tile number: the bias is zero just where they agree."""
    tiles = [tiling.tile_of(axis, torch.device("cpu")) for axis in (0, 1)]
    number = (tiles[0][:, None] * 100 + tiles[1] + 500).float().flatten()[None, :, None]
    folded = tiling.fold(number)[0, :, :, 0]
    together = folded[:, :, None] == folded[:, None, :]
    bias = tiling.bias(torch.zeros(1, tiling.area, tiling.area))
    bias = bias.expand(folded.shape[0], -1, -1, -1)[:, 0]
    real = folded.gt(0)
    both = real[:, :, None] & real[:, None, :]
    assert torch.equal(bias[both] == 0, together[both])
    assert (bias[real[:, :, None] & ~real[:, None, :]] == -torch.inf).all()
    assert bias.amax(2).eq(0).all()  # no row without a number


def test_whole_tiles_need_one_bias_only():
    assert windows((8, 12), 4, 0).bias(torch.zeros(2, 16, 16)).shape == (1, 2, 16, 16)
    assert windows((8, 12), 4, 2).bias(torch.zeros(2, 16, 16)).shape == (6, 2, 16, 16)


def test_seats_are_places_in_a_tile():
    assert windows((8, 8), 4, 1).seat_of(0, torch.device("cpu")).tolist() == [3, 0, 1, 2] * 2
    assert dilated_tiles((6, 6), 3).seat_of(0, torch.device("cpu")).tolist() == [0, 0, 1, 1, 2, 2]


def test_a_ragged_spread_wastes_no_seats():
    assert dilated_tiles((8, 8), 7).size == (4, 4)


@pytest.mark.parametrize("grid", [(9, 7), (2, 5), (1, 1)])
@pytest.mark.parametrize("radius", [0, 1, 2])
def test_a_halo_holds_what_its_tile_can_reach(grid, radius):
    halo = Halo(grid, radius)
    number = torch.arange(1.0, grid[0] * grid[1] + 1)[None, :, None]
    keys, queries = halo.fold(number)[0, :, :, 0], halo.tiling.fold(number)[0, :, :, 0]
    bias = halo.bias(number)[:, 0].expand(len(queries), -1, -1)
    for tile, query in zip(*queries.nonzero(as_tuple=True), strict=True):
        seen = keys[tile][bias[tile, query] == 0]
        i, j = divmod(int(queries[tile, query]) - 1, grid[1])
        wanted = [
            float(a * grid[1] + b + 1)
            for a in range(max(0, i - radius), min(grid[0], i + radius + 1))
            for b in range(max(0, j - radius), min(grid[1], j + radius + 1))
        ]
        assert sorted(seen.tolist()) == wanted


def test_both_ways_of_folding_for_the_kernel_agree():
    q, k, v = torch.randn(3, 2, 6, 4, 5, 8).unbind(0)
    bias = torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(
        attend_tiles(q, k, v, bias), attend_tiles(q, k, v, bias.expand(6, -1, -1, -1))
    )
