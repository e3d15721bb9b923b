"""Matching and density peaks against plain loops."""

import numpy as np
import pytest
import torch

from vitrail.tokens import matching as match
from vitrail.tokens.assignment import count_members
from vitrail.tokens.matching import bipartite_owners, density_owners, halvings, merged_owners
from vitrail.tokens.plans import means


def pairs_by_loop(x, merges):
    """ToMe's matching of one image ``(N, D)``, said step by step: clusters as lists of tokens."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    first, second = range(0, len(x), 2), range(1, len(x), 2)
    best = {a: max(second, key=lambda b: (unit[a] @ unit[b], -b)) for a in first}
    strength = sorted(best, key=lambda a: (-(unit[a] @ unit[best[a]]), a))
    gone = strength[:merges]
    kept = [t for t in range(len(x)) if t not in gone]
    return [[t, *(a for a in gone if best[a] == t)] for t in kept]


def owners_of(groups, count):
    owner = np.empty(count, int)
    for number, group in enumerate(groups):
        owner[group] = number
    return owner


@pytest.mark.parametrize(("tokens", "merges"), [(2, 1), (9, 4), (16, 8), (25, 7)])
def test_matching_against_a_loop(tokens, merges):
    torch.manual_seed(tokens)
    x = torch.randn(3, tokens, 5, dtype=torch.float64)
    got = bipartite_owners(x, merges)
    for image, owner in zip(x.numpy(), got.numpy(), strict=True):
        assert owner.tolist() == owners_of(pairs_by_loop(image, merges), tokens).tolist()


def test_rounds_carry_sizes_against_a_loop():
    """Two rounds: what was merged in the first is the mean of all it stands for in the second."""
    torch.manual_seed(3)
    x = torch.randn(1, 20, 4, dtype=torch.float64)
    image = x[0].numpy()
    groups = pairs_by_loop(image, 10)
    merged = np.stack([image[g].mean(0) for g in groups])
    groups = [[t for i in g for t in groups[i]] for g in pairs_by_loop(merged, 4)]
    assert merged_owners(x, 6)[0].tolist() == owners_of(groups, 20).tolist()
    assert list(halvings(20, 6)) == [(20, 10), (10, 6)] and list(halvings(5, 5)) == []


def test_ties_go_to_the_earlier():
    x = torch.ones(2, 8, 3)
    assert bipartite_owners(x, 2).tolist() == [[0, 0, 0, 1, 2, 3, 4, 5]] * 2
    assert density_owners(x, 3, 2).tolist() == [[0, 1, 2, 0, 0, 0, 0, 0]] * 2


def test_rows_of_similarities_change_nothing(monkeypatch):
    x = torch.randn(2, 40, 6)
    wanted = bipartite_owners(x, 13), density_owners(x, 9, 4)
    monkeypatch.setattr(match, "HELD", 120)
    assert torch.equal(bipartite_owners(x, 13), wanted[0])
    assert torch.equal(density_owners(x, 9, 4), wanted[1])


def test_matching_is_that_of_the_papers_code():
    """timm's own token merging, or ToMe's, where one is installed."""
    merge = pytest.importorskip("tome.merge", reason="ToMe is not installed")
    x = torch.randn(2, 16, 8)
    there, _ = merge.bipartite_soft_matching(x, 5)
    wanted, sizes = merge.merge_wavg(there, x)
    owner = bipartite_owners(x, 5)
    counts = count_members(owner, 11)
    got = means(x, owner, counts)
    for b in range(2):  # theirs: first set's survivors, then the second set
        ours = sorted(zip(got[b].tolist(), counts[b].tolist(), strict=True))
        theirs = sorted(zip(wanted[b].tolist(), sizes[b, :, 0].tolist(), strict=True))
        torch.testing.assert_close(
            torch.tensor([v for v, _ in ours]), torch.tensor([v for v, _ in theirs])
        )
        assert [n for _, n in ours] == [n for _, n in theirs]


def peaks_by_loop(x, clusters, k):
    """TCFormer's DPC-KNN of one image ``(N, D)``, from the paper's equations 1 to 3."""
    far = np.array([[np.linalg.norm(a - b) / len(a) ** 0.5 for b in x] for a in x])
    rho = np.exp([-np.mean(np.sort(row)[:k] ** 2) for row in far])
    delta = np.array(
        [
            min((far[i, j] for j in range(len(x)) if rho[j] > rho[i]), default=far.max())
            for i in range(len(x))
        ]
    )
    centres = sorted(np.argsort(-rho * delta, kind="stable")[:clusters])
    owner = [int(np.argmin(far[i, centres])) for i in range(len(x))]
    for number, centre in enumerate(centres):
        owner[centre] = number
    return owner


@pytest.mark.parametrize(("tokens", "clusters", "k"), [(1, 1, 5), (12, 3, 5), (30, 8, 4)])
def test_density_peaks_against_a_loop(tokens, clusters, k):
    torch.manual_seed(tokens)
    x = torch.randn(2, tokens, 3, dtype=torch.float64)
    got = density_owners(x, clusters, k)
    for image, owner in zip(x.numpy(), got.tolist(), strict=True):
        assert owner == peaks_by_loop(image, clusters, k)


def test_density_finds_the_crowds():
    torch.manual_seed(0)
    crowds = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]]).repeat_interleave(10, 0)
    owner = density_owners((crowds + 0.3 * torch.randn(30, 2))[None], 3, 5)[0]
    groups = [set(part.tolist()) for part in owner.split(10)]
    assert all(len(group) == 1 for group in groups) and len(set.union(*groups)) == 3
