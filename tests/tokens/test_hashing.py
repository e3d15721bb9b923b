"""Hashes find what is alike; clusters of codes find groups."""

import torch

from vitrail.tokens.hashing import AngularBuckets, HammingClusters


def test_buckets_know_directions_only():
    hashing, x = AngularBuckets(8, 3, 6), torch.randn(2, 20, 8)
    buckets = hashing(x)
    assert buckets.shape == (2, 3, 20) and buckets.min() >= 0 and buckets.max() < 6
    assert torch.equal(hashing(5 * x), buckets)
    assert torch.equal(hashing(-x), (buckets + 3) % 6)


def test_what_is_alike_shares_a_bucket_more_often():
    hashing, x = AngularBuckets(8, 64, 8), torch.randn(50, 8)
    same = hashing(x) == hashing(x + 0.1 * torch.randn(50, 8))
    other = hashing(x) == hashing(torch.randn(50, 8))
    assert same.float().mean() > 0.8 > 0.3 > other.float().mean()


def test_clusters_of_codes_find_separate_groups():
    centres = 4 * torch.randn(5, 16)
    group = torch.arange(40) % 5  # the first anchors lie in different groups
    x = centres[group] + 0.1 * torch.randn(40, 16)
    order = group.argsort()  # 8 of each group in a row: anchors 0, 8, 16, ...
    assignment = HammingClusters(16, 31, 5)(x[order].unsqueeze(0), 5)[0]
    assert torch.equal(assignment, group[order])


def test_clusters_do_not_depend_on_other_images_nor_on_the_draw():
    x = torch.randn(3, 30, 8)
    assignment = HammingClusters(8, 15, 3)(x, 4)
    torch.manual_seed(7)
    assert torch.equal(HammingClusters(8, 15, 3)(x[1:2], 4), assignment[1:2])


def test_as_many_clusters_as_tokens_is_the_identity():
    x = torch.zeros(2, 6, 4)
    assert HammingClusters(4, 7, 2)(x, 6).tolist() == [list(range(6))] * 2
