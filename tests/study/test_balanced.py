"""Balanced accuracy: known answers, and coverage by simulation."""

import numpy as np
import pytest
from tests.study.test_stats import simulate

from vitrail.study import balanced, stats

LABELS = np.repeat([0, 1, 2], [200, 60, 20])


def test_the_value_is_the_mean_of_the_classes() -> None:
    right = np.random.default_rng(0).random((2, len(LABELS))) < 0.7
    wanted = np.mean([[row[k == LABELS].mean() for k in range(3)] for row in right])
    assert balanced.interval(right, LABELS).value == pytest.approx(wanted)
    first = balanced.interval(right[:1], LABELS)
    assert first.value == pytest.approx(np.mean([right[0, k == LABELS].mean() for k in range(3)]))
    assert "one seed" in first.method and first.low < first.value < first.high


def test_one_class_is_agresti_and_coulls_interval_and_mcnemars_coin() -> None:
    """With one class it is plain accuracy: 81 of 263 and z = 1.96 (two hits, two misses added)."""
    right = (np.arange(263) < 81)[None]
    found = balanced.interval(right, np.zeros(263, int))
    near = 83 / 267
    half = 1.959964 * (near * (1 - near) / 267) ** 0.5
    assert (found.low, found.high) == pytest.approx((near - half, near + half))
    a, b = np.array([1] * 9 + [0] * 1 + [1] * 5, bool), np.array([0] * 9 + [1] * 6, bool)
    ours, theirs = balanced.sign_test(a, b, np.zeros(15, int)), stats.mcnemar(a, b)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    assert ours.p == pytest.approx(theirs.p, abs=0.004)


def test_crossed_with_one_class_is_the_plain_test() -> None:
    luck = np.random.default_rng(3)
    a, b = (luck.random((3, 90)) < p for p in (0.8, 0.6))
    ours, theirs = balanced.compare(a, b, np.zeros(90, int)), stats.compare(a, b)
    assert (ours.value, ours.low, ours.p) == pytest.approx((theirs.value, theirs.low, theirs.p))


def test_classes_of_one_picture_and_arms_that_agree() -> None:
    labels = np.array([0, 0, 0, 1])
    right, wrong = np.ones((2, 4), bool), np.zeros((2, 4), bool)
    assert balanced.compare(right, right, labels).p == 1
    assert balanced.compare(right, wrong, labels).p == 0
    assert balanced.compare(right[:1], right[:1], labels).p == 1
    mixed = np.array([[1, 0, 1, 1], [1, 1, 0, 0]], bool)
    found = balanced.interval(mixed, labels)
    assert 0 <= found.low < found.value < found.high <= 1
    with pytest.raises(ValueError, match="different pictures"):
        balanced.compare(right, right[:, :3], labels)


@pytest.mark.parametrize(("seeds", "seed_sd"), [(1, 0.0), (3, 0.3)])
def test_equal_arms_are_told_apart_no_more_often_than_promised(seeds: int, seed_sd: float) -> None:
    luck, trials = np.random.default_rng(seeds), 300
    pairs = [simulate(luck, seeds, len(LABELS), 0, seed_sd) for _ in range(trials)]
    found = [balanced.compare(*pair, LABELS) for pair in pairs]
    noise = 3 * (0.05 * 0.95 / trials) ** 0.5
    assert np.mean([d.p < 0.05 for d in found]) <= 0.05 + noise
    assert np.mean([d.low <= 0 <= d.high for d in found]) >= 0.95 - noise
    truth = simulate(luck, 2, 100_000, 0, 0.0)[0].mean()
    if seeds == 1:
        held = [balanced.interval(a, LABELS) for a, _ in pairs]
        assert np.mean([f.low <= truth <= f.high for f in held]) >= 0.95 - noise


def test_a_gain_in_the_rare_class_is_found() -> None:
    luck = np.random.default_rng(5)
    chance = np.where(LABELS == 2, 0.9, 0.7), np.where(LABELS == 2, 0.2, 0.7)
    a, b = (luck.random((1, len(LABELS))) < p for p in chance)
    found = balanced.compare(a, b, LABELS)
    assert found.p < 0.01 and found.value > 0.15
