"""What frozen features are worth: a linear head and nearest neighbours upon them.

images -> frozen backbone -> features (N, D), once -> regularised logistic regression -> head
                                                     -> nearest neighbours (needs no fitting)

The head is multinomial logistic regression, fitted by L-BFGS on standardised features. Its
strength of regularisation is chosen by an inner validation part of the images it may see. It is
what Kornblith, Shlens, Le, "Do Better ImageNet Models Transfer Better?" (CVPR 2019, arXiv
1805.08974) compare backbones by, and the first step of LP-FT (Kumar, Raghunathan, Jones, Ma,
Liang, ICLR 2022, arXiv 2202.10054): a head that fits before the backbone moves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]
Labels = NDArray[np.int64]

STRENGTHS = tuple(10.0**power for power in (0, -1, -2, -3, -4, -5))
"""Weights of the squared norm beside the mean cross-entropy, from strong to weak."""
STEPS = 200
NEIGHBOURS = 20
TEMPERATURE = 0.07
"""Of the neighbours' votes: Wu, Xiong, Yu, Lin, CVPR 2018, arXiv 1805.01978."""


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """A linear head upon frozen features: ``logits = features @ weight.T + bias``.

    Attributes:
        weight: ``(classes, D)``, as ``nn.Linear`` has it.
        bias: ``(classes,)``.
        strength: of its regularisation.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    strength: float

    def logits(self, features: Features) -> NDArray[np.float64]:
        """``(N, D)`` -> ``(N, classes)``."""
        return features @ self.weight.T + self.bias

    def predict(self, features: Features) -> Labels:
        """``(N, D)`` -> the best class of each, ``(N,)``."""
        return self.logits(features).argmax(1)


def fit_probe(
    features: Features,
    labels: Labels,
    classes: int,
    *,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> LinearProbe:
    """The head whose strength serves an inner validation part best, fitted on all images.

    Args:
        features: ``(N, D)``.
        labels: ``(N,)``, from 0 to ``classes - 1``.
        classes: rows of the head; a class without an image gets one all the same.
        strengths: to choose from, from strong to weak.
        seed: of the inner part.
    """
    strength = choose_strength(features, labels, classes, strengths=strengths, seed=seed)
    return fit_head(features, labels, classes, strength)


def choose_strength(
    features: Features,
    labels: Labels,
    classes: int,
    *,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> float:
    """The strength with the least cross-entropy on a fifth of each class, held out.

    Each fit starts from the stronger one before it. Where no class has two images, nothing can be
    held out, and the strongest is taken.
    """
    held = inner_part(labels, seed)
    if len(strengths) == 1 or not held.any():
        return strengths[0]
    best, least, start = strengths[0], np.inf, None
    for strength in strengths:
        probe = fit_head(features[~held], labels[~held], classes, strength, start=start)
        loss = cross_entropy(probe.logits(features[held]), labels[held])
        if loss < least:
            best, least = strength, loss
        start = probe
    return best


def inner_part(labels: Labels, seed: int) -> NDArray[np.bool_]:
    """Which images are held out, ``(N,)``: a fifth of each class that has two or more."""
    held = np.zeros(len(labels), bool)
    random = np.random.default_rng(seed)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        held[members[: min(len(members) - 1, max(1, round(len(members) / 5)))]] = True
    return held


def fit_head(
    features: Features,
    labels: Labels,
    classes: int,
    strength: float,
    *,
    start: LinearProbe | None = None,
) -> LinearProbe:
    """The head with the least ``mean cross-entropy + strength / 2 * |weight|^2``.

    The norm is that of the weight upon standardised features, so that one strength means the same
    for every backbone; what is returned takes features as they come.
    """
    from scipy.optimize import minimize

    mean = features.mean(0, dtype=np.float64)
    std = np.maximum(features.std(0, dtype=np.float64), 1e-6)
    scaled = np.append((features - mean) / std, np.ones((len(features), 1)), 1)
    first = np.zeros((classes, scaled.shape[1]))
    if start is not None:
        first[:, :-1], first[:, -1] = start.weight * std, start.bias + start.weight @ mean
    targets = np.eye(classes)[labels]

    def loss_and_gradient(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        matrix = flat.reshape(first.shape)
        log_p = log_softmax(scaled @ matrix.T)
        penalised = strength * np.append(matrix[:, :-1], np.zeros((classes, 1)), 1)
        loss = -(targets * log_p).sum() / len(labels) + (penalised * matrix).sum() / 2
        gradient = (np.exp(log_p) - targets).T @ scaled / len(labels) + penalised
        return float(loss), gradient.ravel()

    options = {"maxiter": STEPS, "maxcor": 10}
    found: Any = minimize(
        loss_and_gradient, first.ravel(), jac=True, method="L-BFGS-B", options=options
    )
    matrix = found.x.reshape(first.shape)
    weight = matrix[:, :-1] / std
    return LinearProbe(weight=weight, bias=matrix[:, -1] - weight @ mean, strength=strength)


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(N, classes)`` -> the same, rows being logarithms of probabilities."""
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def cross_entropy(logits: NDArray[np.float64], labels: Labels) -> float:
    """Mean over the images, in nats."""
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


def nearest_classes(
    features: Features,
    labels: Labels,
    queries: Features,
    classes: int,
    *,
    neighbours: int = NEIGHBOURS,
) -> Labels:
    """The class that the nearest images vote for, by the cosine of their features.

    Args:
        features: ``(N, D)`` of images whose ``labels`` ``(N,)`` are known.
        labels: of them.
        queries: ``(M, D)``.
        classes: how many there are.
        neighbours: that vote, each by ``exp(cosine / 0.07)``.

    Returns:
        ``(M,)``.
    """
    likeness = unit_rows(queries) @ unit_rows(features).T
    count = min(neighbours, len(labels))
    nearest = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
    votes = np.exp((np.take_along_axis(likeness, nearest, 1) - 1) / TEMPERATURE)
    found = np.zeros((len(queries), classes))
    np.add.at(found, (np.arange(len(queries))[:, None], labels[nearest]), votes)
    return found.argmax(1)


def unit_rows(features: Features) -> Features:
    """``(N, D)`` with rows of length 1; a row of zeros stays."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
