"""One network, two implementations, the same weights.

theirs, every tensor moved a little so that a lost one would show -> state dict -> ours
one picture through both in float32                               -> how far the logits are apart
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from vitrail.cost.candidates import DEFAULT_BUILD, Build, Settings, build_on_device
from vitrail.cost.counting import evaluation_mode, example
from vitrail.errors import UserError
from vitrail.specs import parse_call

TOLERANCE = 1e-5
"""Of the largest logit, or of 1 where that is less."""
FEW = 6
"""A list of so many names still fits into a line."""


@dataclass(frozen=True, kw_only=True)
class Counterparts:
    """Where else our models are implemented, and how all texts become modules.

    Attributes:
        build: builds our texts and theirs; its ``"module:function"`` where memory is measured too.
        texts: word of ``--against`` -> our name -> text of the same network there, such as
            ``{"timm": {"coat_lite_tiny": "timm:coat_lite_tiny"}}``.
    """

    build: Build | str = DEFAULT_BUILD
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def find(self, model: str, against: str) -> str:
        """The text that ``against`` means for a model: its counterpart, or ``against`` itself.

        Raises:
            UserError: ``against`` is one of our words, and has no such model.
        """
        if against not in self.texts:
            return against
        known, name = self.texts[against], name_and_options(model)[0]
        if name in known:
            return known[name]
        there = f"there are {', '.join(known)}; " if len(known) <= FEW else ""
        others = [f"--against {word}" for word, names in self.texts.items() if name in names]
        ways = ", ".join(["--against timm:resnet18", *others])
        raise UserError(f"{against} has no counterpart of {model!r}; {there}name another: {ways}")

    def same_network(self, model: str, other: str) -> bool:
        """Whether two texts mean the same network, so that weights go from one to the other."""
        name, changed = name_and_options(model)
        return not changed and any(names.get(name) == other for names in self.texts.values())


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


def name_and_options(model: str) -> tuple[str, dict[str, Any]]:
    """Name and options of one of our models; a text with a colon before its options has none."""
    return (model, {}) if ":" in model.partition("(")[0] else parse_call(model)


def pair(model: str, against: str, settings: Settings, known: Counterparts | None = None) -> Pair:
    """Build both; with the same weights, and compared, where they are the same network.

    Raises:
        UserError: one cannot be built, or counterparts give different logits.
    """
    from vitrail.models.backbone import Backbone  # late: an exported model needs none of these
    from vitrail.models.zoo import load_into

    known = known or Counterparts()
    keep_freed_memory()
    torch.manual_seed(0)
    theirs = build_on_device(against, settings, known.build)
    ours = build_on_device(model, settings, known.build)
    if not known.same_network(model, against):
        return Pair(ours=ours, theirs=theirs, agreement=None)
    perturb_weights(theirs)
    assert isinstance(ours, Backbone)  # only ours have counterparts
    load_into(ours, theirs.state_dict())
    found = agreement(ours, theirs, settings)
    if not found.close:
        raise UserError(
            f"{model} and {against} differ by {found.apart:.1e} on the same weights (the largest "
            f"logit is {found.largest:.3g}); they are not timed"
        )
    return Pair(ours=ours, theirs=theirs, agreement=found)


def keep_freed_memory() -> None:
    """Bring glibc's malloc to where every process comes that has run a while.

    At first it gives blocks above 128 kB back to the system when they are freed, and whoever makes
    large tensors pays page faults at every call; once a block of up to 32 MB has been freed, it
    keeps such blocks. Without this, figures would depend on what the process did before.
    """
    torch.ones(30 * 2**18)


@torch.no_grad()
def perturb_weights(model: nn.Module, seed: int = 0) -> None:
    """Move every weight and every batch norm's statistics a little, always in the same way."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator).to(tensor)
        if name.endswith("running_var"):
            tensor.mul_(1 + 0.2 * noise.tanh())
        else:
            tensor.add_(0.02 * noise)


def agreement(ours: nn.Module, theirs: nn.Module, settings: Settings) -> Agreement:
    """One picture through both, in float32 proper."""
    picture = example(ours, settings.image, batch=1, in_chans=settings.in_chans)
    with torch.inference_mode(), evaluation_mode(ours), evaluation_mode(theirs), without_tf32():
        a, b = ours(picture).float(), theirs(picture).float()
    return Agreement(apart=float((a - b).abs().max()), largest=float(b.abs().max()))


@contextmanager
def without_tf32() -> Iterator[None]:
    """No TF32: on a GPU convolutions would otherwise keep ten bits of their inputs."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
