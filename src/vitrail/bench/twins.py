"""One network, two implementations, the same weights.

theirs, every tensor drawn so that a lost one would show -> state dict -> ours
one picture through both in float32                      -> how far the logits are apart
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vitrail.bench import official_cmt
from vitrail.cost.arms import Settings, place
from vitrail.cost.counting import evaluating, example
from vitrail.errors import UserError
from vitrail.hub.build import TIMM
from vitrail.hub.build import build as from_hub
from vitrail.hub.counterparts import COUNTERPARTS
from vitrail.models import cmt
from vitrail.models.backbone import Backbone
from vitrail.models.zoo import load_into
from vitrail.specs import parse_call

OFFICIAL = "official:"
OFFICIALS = tuple(cmt.CONFIGS)
"""Names that have an official layout here."""
BUILD = "vitrail.bench:build"
TOLERANCE = 1e-5
"""Of the largest logit, or of 1 where that is less."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far the logits of one picture are apart, and how large the largest is."""

    apart: float
    largest: float

    @property
    def close(self) -> bool:
        """Equal as far as float32 goes (NaN is not)."""
        return self.apart <= TOLERANCE * max(1.0, self.largest)

    def __str__(self) -> str:
        return f"logits agree to {self.apart:.1e} (the largest is {self.largest:.3g})"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two models on the settings' device, in evaluation mode.

    ``agreement`` is None where they are different networks, each with weights of its own.
    """

    ours: nn.Module
    theirs: nn.Module
    agreement: Agreement | None


def build(arm: str, *, classes: int, image: int, in_chans: int = 3) -> nn.Module:
    """As ``vitrail.hub.build``; also ``official:cmt_s``, the authors' own layout.

    Raises:
        UserError: no such model, or one that cannot serve this size.
    """
    if not arm.startswith(OFFICIAL):
        return from_hub(arm, classes=classes, image=image, in_chans=in_chans)
    name = arm.removeprefix(OFFICIAL)
    if name not in OFFICIALS:
        raise UserError(f"no official layout of {name!r}; there are {', '.join(OFFICIALS)}")
    return official_cmt.build(name, classes=classes, image=image, in_chans=in_chans)


def rival(model: str, against: str) -> str:
    """The arm that ``against`` means for a model: ``timm`` and ``official`` are its counterparts.

    Raises:
        UserError: it has none.
    """
    name = called(model)[0]
    if against == "timm":
        if name not in COUNTERPARTS:
            raise UserError(
                f"timm has no counterpart of {model!r}; name another: --against timm:resnet18"
                + (", --against official" if name in OFFICIALS else "")
            )
        return TIMM + COUNTERPARTS[name]
    if against == "official":
        if name not in OFFICIALS:
            raise UserError(f"no official layout of {model!r}; there are {', '.join(OFFICIALS)}")
        return OFFICIAL + name
    return against


def called(model: str) -> tuple[str, dict[str, Any]]:
    """Name and options of one of our models; an arm behind a colon has none."""
    return (model, {}) if ":" in model.partition("(")[0] else parse_call(model)


def counterparts(model: str, against: str) -> bool:
    """Whether two arms are the same network, so that weights go from one to the other."""
    name, changed = called(model)
    theirs = {OFFICIAL + name} if name in OFFICIALS else set()
    theirs |= {TIMM + COUNTERPARTS[name]} if name in COUNTERPARTS else set()
    return against in theirs and not changed


def pair(model: str, against: str, settings: Settings) -> Pair:
    """Build both; with the same weights, and compared, where they are counterparts.

    Raises:
        UserError: one cannot be built, or counterparts give different logits.
    """
    torch.manual_seed(0)
    theirs = place(against, settings, build)
    ours = place(model, settings, build)
    if not counterparts(model, against):
        return Pair(ours=ours, theirs=theirs, agreement=None)
    scatter(theirs)
    assert isinstance(ours, Backbone)  # only ours have counterparts
    load_into(ours, theirs.state_dict())
    found = agreement(ours, theirs, settings)
    if not found.close:
        raise UserError(
            f"{model} and {against} differ by {found.apart:.1e} on the same weights (the largest "
            f"logit is {found.largest:.3g}); they are not timed"
        )
    return Pair(ours=ours, theirs=theirs, agreement=found)


@torch.no_grad()
def scatter(model: nn.Module, seed: int = 0) -> None:
    """Move every weight and every batch norm's statistics a little, always in the same way."""
    chance = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=chance).to(tensor)
        if name.endswith("running_var"):
            tensor.mul_(1 + 0.2 * noise.tanh())
        else:
            tensor.add_(0.02 * noise)


def agreement(ours: nn.Module, theirs: nn.Module, settings: Settings) -> Agreement:
    """One picture through both, in float32 proper."""
    picture = example(ours, settings.image, batch=1, in_chans=settings.in_chans)
    with torch.inference_mode(), evaluating(ours), evaluating(theirs), exact():
        a, b = ours(picture).float(), theirs(picture).float()
    return Agreement(apart=float((a - b).abs().max()), largest=float(b.abs().max()))


@contextmanager
def exact() -> Iterator[None]:
    """No TF32: on a GPU convolutions would otherwise keep ten bits of their inputs."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
