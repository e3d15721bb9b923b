"""What every backbone promises, and the few lines all of them share.

A model's page writes ``encode`` and ``pool``; all else is derived here. ``forward`` gives logits
(pooled features with ``classes=0``), in both modes; ``features`` gives four maps at strides 4, 8,
16, 32, of ``channels`` each, for detectors and segmenters. Any input size works, square or not,
and any number of input channels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.fx import Proxy

from vitrail.errors import UserError
from vitrail.layers.blocks import Block, BlockList, Blocks, HeldChoice, attach_reducer
from vitrail.layers.feed import Mlp
from vitrail.layers.grid import Grid
from vitrail.layers.trace import above, one_node, whole_layers
from vitrail.mixers import Mixer, MixerSpec
from vitrail.reducers import All, ReducerSpec
from vitrail.specs import Place

Size = int | tuple[int, int]
"""Pixels: a side, or (height, width)."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What a user may change in every model; a paper's own config adds the rows of its table.

    Attributes:
        classes: logits; 0 leaves the head out.
        in_chans: channels of the image.
        image: pixels that tables and places are made for; any other size works too.
        mixer: specs, one a stage.
        reducer: specs, one a stage.
        drop_path: rate at the last block, rising from 0 at the first.
    """

    classes: int = 1000
    in_chans: int = 3
    image: Size = 224
    mixer: tuple[str, ...]
    reducer: tuple[str, ...]
    drop_path: float = 0.0


class States(NamedTuple):
    """What a backbone made of images, un-normalised.

    Attributes:
        maps: ``(B, channels[i], H / strides[i], W / strides[i])``; empty where nobody asked.
        last: what the head reads, before a norm.
    """

    maps: tuple[Tensor, ...]
    last: Tensor


class WithMaps(NamedTuple):
    """Logits ``(B, classes)`` and the maps of :meth:`Backbone.features` they were made from."""

    logits: Tensor
    maps: tuple[Tensor, ...]


class Backbone(nn.Module, ABC):
    """A vision backbone with a classifier on top.

    Attributes:
        classes: logits; 0 leaves the head out.
        in_chans: channels of the input image.
        channels: of each map of :meth:`features`.
        strides: pixels of the image for one step in each map of :meth:`features`.
        width: channels of the pooled features.
        head: the classifier, or the identity.
        tail: names of children that, like the head, :meth:`features` does not use.
        flat_map: whether the tokens the head pools are those of a whole map, row by row.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...] = (4, 8, 16, 32)
    width: int
    head: nn.Module
    tail: tuple[str, ...] = ()
    flat_map = False

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.classes: int = config.classes
        self.in_chans: int = config.in_chans

    @abstractmethod
    def encode(self, x: Tensor, *, maps: bool = True) -> States:
        """``(B, in_chans, H, W)`` -> what the network makes of it; a model's own page.

        ``maps``: whether maps are wanted, which some models resample, or the last state only.
        """

    def finish(self, last: Tensor) -> Tensor:
        """What the head pools, of the last state: mostly a norm."""
        return last

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """``(B, in_chans, H, W)`` -> four maps, ``channels[i]`` deep, at ``strides[i]``."""
        return self.encode(x).maps

    def forward_features(self, x: Tensor) -> Tensor:
        """``(B, in_chans, H, W)`` -> what the head pools: tokens, or for CoaT class tokens."""
        return self.finish(self.encode(x, maps=False).last)

    def features_and_last(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """:meth:`features` and :meth:`forward_features` from one pass."""
        states = self.encode(x)
        return states.maps, self.finish(states.last)

    @property
    def last_channels(self) -> int:
        """Channels of what :meth:`forward_features` gives."""
        return self.width

    @property
    def single_width(self) -> int:
        """Channels of :meth:`single`."""
        return self.width

    def single(self, pooled: Tensor) -> Tensor:
        """Pooled features as timm has them, of one token where the head reads several."""
        return pooled

    def final_grid(self, image: Grid) -> Grid | None:
        """Height and width of the map the head pools; None where it reads tokens."""
        return None

    def prune_to(self, levels: int) -> None:
        """Drop the stages that only maps beyond the first ``levels`` need, where there are any.

        From then on the model gives those maps alone, by :meth:`features`.
        """

    @abstractmethod
    def pool(self, x: Tensor) -> Tensor:
        """What :meth:`forward_features` gave -> ``(B, width)``."""

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool and classify: ``(B, classes)``, or ``(B, width)`` with ``pre_logits``."""
        x = self.pool(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_chans, H, W)`` -> ``(B, classes)``."""
        if isinstance(x, Proxy):
            return self.forward_traced(x)
        last = self.encode(x, maps=False).last
        return self.head(self.pool(self.finish(last)))

    def forward_traced(self, x: Proxy) -> Tensor:
        """:meth:`forward` under ``torch.fx``: a node for each block and each layer beside them."""
        opened = above(self, {*self.chains()})
        with whole_layers(x.tracer, self, opened):
            return self.forward_head(self.forward_features(x))  # type: ignore[arg-type]

    def forward_with_maps(self, x: Tensor) -> WithMaps:
        """Logits and the maps they were made from, in one pass."""
        maps, last = self.features_and_last(x)
        return WithMaps(self.forward_head(last), maps)

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, classes: int) -> None:
        """Replace the head by a fresh one for another number of classes (0: none)."""
        like = next(self.parameters())
        self.classes = classes
        self.head = self.fresh_head(classes).to(like.device, like.dtype).train(self.training)
        self.head.apply(init_weights)

    def fresh_head(self, classes: int) -> nn.Module:
        """A classifier ``(B, width)`` -> ``(B, classes)``; the identity for none."""
        return classifier(self.width, classes)

    @property
    def grad_checkpointing(self) -> bool:
        """Whether blocks are recomputed in the backward pass: less memory, the same values."""
        return any(chain.checkpointing for chain in self.chains())

    @grad_checkpointing.setter
    def grad_checkpointing(self, enable: bool) -> None:
        for chain in self.chains():
            chain.checkpointing = enable

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass, or not."""
        self.grad_checkpointing = enable

    def chains(self) -> Iterator[BlockList]:
        """What runs the blocks; not what runs those inside another block."""
        found: list[str] = []
        for name, module in self.named_modules():
            if isinstance(module, BlockList) and not any(name.startswith(f"{f}.") for f in found):
                found.append(name)
                yield module

    @abstractmethod
    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay leaves alone, beside biases and norms."""

    @abstractmethod
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters belong to which depth, as timm's layer-wise decay reads it."""


def classifier(width: int, classes: int) -> nn.Module:
    """A linear head, or none."""
    return nn.Linear(width, classes) if classes else nn.Identity()


def mlp_head(width: int, hidden: int, classes: int, dropout: float) -> nn.Module:
    """Linear, GELU, dropout, linear; or nothing."""
    if not classes:
        return nn.Identity()
    layers = nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, classes)
    return nn.Sequential(*layers)


def init_weights(module: nn.Module) -> None:
    """Linear weights truncated normal with deviation 0.02, biases zero (timm, CoaT, DeiT).

    ``apply`` reaches a mixer after its parts, so what it sets itself stays.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, Mixer):
        module.init_weights()


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Drop-path rates from 0 at the first block to ``rate`` at the last."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]


Build = Callable[[nn.Module, float], nn.Module]
"""A block from its mixer and its drop-path rate."""


@dataclass(frozen=True)
class Choice:
    """The mixer and reducer of one stage, where they stand, and the first block they stand in."""

    place: Place
    mixer: MixerSpec
    reducer: ReducerSpec
    first: int = 0

    @property
    def working_place(self) -> Place:
        """Where the mixer stands: behind the reducer."""
        return self.reducer.place(self.place)

    def at(self, index: int) -> "Choice":
        """The same for the stage's block of that number, for mixers that alternate."""
        return replace(self, place=replace(self.place, index=index))

    def build_shared(self) -> nn.Module | None:
        """What the mixers of the stage hold in common."""
        return self.mixer.build_shared(self.working_place)

    def plain_blocks(
        self, hidden: int, rates: Sequence[float], mlp: type[Mlp] = Mlp, eps: float = 1e-6
    ) -> Blocks:
        """The plain blocks of a stage, one a drop-path rate."""
        dim = self.place.dim
        return self.blocks(
            lambda mixer, rate: Block(dim, mixer, mlp(dim, hidden), rate, eps), rates
        )

    def blocks(self, build: Build, rates: Sequence[float]) -> Blocks:
        """The blocks of a stage, one a drop-path rate; those with a reducer on working tokens."""
        blocks = Blocks()
        coarse = self.reducer.coarse(self.place) is not None
        for i, rate in enumerate(rates, self.first):
            here = self.at(i)
            block = build(here.mixer.build(here.working_place), rate)
            if not isinstance(self.reducer, All):
                attach_reducer(block, here.build_reducer(), coarse)
            blocks.append(block)
        return blocks

    def build_reducer(self) -> nn.Module:
        """The reducer, or for blocks that hold an earlier one's choice, what hands it on.

        Raises:
            SpecError: the reducer cannot serve the place, or ``hold`` counts no blocks.
        """
        if self.reducer.hold < 1:
            raise self.reducer.refuse(
                self.place, "hold counts the blocks of one choice", "hold=1 chooses in every block"
            )
        if (self.place.index - self.first) % self.reducer.hold:
            return HeldChoice()
        return self.reducer.build(self.place)

    def without_hold(self) -> "Choice":
        """Itself, where every block chooses for itself.

        Raises:
            SpecError: ``hold`` is set.
        """
        if self.reducer.hold != 1:
            raise self.reducer.refuse(
                self.place, "every block of this model chooses for itself", "leave hold out"
            )
        return self

    def require_grid(self, why: str, remedy: str) -> "Choice":
        """Itself, where the working tokens lie on a grid.

        Raises:
            SpecError: the reducer scatters them.
        """
        if self.reducer.coarse(self.place) is None:
            raise self.reducer.refuse(self.place, why, remedy)
        return self


def choose(places: Sequence[Place], mixers: Sequence[str], reducers: Sequence[str]) -> list[Choice]:
    """Parse the specs of all stages.

    Raises:
        SpecError: an unknown name or option.
        UserError: not one spec a stage.
    """
    for kind, specs in (("mixer", mixers), ("reducer", reducers)):
        if len(specs) != len(places):
            raise UserError(
                f"{len(specs)} {kind}s for {len(places)} stages; give one for all, or one each"
            )
    choices = [
        Choice(place, MixerSpec.parse(mixer), ReducerSpec.parse(reducer))
        for place, mixer, reducer in zip(places, mixers, reducers, strict=True)
    ]
    refuse_empty_choices(choices)
    return choices


def refuse_empty_choices(choices: Sequence[Choice]) -> None:
    """Refuse an option that joins more tokens than any stage has; the default serves all grids.

    Raises:
        SpecError: there is one.
    """
    for reducer in {choice.reducer for choice in choices}:
        largest = max(
            (c.place for c in choices if c.reducer == reducer), key=lambda place: place.tokens
        )
        tokens = largest.grid[0] * largest.grid[1]
        if reducer.tokens_per_cluster > tokens and str(reducer) != reducer.name:
            raise reducer.refuse(
                largest,
                f"it joins {reducer.tokens_per_cluster:g} tokens, the grid has {tokens}",
                f"join at most {tokens}, or use larger images",
            )


def image_hw(image: Size) -> Grid:
    """Height and width in pixels."""
    return (image, image) if isinstance(image, int) else (image[0], image[1])


@one_node
def check_image(x: Tensor, in_chans: int, least: int) -> None:
    """Refuse what no convolution could take, in words.

    Raises:
        UserError: wrong channels, or a picture smaller than the coarsest stride.
    """
    if x.dim() != 4 or x.shape[1] != in_chans:
        raise UserError(
            f"the model takes images (B, {in_chans}, H, W), not {tuple(x.shape)}; "
            f"build it with in_chans={x.shape[1] if x.dim() == 4 else '...'} or convert the images"
        )
    if min(x.shape[2:]) < least:
        raise UserError(
            f"images of {x.shape[2]} x {x.shape[3]} pixels are smaller than the model's stride "
            f"of {least}; resize them to at least {least} pixels a side"
        )


def check_choices(config: Any, choices: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse a word that an option does not know.

    Raises:
        UserError: with the words it knows.
    """
    for option, known in choices.items():
        if getattr(config, option) not in known:
            said = " or ".join(repr(word) for word in known)
            raise UserError(f"{option}={getattr(config, option)!r}: {option} is {said}")
