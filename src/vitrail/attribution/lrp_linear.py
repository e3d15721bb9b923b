"""Rules that share the relevance of a linear layer's output among its inputs.

With relevance as activation times gradient, a rule is another gradient for the same value. For
``z = x W`` (bias apart) every rule here is one of

====================  =====================================================================
``zero`` (LRP-0)      ``R_i = sum_j x_i w_ij R_j / z_j``: the gradient as it is
``epsilon``           ``z_j + eps sign z_j`` below: weak sums keep their relevance to themselves
``gamma``             what pulls an output its own way counts ``1 + gamma`` times
``zplus``             only that counts: gamma without end
``alphabeta``         ``alpha`` times the positive parts, less ``beta`` times the negative ones
====================  =====================================================================

Bach et al., PLOS ONE 10(7), 2015 (zero, epsilon, alpha-beta); Montavon et al., "Layer-Wise
Relevance Propagation: An Overview", 2019 (gamma). Inputs of any sign cost two products instead of
four, since positive and negative parts follow from two sums::

    a = |x| |W|      sum of positive parts = (a + z) / 2      of negative parts = (z - a) / 2

A channel's scale drops out of ``zero``, ``gamma``, ``zplus`` and ``alphabeta``: a batch norm behind
a convolution need not be folded into it.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vitrail.specs import Spec, SpecError

LinearMap = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""A linear map: input, weight and bias to output."""


@dataclass(frozen=True, kw_only=True)
class LinearRule(Spec):
    """A rule, as data; register one by subclassing with a ``name``."""

    kind: ClassVar[str] = "relevance rule"
    known: ClassVar[dict[str, type[Spec]]] = {}

    @abstractmethod
    def apply(self, layer: LinearMap, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``layer(x, weight, bias)`` whose gradient to ``x`` is the rule's."""

    @property
    def conserves(self) -> bool:
        """Whether no relevance is lost at a layer."""
        return True


@dataclass(frozen=True, kw_only=True)
class Zero(LinearRule, name="zero"):
    """In proportion to what each input contributes (LRP-0): the plain gradient."""

    def apply(self, layer: LinearMap, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Nothing to change."""
        return layer(x, weight, bias)


@dataclass(frozen=True, kw_only=True)
class Epsilon(LinearRule, name="epsilon"):
    """As ``zero``, but sums near nothing give little on; ``eps`` is in units of the output."""

    eps: float = 1e-6

    def apply(self, layer: LinearMap, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The bias is part of the sum."""
        y = layer(x, weight, bias)
        z = y.detach().abs()
        kept = z / (z + self.eps)
        y.register_hook(lambda grad: grad * kept)
        return y

    @property
    def conserves(self) -> bool:
        """What epsilon takes is gone."""
        return False


class SplitGradient(torch.autograd.Function):
    """``z + bias``, with slopes of one's choice to ``z`` and to ``a = |x| |W|``."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, a: Tensor, to_z: Tensor, to_a: Tensor, bias: Tensor | None
    ) -> Tensor:
        """The value does not know of ``a``."""
        ctx.save_for_backward(to_z, to_a)
        return z.clone() if bias is None else z + bias

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The rule."""
        to_z, to_a = ctx.saved_tensors
        return grad * to_z, grad * to_a, None, None, None


@dataclass(frozen=True, kw_only=True)
class SignedRule(LinearRule):
    """Rules that treat positive and negative contributions apart."""

    def apply(self, layer: LinearMap, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Two products; the bias keeps its own part."""
        z, a = layer(x, weight, None), layer(x.abs(), weight.abs(), None)
        slopes = self.slopes(z.detach(), a.detach())
        if bias is not None:
            bias = bias.view(-1, *[1] * (weight.dim() - 2))
        shared: Tensor = SplitGradient.apply(z, a, *slopes, bias)
        return shared

    @abstractmethod
    def slopes(self, z: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes ``s, t`` with ``s z + t a = z``."""


def scale_to_output(z: Tensor, a: Tensor, plain: float, extra: float) -> tuple[Tensor, Tensor]:
    """Slopes of ``plain z + extra sign(z) a``, brought to the size of ``z``."""
    size = z.abs()
    kept = size / (plain * size + extra * a + torch.finfo(z.dtype).tiny)
    return plain * kept, extra * kept * z.sign()


@dataclass(frozen=True, kw_only=True)
class Gamma(SignedRule, name="gamma"):
    """What pulls an output the way it went counts ``1 + gain`` times: less noise than ``zero``."""

    gain: float = 0.25

    def __post_init__(self) -> None:
        if self.gain < 0:
            raise SpecError(f"gamma(gain={self.gain}): gain is zero or more; try gain=0.25")

    def slopes(self, z: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """``z + gain (z + sign(z) a) / 2``."""
        return scale_to_output(z, a, 1 + self.gain / 2, self.gain / 2)


@dataclass(frozen=True, kw_only=True)
class ZPlus(SignedRule, name="zplus"):
    """Only what pulls an output the way it went counts: least noise, blind to what is against."""

    def slopes(self, z: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """``(z + sign(z) a) / 2``."""
        return scale_to_output(z, a, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class AlphaBeta(SignedRule, name="alphabeta"):
    """``alpha`` times the positive contributions less ``alpha - 1`` times the negative ones."""

    alpha: float = 2.0

    def __post_init__(self) -> None:
        if self.alpha < 1:
            raise SpecError(f"alphabeta(alpha={self.alpha}): alpha is one or more; try alpha=2.0")

    def slopes(self, z: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """A side that has no contributions gives nothing on."""
        least = a * torch.finfo(z.dtype).eps
        up, down = (a + z) / 2, (a - z) / 2
        more = self.alpha * torch.where(up > least, z / up, 0) / 2
        less = (1 - self.alpha) * torch.where(down > least, -z / down, 0) / 2
        return more + less, more - less

    @property
    def conserves(self) -> bool:
        """Not where a side is empty."""
        return False
