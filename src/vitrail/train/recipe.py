"""Everything that decides how a model is trained, in one object.

The defaults are the small-data recipe of Lee et al. 2021 (SPT/LSA: AdamW 1e-3, cosine with
warm-up, smoothing 0.1, mixup or cutmix on every second batch, stochastic depth 0.1, erasing 0.25)
with the floor of the learning rate and the quiet end of CCT's. From released weights a run is
short, starts from a head that fits (LP-FT) and takes small steps: :data:`FINE_TUNING`.
``docs/how-to/training.md`` gives the reason for each value.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from vitrail.data import Augment
from vitrail.errors import UserError, unknown
from vitrail.schema import build
from vitrail.tasks.distill import Distillation

AUTO = "auto"
PRECISIONS = ("fp32", "bf16", "fp16", AUTO)
CLASS_WEIGHTS = ("none", "balanced", "sqrt", "effective")
SAMPLINGS = ("shuffle", "balanced", "sqrt")
BEST = ("accuracy", "balanced_accuracy", "loss")
TUNE_ALL, TUNE_HEAD, TUNE_LAST = "all", "head", re.compile(r"last:([1-9]\d{0,4})")
_LARGEST_WEIGHT = 10**6

_SMALLEST_RUN = 2000
"""Updates of a run from scratch on few images."""
_FINE_TUNING_RUN = 400
"""Updates of a fine-tuning on few images (ViT: 500 on Pets and Flowers, larger batches)."""

FINE_TUNING: Mapping[str, Any] = {
    "lr": 3e-4, "min_lr": 1e-6, "warmup": 0.1, "layer_decay": 0.9,
    "weight_decay": 0.05, "mixup": 0.0, "cutmix": 0.0, "drop_path": 0.0, "ema": 0.0,
    "augment": {"scale": (0.5, 1.0), "rand_augment": None, "erase": 0.0},
    "head_first": True, "freeze_norms": True,
}  # fmt: skip
"""What suits a start from released weights, where it differs from a start from scratch."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train: printed into every run, read from YAML, equal for every arm of a study."""

    epochs: int = 100
    """Passes over the training images, over which the learning rate falls; 0: head_first alone."""
    seconds: float | None = None
    """Train for this much wall-clock time instead (validation not counted); epochs are ignored."""
    batch: int = 64
    """Images per update, over all processes and accumulation steps together."""
    accumulate: int = 1
    """Micro-batches each process works through per update, where a batch does not fit in memory."""
    optimizer: str = "adamw"
    """Any name of timm.optim: adamw, sgd, lamb, lion, ..."""
    lr: float = 1e-3
    """Peak learning rate for the batch given: used as written, not scaled by anything."""
    min_lr: float = 1e-5
    """Where the cosine ends."""
    warmup: float = 0.05
    """Share of the run in which the learning rate rises linearly from lr / 1000."""
    weight_decay: float = 0.05
    """Not for biases, norms and what the model exempts."""
    layer_decay: float = 1.0
    """Learning rate of each layer over that of the next (fine-tuning: 0.65 to 0.9); 1 is off."""
    smoothing: float = 0.1
    """Label smoothing."""
    class_weights: str | tuple[float, ...] = "none"
    """What a class weighs in the loss: none, balanced, sqrt, effective, or a number for each."""
    sampling: str = "shuffle"
    """How often a class comes: shuffle (every image once), balanced (classes alike) or sqrt."""
    mixup: float = 0.8
    """Alpha of mixup; 0 is off."""
    cutmix: float = 1.0
    """Alpha of cutmix; 0 is off."""
    mix_share: float = 0.5
    """Share of micro-batches that are mixed; mixup and cutmix take turns by chance."""
    mix_until: float = 0.9
    """Share of the run after which nothing is mixed, so that it ends on real images."""
    augment: Augment = field(default_factory=Augment)
    """What happens to each image: crop, flip, RandAugment, erasing."""
    drop_path: float = 0.1
    """Stochastic depth of the deepest block; given to the model when it is built."""
    ema: float = 0.999
    """Decay of the averaged weights, which are validated and saved; 0 is off."""
    clip: float = 1.0
    """Largest norm of the whole gradient; 0 is off."""
    precision: str = "fp32"
    """fp32, bf16, fp16 (with loss scaling, GPU only), or auto: bf16 where it is faster here."""
    compile: bool = False
    """Compile the model with torch.compile: slow to start, then faster."""
    weights: str | None = None
    """To start from: none, auto, timm[:NAME], OWNER/NAME, a file or a run; unset is not said."""
    tune: str = TUNE_ALL
    """What is trained: all, head, or last:N (N layers and the head); the rest is frozen."""
    head_first: bool = False
    """Before training, fit the head to the frozen backbone's features (LP-FT)."""
    freeze_norms: bool = False
    """Batch norms keep the statistics they came with; their scale and shift learn."""
    teacher: str | None = None
    """A trained model to learn from beside the labels: a run folder, or timm:NAME."""
    distill: Distillation = field(default_factory=Distillation)
    """The distillation: kind (hard or soft), alpha, tau, feature."""
    best: str = "accuracy"
    """Which epoch is kept as the best: by accuracy, balanced_accuracy or loss, in validation."""
    patience: int = 0
    """Stop after this many validations that were not better than the best; 0 is never."""
    validate_every: int = 1
    """Epochs between validations; the last epoch is always validated."""
    seed: int = 0
    """Of everything random in training."""
    workers: int = field(default=2, metadata={"free": True})
    """Processes that load images; changes no result."""
    cache: bool = field(default=True, metadata={"free": True})
    """Keep the training images decoded in memory where they take at most 1 GB."""
    checkpoint_seconds: float = field(default=120.0, metadata={"free": True})
    """A kill loses at most this much; changes no result."""
    checkpoint_steps: int = field(default=0, metadata={"free": True})
    """Also checkpoint every so many updates; 0 is off."""
    track: bool = field(default=False, metadata={"free": True})
    """Write TensorBoard files too (needs the extra 'track')."""

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def suggest(cls, count: int, *, released: bool = False, **changes: Any) -> "Recipe":
        """The default recipe for ``count`` training images.

        From scratch, few images get smaller batches and more epochs, so that a run has about 2,000
        updates; many images get fewer epochs (20 to 300). From ``released`` weights it is
        :data:`FINE_TUNING` with about 400 updates (3 to 50 epochs). Where only the head is trained
        from there, its fit is all (no epochs). ``changes`` win over everything.
        """
        from vitrail.yaml_text import merge

        values = _fine_tuning(count, changes) if released else _from_scratch(count, changes)
        return cls.from_dict(merge({**values, "precision": AUTO}, changes))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, nested as in YAML."""
        return _to_plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """The inverse of :meth:`to_dict`.

        Raises:
            UserError: an unknown key, a wrong type or a value out of range, named.
        """
        return build(cls, values, "recipe")

    def to_yaml(self, path: str | Path | None = None) -> str:
        """The recipe as YAML, also written to ``path`` if given."""
        import yaml

        from vitrail.files import write_text

        text = yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
        if path is not None:
            write_text(path, text)
        return text

    @classmethod
    def from_yaml(cls, source: str | Path) -> "Recipe":
        """Read a YAML file (a :class:`Path`, or a text without line breaks) or YAML text.

        Raises:
            UserError: no such file, not YAML, an unknown key, a wrong type, a value out of range.
        """
        return cls.from_dict(read_recipe_values(source))

    def describe(self) -> str:
        """A few words on one line."""
        length = f"{self.epochs} epochs" if self.seconds is None else f"{self.seconds:g} s"
        if self.fits_head_only:
            return f"the head alone, fitted to frozen features · seed {self.seed}"
        parts = [
            length,
            f"batch {self.batch}" + (f" in {self.accumulate} parts" if self.accumulate > 1 else ""),
            f"{self.optimizer} lr {self.lr:g} to {self.min_lr:g}",
            f"weight decay {self.weight_decay:g}",
            "" if self.tune == TUNE_ALL else f"tunes {self.tune}",
            "head fitted first" if self.head_first else "",
            "frozen norms" if self.freeze_norms else "",
            self._mixing(),
            self._balancing(),
            self._teaching(),
            f"averaged weights {self.ema:g}" if self.ema else "no averaging",
            self.precision,
            f"seed {self.seed}",
        ]
        return " · ".join(part for part in parts if part)

    def _mixing(self) -> str:
        names = [n for n in ("mixup", "cutmix") if getattr(self, n)]
        return f"{' or '.join(names)} on {self.mix_share:.0%}" if names and self.mix_share else ""

    def _balancing(self) -> str:
        weights, best = self.class_weights, self.best.replace("_", " ")
        named = weights if isinstance(weights, str) else "as given"
        parts = [f"class weights {named}"] * (weights != "none")
        parts += [f"{self.sampling} sampling"] * (self.sampling != "shuffle")
        parts += [f"best by {best}"] * (self.best != "accuracy")
        return " · ".join(parts)

    @property
    def tuned_layers(self) -> int:
        """N of ``tune: last:N``; 0 for the others."""
        found = TUNE_LAST.fullmatch(self.tune)
        return int(found[1]) if found else 0

    @property
    def fits_head_only(self) -> bool:
        """Whether nothing follows the fit of the head."""
        return self.epochs == 0

    @property
    def balances(self) -> bool:
        """Whether anything here is for unbalanced sets."""
        return bool(self._balancing())

    def _teaching(self) -> str:
        how = self.distill
        return f"teacher {self.teacher} ({how.kind}, {how.alpha:g})" if self.teacher else ""

    def differences(self, other: "Recipe") -> list[str]:
        """What differs and changes results, as ``key: here, there``."""
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in _result_fields())
        return [f"{name}: {mine}, {theirs}" for name, mine, theirs in pairs if mine != theirs]


def read_recipe_values(source: str | Path) -> dict[str, Any]:
    """What a YAML file or text says, in full or in part; the values are not checked.

    Raises:
        UserError: no such file, or not YAML.
    """
    from vitrail.yaml_text import parse_yaml, read_yaml

    if not (isinstance(source, str) and ("\n" in source or ":" in source)):
        return dict(read_yaml(source, "recipe"))
    values = parse_yaml(source, "recipe")
    if not isinstance(values, dict | None):
        raise UserError(f"a recipe is lines of 'key: value', not {type(values).__name__}")
    return values or {}


def _from_scratch(count: int, changes: Mapping[str, Any]) -> dict[str, Any]:
    batch = changes.get("batch") or (16 if count < 200 else 32 if count < 1000 else 64)
    return {"batch": batch, "epochs": _epochs(_SMALLEST_RUN, batch, count, least=20, most=300)}


def _fine_tuning(count: int, changes: Mapping[str, Any]) -> dict[str, Any]:
    batch = changes.get("batch") or (16 if count < 500 else 32)
    only_head = changes.get("tune") == TUNE_HEAD and changes.get("seconds") is None
    epochs = _epochs(_FINE_TUNING_RUN, batch, count, least=3, most=50)
    epochs = 0 if only_head and changes.get("head_first", True) else epochs
    return {**FINE_TUNING, "batch": batch, "epochs": epochs}


def _epochs(updates: int, batch: int, count: int, *, least: int, most: int) -> int:
    """Passes that make about so many updates."""
    return min(most, max(least, round(updates * batch / max(count, 1))))


def _result_fields() -> list[Any]:
    return [f for f in fields(Recipe) if not f.metadata.get("free")]


# ---- ranges -------------------------------------------------------------------------------------

#: name: (least, most); least and most are allowed.
_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (0, 10**6),
    "batch": (1, 10**6),
    "accumulate": (1, 10**4),
    "lr": (1e-12, 100),
    "min_lr": (0, 100),
    "warmup": (0, 0.9),
    "weight_decay": (0, 10),
    "layer_decay": (0.01, 1),
    "smoothing": (0, 0.9),
    "mixup": (0, 100),
    "cutmix": (0, 100),
    "mix_share": (0, 1),
    "mix_until": (0, 1),
    "drop_path": (0, 0.95),
    "ema": (0, 0.999999),
    "clip": (0, 1e6),
    "patience": (0, 10**6),
    "validate_every": (1, 10**6),
    "seed": (0, 2**63 - 1),
    "workers": (0, 512),
    "checkpoint_seconds": (0, 10**7),
    "checkpoint_steps": (0, 10**9),
}


def _check(recipe: Recipe) -> None:
    for name, (least, most) in _RANGES.items():
        value = getattr(recipe, name)
        if not least <= value <= most:
            raise UserError(f"recipe: {name} must lie between {least:g} and {most:g}, not {value}")
    if recipe.seconds is not None and not recipe.seconds > 0:
        raise UserError(f"recipe: seconds must be above 0, not {recipe.seconds}")
    if recipe.precision not in PRECISIONS:
        raise unknown("precision", recipe.precision, PRECISIONS)
    if recipe.sampling not in SAMPLINGS:
        raise unknown("sampling", recipe.sampling, SAMPLINGS)
    if recipe.best not in BEST:
        raise unknown("score for 'best'", recipe.best, BEST)
    _check_class_weights(recipe.class_weights)
    if recipe.tune not in (TUNE_ALL, TUNE_HEAD) and not recipe.tuned_layers:
        raise UserError(f"recipe: tune must be all, head or last:N (last:2), not {recipe.tune!r}")
    if recipe.fits_head_only and (not recipe.head_first or recipe.seconds is not None):
        raise UserError(
            "recipe: with 0 epochs only the head is fitted: set head_first, and no seconds; or "
            "give 1 epoch or more"
        )
    if recipe.min_lr > recipe.lr:
        raise UserError(
            f"recipe: min_lr ({recipe.min_lr:g}) lies above lr ({recipe.lr:g}); lower it as well"
        )
    if recipe.batch % recipe.accumulate:
        raise UserError(
            f"recipe: a batch of {recipe.batch} cannot be cut into {recipe.accumulate} equal parts"
        )


def _check_class_weights(weights: str | tuple[float, ...]) -> None:
    if isinstance(weights, str):
        if weights not in CLASS_WEIGHTS:
            raise unknown("class_weights", weights, CLASS_WEIGHTS)
    elif not all(0 <= weight <= _LARGEST_WEIGHT for weight in weights) or not any(weights):
        raise UserError(
            f"recipe: class_weights must be numbers from 0 to {_LARGEST_WEIGHT:,}, one for each "
            f"class and not all 0, not {list(weights)}"
        )


# ---- plain values -----------------------------------------------------------------------


def _to_plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _to_plain(getattr(value, f.name)) for f in fields(value)}
    return list(value) if isinstance(value, tuple) else value
