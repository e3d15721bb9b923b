"""All scores of one method on one model, and how far ahead of another method they are.

Samples, model, MapSource -> MethodScores (by picture) -> means with intervals -> differences
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.attribution.samples import Samples
from vitrail.attribution.scores import places
from vitrail.attribution.scores.curves import BLUR_SIGMA, BLUR_WINDOW, deletion, insertion
from vitrail.attribution.scores.sources import MapSource
from vitrail.attribution.scores.stability import (
    class_contrast,
    max_sensitivity,
    randomisation,
)

#: Every score, and whether more is better (+1) or less (-1).
SCORES: Mapping[str, int] = {
    "insertion": +1,
    "deletion": -1,
    "difference": +1,
    "pointing": +1,
    "energy": +1,
    "rank_accuracy": +1,
    "accuracy": +1,
    "iou": +1,
    "f1": +1,
    "ap": +1,
    "auc": +1,
    "sensitivity": -1,
    "contrast": +1,
    "head_randomised": -1,
    "all_randomised": -1,
    "completeness": -1,
}
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """How scores are taken.

    ``steps`` of insertion and deletion; ``window`` and ``sigma`` of the blur that insertion begins
    with; ``tolerance`` of the pointing game in pixels; ``few``: how many pictures serve the scores
    that take many maps (sensitivity, contrast, randomisation); ``draws`` and ``radius`` of
    sensitivity; ``cascade`` steps of randomisation; ``batch`` pictures at once.
    """

    steps: int = 56
    window: int = BLUR_WINDOW
    sigma: float = BLUR_SIGMA
    tolerance: int = 0
    few: int = 8
    draws: int = 5
    radius: float = 0.2
    cascade: int = 6
    batch: int = 16
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class MethodScores:
    """A method's scores on one model.

    ``scores``: by name, a value a picture (fewer for the scores on few pictures; none where a score
    cannot be had). ``options`` were the method's. ``cascade``: for each step of the randomisation
    its module, the share of random parameters and the maps' mean likeness. ``refused``: pictures
    the method had no map for. ``seconds``: of one map. ``problem``: why there are no scores at all.
    """

    method: str
    kind: str
    scores: Mapping[str, list[float]]
    options: Mapping[str, Any] = field(default_factory=dict)
    cascade: tuple[Mapping[str, Any], ...] = ()
    refused: int = 0
    seconds: float = 0.0
    problem: str = ""

    def mean(self, score: str) -> float | None:
        """The mean over pictures, or None where there is no such score."""
        values = self.scores.get(score) or []
        return sum(values) / len(values) if values else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: means too."""
        means = {name: self.mean(name) for name in SCORES}
        return asdict(self) | {"mean": means}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MethodScores":
        """What :meth:`to_dict` gave."""
        known = ("method", "kind", "scores", "options", "refused", "seconds", "problem")
        return cls(**{k: values[k] for k in known}, cascade=tuple(values["cascade"]))


def score(
    model: nn.Module,
    maker: MapSource,
    samples: Samples,
    settings: ScoreSettings,
    tell: Callable[[str], None] = lambda what: None,
) -> MethodScores:
    """Every score of one method; ``tell`` hears which is being taken.

    Raises:
        UserError: the method cannot serve this model.
    """
    tell("maps")
    started = perf_counter()
    maps = maker(model, samples.images, samples.target)
    seconds = (perf_counter() - started) / len(samples)
    found = faithfulness(model, maps, samples, settings, tell)
    if samples.masks is not None:
        found |= placement(maps, samples.masks, settings)
    few = samples.first(settings.few)
    cascade: tuple[Mapping[str, Any], ...] = ()
    if maker.kind != "baseline":
        found |= stability(model, maker, few, settings, tell)
        found |= completeness(model, maker, few)
        tell("randomisation")
        ends, cascade = randomisation_scores(model, maker, few, settings)
        found |= ends
    scores = {name: finite_values(values) for name, values in found.items()}
    return MethodScores(
        method=maker.name,
        kind=maker.kind,
        scores=scores,
        options=maker.options,
        cascade=cascade,
        refused=maker.refused,
        seconds=seconds,
    )


def failure_scores(maker: MapSource, error: Exception) -> MethodScores:
    """The row of a method that cannot serve a model."""
    return MethodScores(method=maker.name, kind=maker.kind, scores={}, problem=str(error))


def faithfulness(
    model: nn.Module,
    maps: Tensor,
    samples: Samples,
    settings: ScoreSettings,
    tell: Callable[[str], None],
) -> dict[str, Tensor]:
    """Insertion, deletion, and the first less the second."""
    went, came = [], []
    how = {"steps": settings.steps, "seed": settings.seed}
    blur = {"window": settings.window, "sigma": settings.sigma}
    lots = [x.split(settings.batch) for x in (samples.images, maps, samples.target)]
    for images, some, target in zip(*lots, strict=True):
        tell("deletion")
        went.append(deletion(model, images, some, target, **how).area)
        tell("insertion")
        came.append(insertion(model, images, some, target, **how, **blur).area)  # type: ignore[arg-type]
    gone, back = torch.cat(went), torch.cat(came)
    return {"insertion": back, "deletion": gone, "difference": back - gone}


def placement(maps: Tensor, masks: Tensor, settings: ScoreSettings) -> dict[str, Tensor]:
    """Everything that asks whether the map lies on the object."""
    return {
        "pointing": places.pointing(maps, masks, settings.tolerance),
        "energy": places.energy(maps, masks),
        "rank_accuracy": places.rank_accuracy(maps, masks, settings.seed),
        **places.segmentation(maps, masks),
    }


def stability(
    model: nn.Module,
    maker: MapSource,
    few: Samples,
    settings: ScoreSettings,
    tell: Callable[[str], None],
) -> dict[str, Tensor]:
    """Sensitivity to small changes, and contrast between classes."""
    tell("sensitivity")
    moved = max_sensitivity(
        maker,
        model,
        few.images,
        few.target,
        radius=settings.radius,
        draws=settings.draws,
        seed=settings.seed,
    )
    tell("contrast")
    return {"sensitivity": moved, "contrast": class_contrast(maker, model, few.images)}


def completeness(model: nn.Module, maker: MapSource, few: Samples) -> dict[str, Tensor]:
    """What is missing from the sum a method promises, relative to it; nothing if it promises none.

    LRP: input and bias relevance make the logit. Integrated gradients: the map makes the logit less
    that of the baseline. Both give their ``residual``.
    """
    found = maker.explanation(model, few.images[:1], few.target[:1])
    if "residual" not in found.check:
        return {}
    found = maker.explanation(model, few.images, few.target)
    residual = found.check["residual"].double().abs()
    promised = found.check.get("gain", found.score)
    assert promised is not None
    return {"completeness": residual / promised.double().abs().clamp_min(1e-12)}


def randomisation_scores(
    model: nn.Module, maker: MapSource, few: Samples, settings: ScoreSettings
) -> tuple[dict[str, Tensor], tuple[Mapping[str, Any], ...]]:
    """The cascade; as scores, the likeness after the head and after everything is random.

    For both it is the Spearman correlation of the maps' absolute values, taken absolutely: near 0
    the map has followed the weights, near 1 it has not looked at them.
    """
    refused = maker.refused
    steps = randomisation(
        maker, model, few.images, few.target, steps=settings.cascade, seed=settings.seed
    )
    maker.refused = refused  # a random model may well have no map: not the method's failure
    cascade = tuple(
        {
            "module": step.module,
            "share": step.share,
            "signed": mean_or_none(step.signed),
            "absolute": mean_or_none(step.absolute),
            "ssim": mean_or_none(step.ssim),
            "problem": step.problem,
        }
        for step in steps
    )
    ends = {"head_randomised": steps[0].absolute.abs(), "all_randomised": steps[-1].absolute.abs()}
    return ends, cascade


def finite_values(values: Tensor) -> list[float]:
    """The finite ones, six figures."""
    return [float(f"{v:.6g}") for v in values.tolist() if math.isfinite(v)]


def mean_or_none(values: Tensor) -> float | None:
    """The mean of the finite values."""
    found = finite_values(values)
    return sum(found) / len(found) if found else None


@dataclass(frozen=True)
class ScoreDifference:
    """The mean of paired differences with its 95 % interval, better is above 0."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or ``not distinguishable``."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "not distinguishable"


def versus(
    row: MethodScores, other: MethodScores, score: str, seed: int = 0
) -> ScoreDifference | None:
    """How far ``row`` is ahead of ``other``, picture by picture; None without that score.

    The interval is the bootstrap's over pictures (percentiles of ``RESAMPLES`` means).
    """
    mine, theirs = row.scores.get(score) or [], other.scores.get(score) or []
    if not mine or len(mine) != len(theirs):
        return None
    ahead = SCORES[score] * (torch.tensor(mine) - torch.tensor(theirs)).double()
    draw = torch.Generator().manual_seed(seed)
    picked = torch.randint(len(ahead), (RESAMPLES, len(ahead)), generator=draw)
    low, high = ahead[picked].mean(1).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return ScoreDifference(float(ahead.mean()), low, high)


def chance(samples: Samples) -> dict[str, float]:
    """What an even map gets where a mask is known: the object's share of the area."""
    if samples.masks is None:
        return {}
    share = float(places.area_share(samples.masks).mean())
    return {"pointing": share, "energy": share, "rank_accuracy": share, "ap": share, "auc": 0.5}


def best(rows: Sequence[MethodScores], score: str) -> MethodScores | None:
    """The row with the best mean of a score."""
    found = [row for row in rows if row.mean(score) is not None]
    return max(found, key=lambda row: SCORES[score] * (row.mean(score) or 0.0), default=None)
