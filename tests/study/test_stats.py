"""Known answers, and coverage by simulation: a 95 % interval must hold the truth that often."""

import numpy as np
import pytest
from scipy.stats import t

from vitrail.study import stats


def test_crossed_with_alike_pictures_is_students_textbook_interval() -> None:
    # Every picture of a seed answered alike: all luck is the seed's. Means 1, 1, 0, 1, 1:
    # mean 0.8, sd sqrt(0.2), t(0.975, 4) = 2.776445, so 0.8 +- 2.776445 * sqrt(0.2 / 5)
    a = np.array([1, 1, 0, 1, 1], bool)[:, None].repeat(50, 1)
    found = stats.crossed_t_test(a, np.zeros_like(a))
    assert (found.value, found.low) == pytest.approx((0.8, 0.8 - 2.776445 * 0.2), abs=1e-5)


def test_crossed_with_alike_seeds_is_students_interval_over_pictures() -> None:
    # Every seed answers alike: all luck is the pictures'. 4 of 10, sd sqrt(0.4 * 0.6 * 10 / 9)
    a = np.array([1] * 4 + [0] * 6, bool)[None, :].repeat(3, 0)
    found = stats.crossed_t_test(a, np.zeros_like(a))
    half = 2.262157 * (0.4 * 0.6 * 10 / 9 / 10) ** 0.5
    assert (found.value, found.high) == pytest.approx((0.4, 0.4 + half), abs=1e-5)


def test_crossed_without_interaction_adds_the_variances_of_seeds_and_pictures() -> None:
    # The gain of seed i at picture j is s_i + p_j: nothing is left over to be subtracted.
    seed, picture = np.array([0, 1, 1, 1]), np.array([-1, 0, 0, 0, 0])
    gain = seed[:, None] + picture
    found = stats.crossed_t_test(gain > 0, gain < 0)
    of_seed, of_picture = 0.25 / 4, 0.2 / 5
    freedom = (of_seed + of_picture) ** 2 / (of_seed**2 / 3 + of_picture**2 / 4)
    half = t.ppf(0.975, freedom) * (of_seed + of_picture) ** 0.5
    assert (found.value, found.low) == pytest.approx((0.55, 0.55 - half))


def test_wilson_gives_the_textbook_interval() -> None:
    # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3
    for hits, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605),
                                   (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)):  # fmt: skip
        found = stats.wilson(hits, count)
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    with pytest.raises(ValueError, match="3 of 2"):
        stats.wilson(3, 2)


def test_one_seed_is_judged_over_pictures_and_more_over_both() -> None:
    right = np.array([[1, 1, 1, 0]], bool)
    assert "Wilson" in stats.accuracy(right).method
    agreed = stats.accuracy(right.repeat(2, 0))
    assert "2 seeds and 4 test pictures" in agreed.method
    assert agreed.low < agreed.value < agreed.high <= 1
    assert stats.accuracy(np.ones((3, 20), bool)).low < 1


def test_mcnemar_tosses_a_coin_for_each_differing_picture() -> None:
    a, b = np.array([1] * 9 + [0] * 1 + [1] * 5, bool), np.array([0] * 9 + [1] * 6, bool)
    found = stats.mcnemar(a, b)  # 9 against 1 of 10: 2 * (1 + 10) / 2**10
    assert found.p == pytest.approx(22 / 1024)
    assert found.value == pytest.approx(8 / 15)
    assert found.low < found.value < found.high
    assert stats.mcnemar(a, a).p == 1


def test_holm_gives_the_textbook_correction() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.9]) == [1, 1]
    assert stats.holm([]) == []


def test_pareto_keeps_what_nothing_beats() -> None:
    points = [(1.0, 0.5), (2.0, 0.4), (3.0, 0.9), (3.0, 0.8), (4.0, 0.9), (0.5, 0.1)]
    assert stats.pareto(points) == [5, 0, 2]
    assert stats.pareto([(1.0, 0.5), (1.0, 0.5)]) == [0, 1]
    assert stats.pareto([]) == []


def test_arms_must_answer_the_same_pictures() -> None:
    with pytest.raises(ValueError, match="different pictures"):
        stats.compare(np.zeros((1, 3), bool), np.zeros((1, 4), bool))


def test_crossed_with_equal_arms_finds_nothing_and_with_certainty_all() -> None:
    right, wrong = np.ones((3, 20), bool), np.zeros((3, 20), bool)
    assert stats.crossed_t_test(right, right).p == 1
    assert stats.crossed_t_test(right, wrong).p == 0


def test_balanced_accuracy_and_confusion() -> None:
    labels, predictions = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    assert stats.balanced_accuracy(labels, predictions) == pytest.approx((2 / 3 + 1) / 2)
    assert stats.confusion(labels, predictions, 3).tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]


def simulate(
    luck: np.random.Generator, seeds: int, pictures: int, gain: float, seed_sd: float
) -> tuple[np.ndarray, np.ndarray]:
    """Two arms whose logits share each picture's difficulty; seeds shift each arm as a whole."""
    hard = luck.normal(1.2, 1.5, pictures)
    taste = luck.normal(0, 0.5, (2, 1, pictures))
    shift = luck.normal(0, seed_sd, (2, seeds, 1)) + np.array([gain, 0])[:, None, None]
    logits = hard + taste + shift + luck.normal(0, 0.7, (2, seeds, pictures))
    return tuple(luck.random((2, seeds, pictures)) < 1 / (1 + np.exp(-logits)))  # type: ignore[return-value]


@pytest.mark.parametrize(("seeds", "seed_sd"), [(1, 0.0), (2, 0.15), (3, 0.0), (3, 0.3), (5, 0.15)])
def test_equal_arms_are_told_apart_no_more_often_than_promised(seeds: int, seed_sd: float) -> None:
    luck = np.random.default_rng(seeds * 100 + int(seed_sd * 100))
    trials = 500
    found = [stats.compare(*simulate(luck, seeds, 300, 0, seed_sd)) for _ in range(trials)]
    rejected = np.mean([d.p < 0.05 for d in found])
    covered = np.mean([d.low <= 0 <= d.high for d in found])
    noise = 3 * (0.05 * 0.95 / trials) ** 0.5
    assert rejected <= 0.05 + noise
    assert covered >= 0.95 - noise


def test_a_real_gain_is_found() -> None:
    luck = np.random.default_rng(1)
    found = [stats.compare(*simulate(luck, 3, 500, 0.8, 0.1)) for _ in range(100)]
    assert np.mean([d.p < 0.05 and d.value > 0 for d in found]) > 0.8


def test_accuracy_holds_the_truth_as_often_as_promised() -> None:
    luck = np.random.default_rng(2)
    wide = simulate(luck, 2, 200_000, 0, 0.0)[0].mean()  # the truth for shift 0
    for seeds in (1, 3):
        found = [stats.accuracy(simulate(luck, seeds, 200, 0, 0.0)[0]) for _ in range(600)]
        assert np.mean([f.low <= wide <= f.high for f in found]) == pytest.approx(0.955, abs=0.03)
