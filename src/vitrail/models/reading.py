"""What an explanation reads of a model; each model's own page says it, by methods of these names.

=========================== =====================================================================
``cam_layers()``            which activations a class activation map is made of
``cell_centres(n, pixels)`` where the n cells along a side look at an image, if not evenly
``read_fields(fields, calls)`` how the head reads the fields of a rollout, if not as one mean
``reads``                   paths of the modules whose calls that needs; of a block with a
                            ``propagate`` of its own, paths inside the block
=========================== =====================================================================

A block in which mixers do not stand in a plain residual branch has a method
``propagate(fields, call, steps)``: how a *field*, one number a token, goes through it.

A block that lets only some places work, without a reducer, has ``draws_places``: whether chance
chooses them in training (a reducer has it, too, where chance does). A block that scores its places
has ``explain_selection(x)``: what the choice rests on, maps ``(B, H, W)`` by name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from vitrail.layers.grid import Grid
from vitrail.mixers import Mixer

Layout = Literal["tokens", "nchw", "nhwc"]
DEEP = (8, 16, 32)
"""Strides at which a pyramid that ends in few cells is read."""


@dataclass(frozen=True)
class CamLayer:
    """An activation to read.

    Attributes:
        name: path of the module.
        layout: ``"tokens"`` ``(B, E + N, C)``, ``"nchw"`` or ``"nhwc"``.
        side: the module's ``"output"`` or its first ``"input"``.
        grid: ``(H, W)`` of tokens for images of a size; None where the call itself says it (our
            mixers and blocks are given their grid).
    """

    name: str
    layout: Layout
    side: Literal["output", "input"] = "output"
    grid: Callable[[Grid], Grid] | None = None


@dataclass(frozen=True)
class State:
    """A field on the tokens of one scale.

    Attributes:
        tokens: ``(B, E + H*W, 1)``.
        grid: ``(H, W)``.
    """

    tokens: Tensor
    grid: Grid

    @property
    def extra(self) -> int:
        """Class tokens in front."""
        return self.tokens.shape[1] - self.grid[0] * self.grid[1]


class Fields(Protocol):
    """What a block's ``propagate`` and a model's ``read_fields`` call on a propagation.

    A step is a mixer's call as recorded: its ``grid``, ``plan``, ``output`` and the like.

    Attributes:
        operators: how a step mixes a field.
        share: of the branch in a residual; None: branches are added as they are.
        state: the field as it stands.
        entering: by layer, the fields that enter it.
        left: the state behind each layer, by name.
        scales: several scales, once they run side by side.
    """

    operators: Callable[[Any], Callable[[Tensor], Tensor]]
    share: Callable[[Any], Tensor | float] | None
    state: Any
    entering: dict[str, list[State]]
    left: dict[str, State]
    scales: list[State]

    def enter(self, name: str, grid: Grid, extra: int, like: Tensor) -> State:
        """The state in front of a layer."""

    def leave(self, name: str, state: State) -> None:
        """The state behind a layer."""

    def tap(self, name: str, extra: int | None = None) -> State:
        """The state behind a layer, as it is read elsewhere, later on."""

    def last_of(self, stage: str) -> str:
        """The last layer of a stage."""

    def encode(self, f: Tensor, steps: Sequence[Any]) -> Tensor:
        """Several residual steps on the same tokens."""

    def join(self, f: Tensor, into: Tensor, out: Tensor, share: Tensor | float) -> Tensor:
        """A branch that went in as ``into`` and came out as ``out``."""


def mixers_of(model: nn.Module) -> dict[str, Mixer]:
    """The mixers that blocks call, by path; not those inside another mixer."""
    found: dict[str, Mixer] = {}
    for name, module in model.named_modules():
        if isinstance(module, Mixer) and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    return found


def last_mixer(model: nn.Module) -> list[CamLayer]:
    """What the last mixer is given: behind it, places no longer reach a class token."""
    return [CamLayer(list(mixers_of(model))[-1], "tokens", "input")]


def last_block(model: Any) -> list[CamLayer]:
    """All tokens after the last block; one with a reducer gives working tokens only."""
    last = len(model.blocks) - 1
    name = "blocks" if hasattr(model.blocks[last], "reducer") else f"blocks.{last}"
    return [CamLayer(name, "tokens")]


def pool_centres(places: Tensor, count: int) -> Tensor:
    """Centres behind adaptive average pooling to ``count`` cells; 0 leaves them."""
    if not count:
        return places
    old, i = len(places), torch.arange(count)
    first, last = i * old // count, -(-(i + 1) * old // count) - 1
    return (places[first] + places[last]) / 2


def every_second(places: Tensor, count: int) -> Tensor:
    """Every second centre, as often as it takes to come to ``count``."""
    while len(places) > count:
        places = places[::2]
    return places
