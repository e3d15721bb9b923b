"""CoAtNet: Marrying Convolution and Attention for All Data Sizes (Dai et al., NeurIPS 2021).

image -> stem, /2 -> stages of MBConv ("C") or attention and mlp ("T")
      -> mean, norm, linear, tanh -> head

arXiv 2106.04803, table 3 and appendix A. There is no released code; what decides between readings
are the published sizes: the stride of an MBConv sits in its first 1x1 (4.1 of the published 4.2
GMAC; in the depthwise convolution, as timm and the paper's daggered models have it, 4.5:
``style="dagger"``), and a hidden layer with tanh stands before the classifier (25.0 of 25 M
parameters; 24.4 without). Both paths pool by maximum (A.1), where timm's ``coatnet_0`` ... ``5``
average: told to take the maximum, they are equal to ours. Table 12 gives ``coatnet_6`` 1.35 G
parameters; the 1.47 G of table 5 are those of 3072 channels in S4.

Deviations: a pooled side that is odd is rounded up (the paper asks for sizes that divide). The
first block of an attention stage pools and widens inside, so it always runs on all tokens: a
reducer begins with the second. timm's own models, ``coatnet_*_rw``, are in ``coatnet_rw.py``.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.errors import UserError
from vitrail.layers.blocks import Block, Blocks, Chain
from vitrail.layers.conv import ConvStem
from vitrail.layers.drop import DropPath
from vitrail.layers.feed import Mlp
from vitrail.layers.grid import Grid, cells, grid_of, to_map, to_tokens
from vitrail.layers.mbconv import MBConv, halving_pool, init_convs, shortcut
from vitrail.models.backbone import (
    Backbone,
    Choice,
    Config,
    States,
    check_image,
    choose,
    classifier,
    drop_path_rates,
    image_hw,
    init_weights,
)
from vitrail.models.coatnet_weights import RENAMES, convert
from vitrail.models.reading import CamLayer
from vitrail.specs import Place

__all__ = ["CONFIGS", "RENAMES", "CoAtNet", "CoAtNetConfig", "convert"]


@dataclass(frozen=True)
class CoAtNetConfig(Config):
    """One row of the paper's tables, and what a user may change.

    ``kinds``, ``dims``, ``depths`` and ``strides`` have one entry a stage; ``relation`` is the
    mixer that ``native`` stands for.
    """

    stem: tuple[int, int]
    dims: tuple[int, ...]
    depths: tuple[int, ...]
    style: str = "paper"
    relation: str = "relative"
    _: KW_ONLY
    kinds: str = "CCTT"
    strides: tuple[int, ...] = (2, 2, 2, 2)
    head_dim: int = 32
    mixer: tuple[str, ...] = ("native",) * 4
    reducer: tuple[str, ...] = ("all",) * 4


def split(*args: Any) -> CoAtNetConfig:
    """Variants whose S3 begins with MBConv and goes on with attention, at one resolution."""
    config = CoAtNetConfig(*args, kinds="CCCTT", strides=(2, 2, 2, 1, 2), head_dim=128)
    return replace(config, mixer=("native",) * 5, reducer=("all",) * 5)


S, M, L, XL = (96, 192, 384, 768), (128, 256, 512, 1024), (192, 384, 768, 1536), (2, 12, 28, 2)
LONG = (2, 6, 14, 2)
# fmt: off
CONFIGS = {  #                  stem        dims                          depths
    "coatnet_0": CoAtNetConfig((64, 64),   S,                            (2, 3, 5, 2)),
    "coatnet_1": CoAtNetConfig((64, 64),   S,                            LONG),
    "coatnet_2": CoAtNetConfig((128, 128), M,                            LONG),
    "coatnet_3": CoAtNetConfig((192, 192), L,                            LONG),
    "coatnet_4": CoAtNetConfig((192, 192), L,                            XL),
    "coatnet_5": CoAtNetConfig((192, 192), (256, 512, 1280, 2048),       XL, head_dim=64),
    "coatnet_6": split(        (192, 192), (192, 384, 768, 1536, 2048),  (2, 4, 8, 42, 2)),
    "coatnet_7": split(        (192, 192), (256, 512, 1024, 2048, 3072), (2, 4, 8, 42, 2)),
    # layouts of the ablation, at the widths and depths of coatnet_0
    "coatnet_cccc": CoAtNetConfig((64, 64), S, (2, 3, 5, 2), kinds="CCCC"),
    "coatnet_ccct": CoAtNetConfig((64, 64), S, (2, 3, 5, 2), kinds="CCCT"),
    "coatnet_cttt": CoAtNetConfig((64, 64), S, (2, 3, 5, 2), kinds="CTTT"),
}
# fmt: on
STYLES = {"paper": "widen", "dagger": "depthwise"}
"""Where an MBConv halves."""


class ConvAttentionNet(Backbone):
    """Convolution where the map is large, attention where it is small: the paper's and timm's."""

    flat_map = True

    def __init__(self, config: CoAtNetConfig, stem: nn.Module, stages: Iterable[nn.Module]) -> None:
        super().__init__(config)
        self.width = config.dims[-1]
        self.ends = [i for i, s in enumerate((*config.strides[1:], 2)) if s == 2]
        self.channels = tuple(config.dims[i] for i in self.ends)
        self.stem, self.stages = stem, nn.ModuleList(stages)

    def encode(self, x: Tensor, *, maps: bool = True) -> States:
        """The last map at each stride, channels-last; the last tokens, ``(B, N, C)``."""
        check_image(x, self.in_chans, 1)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        after = []
        for stage in self.stages:
            x = stage(x)
            after.append(x)
        return States(tuple(after[i] for i in self.ends), to_tokens(x))

    def final_grid(self, image: Grid) -> Grid:
        """That of stride 32."""
        return cells(image, 32)

    def prune_to(self, levels: int) -> None:
        """Drop later stages."""
        self.ends = self.ends[:levels]
        self.stages = self.stages[: self.ends[-1] + 1]

    def cam_layers(self) -> list[CamLayer]:
        """The map of the last stage."""
        return [CamLayer(f"stages.{len(self.stages) - 1}", "nchw")]

    def no_weight_decay(self) -> set[str]:
        """Relative biases and the networks that make them."""
        return {name for name, _ in self.named_parameters() if ".offsets." in name}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, then each block by stage."""
        return {
            "stem": r"^stem",
            "blocks": [
                (r"^stages\.(\d+)\.shared", (0,)),
                (r"^stages\.(\d+)\.blocks\.(\d+)", None),
                (r"^norm|^hidden", (99999,)),
            ],
        }


class CoAtNet(ConvAttentionNet):
    """The paper's."""

    tail = ("norm", "hidden")

    def __init__(self, config: CoAtNetConfig) -> None:
        check(config, STYLES)
        conv = partial(MBConv, halve=STYLES[config.style])
        stem = ConvStem(config.in_chans, config.stem, nn.GELU())
        super().__init__(config, stem, build_stages(config, conv, AttentionStyle()))
        self.norm = nn.LayerNorm(self.width, eps=1e-6)
        self.hidden = nn.Linear(self.width, self.width)
        self.head = classifier(self.width, config.classes)
        self.apply(init_weights)
        self.apply(init_convs)

    def pool(self, x: Tensor) -> Tensor:
        """Mean, norm, linear, tanh: ``(B, C)``."""
        return self.hidden(self.norm(x.mean(1))).tanh()


def check(config: CoAtNetConfig, styles: Collection[str]) -> None:
    """Refuse what makes no network.

    Raises:
        UserError: an unknown style, rows that do not match, or a mixer for an MBConv stage.
    """
    rows = {len(config.kinds), len(config.dims), len(config.depths), len(config.strides)}
    if config.style not in styles or set(config.kinds) - set("CT") or len(rows) > 1:
        raise UserError(
            f"style={config.style!r}, kinds={config.kinds!r}: style is one of "
            f"{', '.join(styles)}; kinds has C or T for each of {len(config.dims)} dims, "
            f"{len(config.depths)} depths and {len(config.strides)} strides"
        )
    for specs, native in ((config.mixer, "native"), (config.reducer, "all")):
        for i, (kind, spec) in enumerate(zip(config.kinds, specs, strict=False)):
            if kind == "C" and spec != native and len(set(specs)) > 1:
                raise UserError(
                    f"stage {i + 1} of layout {config.kinds} is MBConv and has no place for "
                    f"{spec!r}; write 'native' there, or one spec for all attention stages"
                )


@dataclass(frozen=True, kw_only=True)
class AttentionStyle:
    """How timm's attention stages differ from the paper's, whose style this is by default.

    Attributes:
        narrow: whether the block that enters a stage attends as wide as its input, not its output.
        pool: on both its paths; see :func:`~vitrail.layers.mbconv.halving_pool`.
        bias: whether its shortcut has one.
        norm: of tokens, ``(dim, eps)``.
    """

    narrow: bool = False
    pool: str = "max"
    bias: bool = True
    norm: Callable[..., nn.Module] = nn.LayerNorm


ConvBlock = Callable[..., nn.Module]
"""``(in_dim, dim, stride, drop_path=rate)``: an MBConv."""


def build_stages(config: CoAtNetConfig, conv: ConvBlock, style: AttentionStyle) -> list[nn.Module]:
    """The stages in order; the drop-path rate rises over all blocks."""
    mixers = [config.relation if m == "native" else m for m in config.mixer]
    choices = choose(places(config), mixers, config.reducer)
    rates = drop_path_rates(config.drop_path, sum(config.depths))
    stages: list[nn.Module] = []
    in_dim = config.stem[1]
    for kind, choice, depth, stride in zip(
        config.kinds, choices, config.depths, config.strides, strict=True
    ):
        own, rates = rates[:depth], rates[depth:]
        if kind == "C":
            stages.append(ConvStage(conv, in_dim, choice.place.dim, stride, own))
        else:
            stages.append(AttentionStage(in_dim, choice, stride, style, own))
        in_dim = choice.place.dim
    return stages


def places(config: CoAtNetConfig) -> list[Place]:
    """Where each stage's mixers and reducers stand."""
    found, grid = [], cells(image_hw(config.image), 2)
    for i, (dim, stride) in enumerate(zip(config.dims, config.strides, strict=True)):
        grid, heads = cells(grid, stride), max(1, dim // config.head_dim)
        found.append(Place(dim=dim, heads=heads, grid=grid, name=f"coatnet's stage {i + 1}"))
    return found


class ConvStage(nn.Module):
    """MBConv blocks, the first of which halves."""

    def __init__(
        self, conv: ConvBlock, in_dim: int, dim: int, stride: int, rates: Sequence[float]
    ) -> None:
        super().__init__()
        self.blocks = Chain(
            conv(dim if i else in_dim, dim, 1 if i else stride, drop_path=rate)
            for i, rate in enumerate(rates)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_dim, H, W)`` -> ``(B, dim, H / stride, W / stride)``."""
        return self.blocks(x)


class AttentionStage(nn.Module):
    """A block that pools and widens, then plain blocks on the tokens."""

    def __init__(
        self,
        in_dim: int,
        choice: Choice,
        stride: int,
        style: AttentionStyle,
        rates: Sequence[float],
    ) -> None:
        super().__init__()
        dim, self.stride = choice.place.dim, stride
        self.shared = choice.build_shared() if len(rates) > 1 else None
        enter = EnterBlock(in_dim, choice, stride, style, rates[0])
        later = replace(choice, first=1).blocks(
            lambda mixer, rate: Block(dim, mixer, Mlp(dim, 4 * dim), rate, norm=style.norm),
            rates[1:],
        )
        self.blocks = Blocks([enter, *later])

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_dim, H, W)`` -> ``(B, dim, H / stride, W / stride)``."""
        x, grid = to_tokens(x), grid_of(x)
        x, grid = self.blocks.run(self.blocks[0], x, grid), cells(grid, self.stride)
        return to_map(self.blocks(x, grid, shared=self.shared, first=1), grid)


class EnterBlock(nn.Module):
    """``x <- Proj(Pool(x)) + Attention(Pool(Norm(x)))``, then the feed-forward.

    Its mixer differs in width from the stage's others, so it shares nothing with them.
    """

    def __init__(
        self, in_dim: int, choice: Choice, stride: int, style: AttentionStyle, drop_path: float
    ) -> None:
        super().__init__()
        dim = choice.place.dim
        place = place_of_width(choice.place, in_dim if style.narrow else dim)
        self.shortcut = shortcut(in_dim, dim, stride, style.pool, style.bias)
        self.norm1 = style.norm(in_dim, eps=1e-6)
        self.pool = halving_pool(style.pool) if stride == 2 else nn.Identity()
        self.mixer = choice.mixer.build_between(place, in_dim, dim)
        self.shared = choice.mixer.build_shared(place)
        self.norm2 = style.norm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """``(B, H*W, in_dim)`` -> ``(B, H*W / stride^2, dim)``."""
        y = self.pool(to_map(self.norm1(x), grid))
        y = self.mixer(to_tokens(y), grid_of(y), self.shared)
        x = to_tokens(self.shortcut(to_map(x, grid))) + self.drop_path(y)
        return x + self.drop_path(self.mlp(self.norm2(x)))


def place_of_width(place: Place, dim: int) -> Place:
    """The place of a mixer of another width, with heads as wide."""
    return replace(place, dim=dim, heads=max(1, dim * place.heads // place.dim))
