"""Linear heads and neighbours upon frozen features."""

import numpy as np
import pytest

from vitrail.train.probe import (
    choose_strength,
    cross_entropy,
    fit_head,
    fit_probe,
    inner_part,
    nearest_classes,
)


def blobs(count: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (count, 6) around one centre for each of 3 classes."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(3, 6)) * 2
    labels = np.arange(count) % 3
    features = centres[labels] + random.normal(size=(count, 6)) * spread
    return features.astype(np.float32), labels


@pytest.mark.parametrize("strength", [1.0, 1e-2, 1e-4])
def test_the_head_is_where_the_gradient_is_zero(strength: float) -> None:
    """The mean error of each class is what the regularisation pulls back, on raw features too."""
    x, y = blobs(60, 1.5)
    x = x * np.float32([1, 100, 0.01, 1, 1, 1]) + np.float32(3)
    probe = fit_head(x, y, 3, strength)
    p = np.exp(probe.logits(x))
    p /= p.sum(1, keepdims=True)
    error = p - np.eye(3)[y]
    scaled = (x - x.mean(0)) / x.std(0)
    pull = error.T @ scaled / len(y) + strength * probe.weight * x.std(0)
    assert np.abs(pull).max() < 1e-3 and np.abs(error.mean(0)).max() < 1e-3


def test_scikit_learns_answer() -> None:
    """The same probabilities as scikit-learn's, where it is there."""
    linear = pytest.importorskip("sklearn.linear_model")
    x, y = blobs(90, 2.0)
    scaled = (x - x.mean(0)) / x.std(0)
    theirs = linear.LogisticRegression(C=1 / (0.01 * len(y)), max_iter=1000, tol=1e-8)
    theirs.fit(scaled, y)
    ours = fit_head(x, y, 3, 0.01).logits(x)
    ours = np.exp(ours) / np.exp(ours).sum(1, keepdims=True)
    assert np.abs(ours - theirs.predict_proba(scaled)).max() < 2e-3


def test_strength_follows_the_noise() -> None:
    """Many features of noise want a strong pull, few clean ones a weak one."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(60, 200)).astype(np.float32)
    clean, y = blobs(60, 0.3)
    assert choose_strength(noise, y, 3) == 1.0
    assert choose_strength(clean, y, 3) < 1e-2
    assert choose_strength(noise, y, 3, strengths=(0.5,)) == 0.5


def test_the_inner_part_is_a_fifth_of_each_class_and_never_all() -> None:
    labels = np.array([0] * 10 + [1] * 2 + [2])
    held = inner_part(labels, seed=1)
    assert [int(held[labels == c].sum()) for c in range(3)] == [2, 1, 0]
    assert (held == inner_part(labels, seed=1)).all()
    assert (held != inner_part(labels, seed=2)).any()


def test_both_recognise_what_is_apart_and_guess_at_noise() -> None:
    x, y = blobs(90, 0.8)
    queries, wanted = blobs(300, 0.8, seed=1)
    probe = fit_probe(x, y, 3)
    assert (probe.predict(queries) == wanted).mean() > 0.95
    assert (nearest_classes(x, y, queries, 3) == wanted).mean() > 0.95
    noise = np.random.default_rng(3).normal(size=(300, 6)).astype(np.float32)
    assert (fit_probe(noise[:90], y, 3).predict(noise) == wanted).mean() < 0.5
    assert cross_entropy(probe.logits(queries), wanted) < np.log(3) / 2


def test_a_class_without_pictures_is_never_answered() -> None:
    x, y = blobs(30, 0.5)
    assert (fit_probe(x, y, 5).predict(x) < 3).all()
    assert (nearest_classes(x, y, x, 5, neighbours=100) < 3).all()


def test_one_neighbour_is_the_picture_itself() -> None:
    x, y = blobs(40, 3.0)
    assert (nearest_classes(x, y, x, 3, neighbours=1) == y).all()
    assert (nearest_classes(x, y, 7 * x, 3, neighbours=1) == y).all()
