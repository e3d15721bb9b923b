"""All tokens meet all tokens: the attention of ViT (Dosovitskiy et al. 2021, eq. 2 and app. A)."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from vitrail.layers.attend import attend, attention_weights, join_heads, size_bias, split_heads
from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.mixers.base import Mixer, MixerSpec
from vitrail.specs import Place


@dataclass(frozen=True, kw_only=True)
class Softmax(MixerSpec, name="softmax"):
    """Every token attends to every token; cost grows with their square.

    ``y = proj(softmax(q k^T / sqrt(d)) v)``, one projection each for q, k, v, output. ``bias``:
    whether those of q, k, v have one (ViT, DeiT; not ConViT, CCT).
    """

    bias: bool = True

    def build(self, place: Place) -> "SoftmaxAttention":
        """Serves every place whose heads divide its channels."""
        check_heads(self, place)
        return SoftmaxAttention(place.dim, place.heads, self.bias)

    def build_between(self, place: Place, in_dim: int, out_dim: int) -> "SoftmaxAttention":
        """Its own projections change the width."""
        check_heads(self, place)
        return SoftmaxAttention(place.dim, place.heads, self.bias, in_dim=in_dim, out_dim=out_dim)

    def macs(self, place: Place, working: int | None = None) -> int:
        """Four projections, two products of tokens with tokens."""
        tokens = place.tokens if working is None else working
        return 4 * tokens * place.dim**2 + 2 * tokens**2 * place.dim


class QkvAttention(Mixer):
    """Base of mixers with one projection to queries, keys and values, and one of the output.

    Tokens come ``in_dim`` and leave ``out_dim`` wide, both ``dim`` unless said otherwise.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        bias: bool = True,
        *,
        in_dim: int | None = None,
        out_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(in_dim or dim, 3 * dim, bias=bias)
        self.proj = nn.Linear(dim, out_dim or dim)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of ``(B, N, in_dim)``, each ``(B, heads, N, d)``."""
        q, k, v = (split_heads(t, self.heads) for t in self.qkv(x).chunk(3, 2))
        return q, k, v


class SoftmaxAttention(QkvAttention):
    """Multi-head softmax attention; keys that stand for many tokens count so often."""

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """See :class:`~vitrail.mixers.base.Mixer`."""
        q, k, v = self.project(x)
        return self.proj(join_heads(attend(q, k, v, key_bias(plan, q))))

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Mapping[str, Tensor]:
        """``attention`` ``(B, heads, K, K)``: rows sum to one; ``values``."""
        q, k, v = self.project(x)
        return {"attention": attention_weights(q, k, key_bias(plan, q)), "values": v}


def key_bias(plan: Plan | None, like: Tensor) -> Tensor | None:
    """Log sizes of the working tokens, or nothing where every token stands for itself."""
    return None if plan is None or plan.single else size_bias(plan.sizes, like)


def check_heads(spec: MixerSpec, place: Place) -> None:
    """Heads must share the channels evenly.

    Raises:
        SpecError: they do not.
    """
    if place.dim % place.heads:
        raise spec.refuse(place, "heads do not divide the channels", "change heads or dim")


def check_grid(spec: MixerSpec, place: Place) -> None:
    """Tokens must lie on a grid.

    Raises:
        SpecError: a reducer has taken them off it.
    """
    if place.scattered:
        raise spec.refuse(
            place,
            "its working tokens have left the grid, and have no neighbours",
            "use mixer 'softmax' with this reducer, or reducer 'pool'",
        )
