import pytest
import torch

from vitrail.layers.attend import attend, attention_weights, join_heads, size_bias, split_heads
from vitrail.tokens.assignment import (
    assign_by_code,
    assign_by_kmeans,
    assign_by_sorting,
    assign_to_cells,
    assign_to_destinations,
    count_members,
    hash_digits,
    mix_digits,
    scatter_to_tokens,
    sum_by_cluster,
)
from vitrail.tokens.clusterers import HashClusterer, cell_of, window_of


def test_sum_and_spread_are_adjoint():
    assignment = torch.randint(0, 5, (3, 20))
    x, z = torch.randn(3, 20, 4), torch.randn(3, 5, 4)
    left = (sum_by_cluster(x, assignment, 5) * z).sum()
    torch.testing.assert_close(left, (x * scatter_to_tokens(z, assignment)).sum())
    assert count_members(assignment, 5).sum(1).tolist() == [20, 20, 20]


def test_a_members_gradient_is_its_prototypes_divided():
    assignment = torch.tensor([[0, 0, 0, 1]])
    x = torch.randn(1, 4, 2, dtype=torch.float64, requires_grad=True)
    counts = count_members(assignment, 2).double()[..., None]
    g = torch.randn(1, 2, 2, dtype=torch.float64)
    ((sum_by_cluster(x, assignment, 2) / counts) * g).sum().backward()
    torch.testing.assert_close(
        x.grad, torch.stack((g[0, 0], g[0, 0], g[0, 0], 3 * g[0, 1]))[None] / 3
    )


@pytest.mark.parametrize("grid", [(8, 8), (7, 9), (16, 8), (3, 2), (1, 1)])
@pytest.mark.parametrize("cell", [(1, 1), (2, 2), (3, 3), (1, 2), (2, 3)])
def test_destinations_against_the_definition(grid, cell):
    """Token by token: the most similar destination of the same window, itself if it is one."""
    torch.manual_seed(0)
    height, width = grid
    (down, right), window = cell, window_of(grid, cell)
    x = torch.randn(2, height * width, 6)
    got = assign_to_destinations(x, grid, cell, window)
    across = -(-width // right)
    unit = torch.nn.functional.normalize(x, dim=-1)
    for b in range(2):
        for t in range(height * width):
            r, c = divmod(t, width)
            if r % down == 0 and c % right == 0:
                assert got[b, t] == r // down * across + c // right
                continue
            anchors = [
                (rr, cc)
                for rr in range(height)
                for cc in range(width)
                if rr // window[0] == r // window[0] and cc // window[1] == c // window[1]
                if rr % down == 0 and cc % right == 0
            ]
            best = max(anchors, key=lambda s: (unit[b, t] @ unit[b, s[0] * width + s[1]]).item())
            assert got[b, t] == best[0] // down * across + best[1] // right


def test_windows_follow_the_grid():
    assert [window_of((s, s), (2, 2))[0] for s in (56, 28, 14, 12, 9)] == [8, 14, 14, 4, 8]


def test_kmeans_finds_blobs_and_sort_cuts_equal_runs():
    blobs = assign_to_cells((8, 8), (4, 4), torch.device("cpu"))
    x = torch.nn.functional.one_hot(blobs, 4).float() + 0.01 * torch.randn(1, 64, 4)
    assert torch.equal(assign_by_kmeans(x, (8, 8), (4, 4), 3), blobs)
    key = torch.randn(2, 21)
    runs = assign_by_sorting(key, 5)
    assert count_members(runs, 5).tolist() == [[5, 4, 4, 4, 4]] * 2
    assert (runs.gather(1, key.argsort(1)).diff(dim=1) >= 0).all(), "runs follow the key"


def test_hash_follows_e2lsh_collision_probability():
    """B5: two points at distance c share a bucket of width r with p(2) = 0.6095, p(8) = 0.9003."""
    planes, offsets = torch.randn(16, 40_000), torch.rand(40_000)
    for ratio, wanted in ((2.0, 0.6095), (8.0, 0.9003)):
        a = torch.randn(1, 1, 16)
        step = torch.nn.functional.normalize(torch.randn(1, 1, 16), dim=-1)
        one, two = (hash_digits(p, planes, offsets, ratio) for p in (a, a + step))
        assert (one == two).float().mean().item() == pytest.approx(wanted, abs=0.01)


def test_digits_do_not_spill():
    """ACT's base-4 code merges (4, 0) with (0, 1); the mixed code keeps all digits apart."""
    digits = torch.cartesian_prod(*[torch.arange(-3, 9)] * 3)[None]
    assignment, counts = assign_by_code(mix_digits(digits))
    assert counts.item() == 12**3 and assignment.unique().numel() == 12**3


def test_hash_is_the_same_every_time_and_saved():
    finder = HashClusterer(8, 4, 1.0)
    x = torch.randn(2, 30, 8)
    assert torch.equal(finder(x, (5, 6))[0], HashClusterer(8, 4, 1.0)(x, (5, 6))[0])
    assert set(finder.state_dict()) == {"planes", "offsets"}
    assignment, count = finder(x[:, [0] * 30], (5, 6))
    assert count == 1 and not assignment.any()


def test_sized_keys_count_as_often_as_they_stand_for():
    """softmax(k + log n) over prototypes = softmax over tokens when members share k (C9.4)."""
    q, k, v = (torch.randn(1, 2, 5, 4) for _ in range(3))
    sizes = torch.tensor([[1.0, 3.0, 2.0, 1.0, 4.0]])
    often = sizes[0].long()
    wanted = attend(q, k.repeat_interleave(often, 2), v.repeat_interleave(often, 2))
    torch.testing.assert_close(attend(q, k, v, size_bias(sizes, q)), wanted)
    weights = attention_weights(q, k, size_bias(sizes, q))
    torch.testing.assert_close(weights @ v, wanted)


def test_heads_split_and_join():
    x = torch.randn(2, 5, 12)
    assert torch.equal(join_heads(split_heads(x, 3)), x)


def test_cells_are_as_square_as_their_size_allows():
    assert [cell_of(n) for n in (1, 2, 3, 4, 6, 8, 9, 12, 7)] == [
        (1, 1),
        (1, 2),
        (1, 3),
        (2, 2),
        (2, 3),
        (2, 4),
        (3, 3),
        (3, 4),
        (1, 7),
    ]
