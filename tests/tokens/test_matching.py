"""Matching and density peaks against plain loops."""

import numpy as np
import pytest
import torch

from vitrail.tokens import matching as match
from vitrail.tokens.assignment import count_members
from vitrail.tokens.matching import (
    assign_by_merging,
    assign_pairs,
    assign_to_density_peaks,
    halving_rounds,
)
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
    assignment = np.empty(count, int)
    for number, group in enumerate(groups):
        assignment[group] = number
    return assignment


@pytest.mark.parametrize(("tokens", "merges"), [(2, 1), (9, 4), (16, 8), (25, 7)])
def test_matching_against_a_loop(tokens, merges):
    torch.manual_seed(tokens)
    x = torch.randn(3, tokens, 5, dtype=torch.float64)
    got = assign_pairs(x, merges)
    for image, assignment in zip(x.numpy(), got.numpy(), strict=True):
        assert assignment.tolist() == owners_of(pairs_by_loop(image, merges), tokens).tolist()


def test_rounds_carry_sizes_against_a_loop():
    """Two rounds: what was merged in the first is the mean of all it stands for in the second."""
    torch.manual_seed(3)
    x = torch.randn(1, 20, 4, dtype=torch.float64)
    image = x[0].numpy()
    groups = pairs_by_loop(image, 10)
    merged = np.stack([image[g].mean(0) for g in groups])
    groups = [[t for i in g for t in groups[i]] for g in pairs_by_loop(merged, 4)]
    assert assign_by_merging(x, 6)[0].tolist() == owners_of(groups, 20).tolist()
    assert list(halving_rounds(20, 6)) == [(20, 10), (10, 6)] and list(halving_rounds(5, 5)) == []


def test_ties_go_to_the_earlier():
    x = torch.ones(2, 8, 3)
    assert assign_pairs(x, 2).tolist() == [[0, 0, 0, 1, 2, 3, 4, 5]] * 2
    assert assign_to_density_peaks(x, 3, 2).tolist() == [[0, 1, 2, 0, 0, 0, 0, 0]] * 2


def test_rows_of_similarities_change_nothing(monkeypatch):
    x = torch.randn(2, 40, 6)
    wanted = assign_pairs(x, 13), assign_to_density_peaks(x, 9, 4)
    monkeypatch.setattr(match, "MAX_SIMILARITIES", 120)
    assert torch.equal(assign_pairs(x, 13), wanted[0])
    assert torch.equal(assign_to_density_peaks(x, 9, 4), wanted[1])


def test_matching_is_that_of_the_papers_code():
    """timm's own token merging, or ToMe's, where one is installed."""
    merge = pytest.importorskip("tome.merge", reason="ToMe is not installed")
    x = torch.randn(2, 16, 8)
    there, _ = merge.bipartite_soft_matching(x, 5)
    wanted, sizes = merge.merge_wavg(there, x)
    assignment = assign_pairs(x, 5)
    counts = count_members(assignment, 11)
    got = means(x, assignment, counts)
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
    assignment = [int(np.argmin(far[i, centres])) for i in range(len(x))]
    for number, centre in enumerate(centres):
        assignment[centre] = number
    return assignment


@pytest.mark.parametrize(("tokens", "clusters", "k"), [(1, 1, 5), (12, 3, 5), (30, 8, 4)])
def test_density_peaks_against_a_loop(tokens, clusters, k):
    torch.manual_seed(tokens)
    x = torch.randn(2, tokens, 3, dtype=torch.float64)
    got = assign_to_density_peaks(x, clusters, k)
    for image, assignment in zip(x.numpy(), got.tolist(), strict=True):
        assert assignment == peaks_by_loop(image, clusters, k)


def test_density_finds_the_crowds():
    torch.manual_seed(0)
    crowds = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]]).repeat_interleave(10, 0)
    assignment = assign_to_density_peaks((crowds + 0.3 * torch.randn(30, 2))[None], 3, 5)[0]
    groups = [set(part.tolist()) for part in assignment.split(10)]
    assert all(len(group) == 1 for group in groups) and len(set.union(*groups)) == 3
