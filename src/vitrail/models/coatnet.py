"""CoAtNet: Marrying Convolution and Attention for All Data Sizes (Dai et al., NeurIPS 2021).

picture -> stem, /2 -> stages of MBConv ("C") or attention and mlp ("T") -> norm and mean -> head

arXiv 2106.04803, table 3 and appendix A. There is no released code; what decides between readings
are the published sizes: the stride of an MBConv sits in its first 1x1 (4.1 of the published 4.2
GMAC; in the depthwise convolution, as timm and the paper's daggered models have it, 4.5:
``style="dagger"``), and a hidden layer with tanh stands before the classifier (25.0 of 25 M
parameters; 24.4 without). Both paths pool by maximum (A.1), where timm's ``coatnet_0`` ... ``5``
average: told to take the maximum, they are equal to ours. Table 12 gives ``coatnet_6`` 1.35 G
parameters; the 1.47 G of table 5 are those of 3072 channels in S4.

``coatnet_*_rw`` are timm's own models (Wightman 2022), for which weights exist: SiLU, narrower
attention in the block that enters a stage, no hidden layer, and whatever :data:`STYLES` says.
Deviations: their layer scale is multiplied into the projection behind it when weights are loaded,
and the network behind the biases of ``rmlp`` trains without dropout.

A pooled side that is odd is rounded up (the paper, and timm, ask for sizes that divide). The
first block of an attention stage pools and widens inside, so it always runs on all tokens: a
reducer begins with the second.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.errors import UserError
from vitrail.layers.blocks import Block, Blocks, Chain
from vitrail.layers.conv import (
    BatchNormTokens,
    ConvStem,
    MBConv,
    MBConvStyle,
    halving_pool,
    init_convs,
    shortcut,
)
from vitrail.layers.drop import DropPath
from vitrail.layers.feed import Mlp
from vitrail.layers.grid import Grid, cells, grid_of, to_map, to_tokens
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

__all__ = ["CONFIGS", "RENAMES", "TIMM", "CoAtNet", "CoAtNetConfig", "convert"]

NORMS: dict[str, type[nn.Module]] = {"layer": nn.LayerNorm, "batch": BatchNormTokens}


@dataclass(frozen=True, kw_only=True)
class Style:
    """How blocks are wired.

    Attributes:
        conv: the MBConv blocks.
        attend_as: whether the block that enters a stage attends as wide as what goes ``"in"``
            or what comes ``"out"``.
        bias: whether its shortcut has one.
        norm: ``"layer"`` or ``"batch"``, in attention blocks and before the head.
        hidden: whether a layer with tanh stands before the classifier, after the mean and norm.
    """

    conv: MBConvStyle = field(default_factory=MBConvStyle)
    attend_as: str = "out"
    bias: bool = True
    norm: str = "layer"
    hidden: bool = True


NANO = MBConvStyle(halve="pool", act="silu", expand_from="in")
PLAIN = MBConvStyle(halve="depthwise", act="silu", act_first=True, expand_from="in", bias=False)
RELU = replace(PLAIN, squeeze_act="relu")
EARLY = replace(RELU, squeeze="early")


def timms(conv: MBConvStyle, bias: bool = True, norm: str = "layer") -> Style:
    """A style of timm's own models."""
    return Style(conv=conv, attend_as="in", bias=bias, norm=norm, hidden=False)


STYLES = {
    "paper":    Style(conv=MBConvStyle(pool="max")),
    "dagger":   Style(conv=MBConvStyle(pool="max", halve="depthwise")),
    "nano":     timms(NANO),
    "pico":     timms(replace(NANO, halve="depthwise")),
    "rw_0":     timms(replace(EARLY, halve="pool"), bias=False),
    "rw_1":     timms(EARLY, bias=False),
    "rw_2":     timms(PLAIN),
    "bn":       timms(EARLY, bias=False, norm="batch"),
    "rmlp_0":   timms(RELU),
    "rmlp_1":   timms(replace(EARLY, halve="pool", pool="max3"), bias=False),
}  # fmt: skip


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
XS, SHORT, LONG = (64, 128, 256, 512), (2, 3, 7, 2), (2, 6, 14, 2)
MLP, MLP384 = "relative(by='mlp')", "relative(by='mlp', hidden=384)"

# fmt: off
CONFIGS = {  #                           stem        dims                          depths
    "coatnet_0":          CoAtNetConfig((64, 64),   S,                            (2, 3, 5, 2)),
    "coatnet_1":          CoAtNetConfig((64, 64),   S,                            LONG),
    "coatnet_2":          CoAtNetConfig((128, 128), M,                            LONG),
    "coatnet_3":          CoAtNetConfig((192, 192), L,                            LONG),
    "coatnet_4":          CoAtNetConfig((192, 192), L,                            XL),
    "coatnet_5":          CoAtNetConfig((192, 192), (256, 512, 1280, 2048),       XL, head_dim=64),
    "coatnet_6":          split(        (192, 192), (192, 384, 768, 1536, 2048),  (2, 4, 8, 42, 2)),
    "coatnet_7":          split(        (192, 192), (256, 512, 1024, 2048, 3072), (2, 4, 8, 42, 2)),
    # layouts of the ablation, at the widths and depths of coatnet_0
    "coatnet_cccc":       CoAtNetConfig((64, 64),   S, (2, 3, 5, 2), kinds="CCCC"),
    "coatnet_ccct":       CoAtNetConfig((64, 64),   S, (2, 3, 5, 2), kinds="CCCT"),
    "coatnet_cttt":       CoAtNetConfig((64, 64),   S, (2, 3, 5, 2), kinds="CTTT"),
    # timm's own
    "coatnet_pico_rw":      CoAtNetConfig((32, 64),  XS, (2, 3, 5, 2), "pico"),
    "coatnet_nano_rw":      CoAtNetConfig((32, 64),  XS, (3, 4, 6, 3), "nano"),
    "coatnet_0_rw":         CoAtNetConfig((32, 64),  S,  SHORT, "rw_0"),
    "coatnet_1_rw":         CoAtNetConfig((32, 64),  S,  LONG,  "rw_1"),
    "coatnet_2_rw":         CoAtNetConfig((64, 128), M,  LONG,  "rw_2"),
    "coatnet_3_rw":         CoAtNetConfig((96, 192), L,  LONG,  "rw_2"),
    "coatnet_bn_0_rw":      CoAtNetConfig((32, 64),  S,  SHORT, "bn"),
    "coatnet_rmlp_nano_rw": CoAtNetConfig((32, 64),  XS, (3, 4, 6, 3), "pico", MLP384),
    "coatnet_rmlp_0_rw":    CoAtNetConfig((32, 64),  S,  SHORT, "rmlp_0", MLP),
    "coatnet_rmlp_1_rw":    CoAtNetConfig((32, 64),  S,  LONG,  "rmlp_1", MLP384),
    "coatnet_rmlp_1_rw2":   CoAtNetConfig((32, 64),  S,  LONG,  "rmlp_0", MLP),
    "coatnet_rmlp_2_rw":    CoAtNetConfig((64, 128), M,  LONG,  "rw_2",   MLP),
    "coatnet_rmlp_3_rw":    CoAtNetConfig((96, 192), L,  LONG,  "rw_2",   MLP),
}
# fmt: on


TIMM = {  # ours -> timm's, which has weights for it (equal outputs: ``tests/parity``)
    "coatnet_nano_rw": "coatnet_nano_rw_224",
    "coatnet_0_rw": "coatnet_0_rw_224",
    "coatnet_1_rw": "coatnet_1_rw_224",
    "coatnet_2_rw": "coatnet_2_rw_224",
    "coatnet_3_rw": "coatnet_3_rw_224",
    "coatnet_bn_0_rw": "coatnet_bn_0_rw_224",
    "coatnet_rmlp_nano_rw": "coatnet_rmlp_nano_rw_224",
    "coatnet_rmlp_1_rw": "coatnet_rmlp_1_rw_224",
    "coatnet_rmlp_1_rw2": "coatnet_rmlp_1_rw2_224",
    "coatnet_rmlp_2_rw": "coatnet_rmlp_2_rw_224",
}


class CoAtNet(Backbone):
    """Convolution where the map is large, attention where it is small."""

    tail = ("norm", "hidden")
    flat_map = True

    def __init__(self, config: CoAtNetConfig) -> None:
        super().__init__(config)
        check(config)
        style = STYLES[config.style]
        self.width = config.dims[-1]
        ends = [i for i, s in enumerate((*config.strides[1:], 2)) if s == 2]
        self.channels = tuple(config.dims[i] for i in ends)
        self.ends = ends
        self.stem = ConvStem(config.in_chans, config.stem, style.conv.act)
        self.stages = nn.ModuleList(stages(config, style))
        self.norm = NORMS[style.norm](self.width, eps=1e-6)
        self.hidden = nn.Linear(self.width, self.width) if style.hidden else None
        self.head = classifier(self.width, config.classes)
        self.apply(init_weights)
        self.apply(init_convs)

    def encode(self, x: Tensor, *, maps: bool = True) -> States:
        """The last map at each stride, channels-last; the last tokens, ``(B, N, C)``."""
        check_image(x, self.in_chans, 1)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        after = []
        for stage in self.stages:
            x = stage(x)
            after.append(x)
        return States(tuple(after[i] for i in self.ends), to_tokens(x))

    def finish(self, last: Tensor) -> Tensor:
        """Normalised if no layer follows."""
        return last if self.hidden is not None else self.norm(last)

    def final_grid(self, image: Grid) -> Grid:
        """That of stride 32."""
        return cells(image, 32)

    def prune_to(self, levels: int) -> None:
        """Drop later stages."""
        self.ends = self.ends[:levels]
        self.stages = self.stages[: self.ends[-1] + 1]

    def pool(self, x: Tensor) -> Tensor:
        """The mean; in the paper's style then norm, linear, tanh: ``(B, C)``."""
        x = x.mean(1)
        return x if self.hidden is None else self.hidden(self.norm(x)).tanh()

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


def check(config: CoAtNetConfig) -> None:
    """Refuse what makes no network.

    Raises:
        UserError: an unknown style, rows that do not match, or a mixer for an MBConv stage.
    """
    rows = {len(config.kinds), len(config.dims), len(config.depths), len(config.strides)}
    if config.style not in STYLES or set(config.kinds) - set("CT") or len(rows) > 1:
        raise UserError(
            f"style={config.style!r}, kinds={config.kinds!r}: style is one of "
            f"{', '.join(STYLES)}; kinds has C or T for each of {len(config.dims)} dims, "
            f"{len(config.depths)} depths and {len(config.strides)} strides"
        )
    for specs, native in ((config.mixer, "native"), (config.reducer, "all")):
        for i, (kind, spec) in enumerate(zip(config.kinds, specs, strict=False)):
            if kind == "C" and spec != native and len(set(specs)) > 1:
                raise UserError(
                    f"stage {i + 1} of layout {config.kinds} is MBConv and has no place for "
                    f"{spec!r}; write 'native' there, or one spec for all attention stages"
                )


def stages(config: CoAtNetConfig, style: Style) -> list[nn.Module]:
    """The stages in order, drop path rising over all blocks."""
    mixers = [config.relation if m == "native" else m for m in config.mixer]
    choices = choose(places(config), mixers, config.reducer)
    rates = drop_path_rates(config.drop_path, sum(config.depths))
    built: list[nn.Module] = []
    for i, given in enumerate((config.stem[1], *config.dims[:-1])):
        some, rates = rates[: config.depths[i]], rates[config.depths[i] :]
        stride = config.strides[i]
        if config.kinds[i] == "C":
            built.append(ConvStage(given, config.dims[i], stride, style.conv, some))
        else:
            built.append(AttentionStage(given, choices[i], stride, style, some))
    return built


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
        self, in_dim: int, dim: int, stride: int, style: MBConvStyle, rates: Sequence[float]
    ) -> None:
        super().__init__()
        self.blocks = Chain(
            MBConv(dim if i else in_dim, dim, 1 if i else stride, style, rate)
            for i, rate in enumerate(rates)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_dim, H, W)`` -> ``(B, dim, H / stride, W / stride)``."""
        return self.blocks(x)


class AttentionStage(nn.Module):
    """A block that pools and widens, then plain blocks on the tokens."""

    def __init__(
        self, in_dim: int, choice: Choice, stride: int, style: Style, rates: Sequence[float]
    ) -> None:
        super().__init__()
        self.stride = stride
        self.shared = choice.build_shared() if len(rates) > 1 else None
        enter = EnterBlock(in_dim, choice, stride, style, rates[0])
        later = replace(choice, first=1).blocks(partial(plain, style, choice.place.dim), rates[1:])
        self.blocks = Blocks([enter, *later])

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_dim, H, W)`` -> ``(B, dim, H / stride, W / stride)``."""
        x, grid = to_tokens(x), grid_of(x)
        x, grid = self.blocks.run(self.blocks[0], x, grid), cells(grid, self.stride)
        return to_map(self.blocks(x, grid, shared=self.shared, first=1), grid)


def plain(style: Style, dim: int, mixer: nn.Module, drop_path: float) -> nn.Module:
    """A block that keeps width and grid."""
    block = Block(dim, mixer, Mlp(dim, 4 * dim), drop_path)
    for name in ("norm1", "norm2"):
        setattr(block, name, NORMS[style.norm](dim, eps=1e-6))
    return block


class EnterBlock(nn.Module):
    """``x <- Proj(Pool(x)) + Attention(Pool(Norm(x)))``, then the feed-forward.

    Its mixer differs in width from the stage's others, so it shares nothing with them.
    """

    def __init__(
        self, given: int, choice: Choice, stride: int, style: Style, drop_path: float
    ) -> None:
        super().__init__()
        dim, norm = choice.place.dim, NORMS[style.norm]
        place = between(choice.place, {"in": given, "out": dim}[style.attend_as])
        pool = style.conv.pool
        self.shortcut = shortcut(given, dim, stride, pool, style.bias)
        self.norm1 = norm(given, eps=1e-6)
        self.pool = halving_pool(pool) if stride == 2 else nn.Identity()
        self.mixer = choice.mixer.build_between(place, given, dim)
        self.shared = choice.mixer.build_shared(place)
        self.norm2 = norm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """``(B, H*W, given)`` -> ``(B, H*W / stride^2, dim)``."""
        seen = self.pool(to_map(self.norm1(x), grid))
        mixed = self.mixer(to_tokens(seen), grid_of(seen), self.shared)
        x = to_tokens(self.shortcut(to_map(x, grid))) + self.drop_path(mixed)
        return x + self.drop_path(self.mlp(self.norm2(x)))


def between(place: Place, dim: int) -> Place:
    """The place of a mixer of another width, with heads as wide."""
    return replace(place, dim=dim, heads=max(1, dim * place.heads // place.dim))
