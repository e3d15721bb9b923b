"""CMT: Convolutional Neural Networks Meet Vision Transformers (Guo et al., CVPR 2022).

picture -> stem, /2 -> 4 x [halve, norm, blocks of (LPU, mixer, IRFFN)] -> 1x1 to 1280, mean -> head

arXiv 2107.06263, table 1. Where the released code (ggjy/CMT.pytorch 07e72b7) departs from the
paper we follow the code, so that its weights load: convolution, GELU, batch norm in that order;
batch norm behind the reduction of keys and values; one attention bias for all blocks of a stage;
1280 channels with SiLU before the mean. Norms before a stage have epsilon 1e-5, others 1e-6.

The released code refuses other sizes than its own; here odd maps are padded at the right and
bottom, and the bias is resized, once when weights load into a model built for another size
(``image=512``) and at every call where a picture differs from what the model was built for.
A reducer must leave its tokens on a grid (``pool``), since the IRFFN convolves.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.layers.conv import ConvActNorm
from vitrail.layers.drop import DropPath
from vitrail.layers.feed import InvertedFeedForward
from vitrail.layers.grid import Grid, cells, grid_of, pad_to, to_map, to_tokens
from vitrail.layers.inverted import init_conv
from vitrail.layers.position import ConvPosition
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
from vitrail.models.reading import CamLayer
from vitrail.specs import Place


@dataclass(frozen=True)
class CMTConfig(Config):
    """One row of the released code's table, and what a user may change."""

    stem: int
    dims: tuple[int, ...]
    depths: tuple[int, ...]
    mlp_ratio: float
    _: KW_ONLY
    heads: tuple[int, ...] = (1, 2, 4, 8)
    last: int = 1280
    dropout: float = 0.0
    mixer: tuple[str, ...] = tuple(f"reduced(ratio={r})" for r in (8, 4, 2, 1))
    reducer: tuple[str, ...] = ("all",) * 4


# fmt: off
CONFIGS = {  #          stem  dims                  depths         mlp
    "cmt_ti": CMTConfig(16,   (46,  92, 184, 368),  (2, 2, 10, 2), 3.60, image=160),
    "cmt_xs": CMTConfig(16,   (52, 104, 208, 416),  (3, 3, 12, 3), 3.77, image=192),
    "cmt_s":  CMTConfig(32,   (64, 128, 256, 512),  (3, 3, 16, 3), 4.00, image=224),
    "cmt_b":  CMTConfig(38,   (76, 152, 304, 608),  (4, 4, 20, 4), 4.00, image=256),
}
# fmt: on


class CMT(Backbone):
    """Depthwise convolutions beside, before and inside of attention and feed-forward."""

    tail = ("last",)
    flat_map = True

    def __init__(self, config: CMTConfig) -> None:
        super().__init__(config)
        stem = config.stem
        self.channels, self.width = config.dims, config.last
        self.stem = nn.Sequential(
            conv3(config.in_chans, stem, stride=2), conv3(stem, stem), conv3(stem, stem)
        )
        choices = choose(places(config), config.mixer, config.reducer)
        rates = drop_path_rates(config.drop_path, sum(config.depths))
        self.stages = nn.ModuleList()
        for in_dim, choice, depth in zip(
            (stem, *config.dims), choices, config.depths, strict=False
        ):
            some, rates = rates[:depth], rates[depth:]
            self.stages.append(CMTStage(in_dim, choice, config.mlp_ratio, some))
        self.last = nn.Sequential(
            nn.Conv2d(config.dims[-1], config.last, 1), nn.BatchNorm2d(config.last), nn.SiLU()
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = classifier(self.width, config.classes)
        self.apply(init_weights)
        self.apply(init_conv)

    def encode(self, x: Tensor, *, maps: bool = True) -> States:
        """The map of every stage, channels-last; the tokens of the last, ``(B, N, C)``."""
        check_image(x, self.in_chans, 1)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return States(tuple(levels), to_tokens(x))

    @property
    def last_channels(self) -> int:
        """Those of the last stage; pooling widens them."""
        return self.channels[-1]

    def final_grid(self, image: Grid) -> Grid:
        """That of stride 32."""
        return cells(image, 32)

    def prune_to(self, levels: int) -> None:
        """Drop later stages."""
        self.stages = self.stages[:levels]

    def pool(self, x: Tensor) -> Tensor:
        """Widen every token, then the mean: ``(B, 1280)``; where they lie does not matter."""
        return self.dropout(self.last(to_map(x, (x.shape[1], 1))).mean((2, 3)))

    def cam_layers(self) -> list[CamLayer]:
        """The map of the last stage."""
        return [CamLayer(f"stages.{len(self.stages) - 1}", "nchw")]

    def no_weight_decay(self) -> set[str]:
        """The bias tables."""
        return {name for name, _ in self.named_parameters() if name.endswith("shared.table")}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, then each stage's entrance and its blocks."""
        return {
            "stem": r"^stem",
            "blocks": [
                (r"^stages\.(\d+)\.(?:halve|norm|shared)", (0,)),
                (r"^stages\.(\d+)\.blocks\.(\d+)", None),
                (r"^last", (99999,)),
            ],
        }


def places(config: CMTConfig) -> list[Place]:
    """Where each stage's mixers and reducers stand: strides 4, 8, 16, 32, odd sides padded."""
    return [
        Place(
            dim=dim,
            heads=heads,
            grid=cells(image_hw(config.image), stride),
            name=f"cmt's stage {i}",
        )
        for i, dim, heads, stride in zip(
            range(1, 5), config.dims, config.heads, Backbone.strides, strict=False
        )
    ]


class CMTStage(nn.Module):
    """Halve the map, then run the blocks on its tokens."""

    def __init__(self, in_dim: int, choice: Choice, ratio: float, rates: Sequence[float]) -> None:
        super().__init__()
        dim = choice.place.dim
        self.halve = nn.Conv2d(in_dim, dim, 2, 2)
        self.norm = nn.LayerNorm(dim)
        self.shared = choice.build_shared()
        choice = choice.require_grid(
            "the feed-forward of a CMT block convolves and needs tokens on a grid",
            "use reducer 'pool', or a backbone with a plain feed-forward such as coat_lite_small",
        )
        self.blocks = choice.without_hold().blocks(partial(CMTBlock, dim, int(dim * ratio)), rates)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_dim, H, W)`` -> ``(B, dim, H / 2, W / 2)``, rounded up."""
        x = self.halve(pad_to(x, 2))
        grid = grid_of(x)
        x = self.blocks(self.norm(to_tokens(x)), grid, shared=self.shared)
        return to_map(x, grid)


class CMTBlock(nn.Module):
    """LPU, attention, inverted residual feed-forward; each with a residual."""

    def __init__(self, dim: int, hidden: int, mixer: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.local = ConvPosition(dim)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.mixer = mixer
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = InvertedFeedForward(dim, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: Grid, shared: nn.Module | None) -> Tensor:
        """``(B, H*W, C)`` -> the same shape."""
        x = self.local(x, grid)
        x = x + self.drop_path(self.mixer(self.norm1(x), grid, shared))
        return x + self.drop_path(self.mlp(self.norm2(x), grid))


def conv3(in_dim: int, dim: int, stride: int = 1) -> ConvActNorm:
    """3x3 convolution, GELU, batch norm."""
    return ConvActNorm(nn.Conv2d(in_dim, dim, 3, stride, 1), nn.GELU(), nn.BatchNorm2d(dim))


STAGE = {"a": "stages.0", "b": "stages.1", "c": "stages.2", "d": "stages.3"}
RENAMES = (  # released name -> ours
    (r"^stem_conv(\d)", lambda m: f"stem.{int(m[1]) - 1}.0"),
    (r"^stem_norm(\d)", lambda m: f"stem.{int(m[1]) - 1}.2"),
    (r"^patch_embed_(.)\.proj\.", lambda m: f"{STAGE[m[1]]}.halve."),
    (r"^patch_embed_(.)\.norm\.", lambda m: f"{STAGE[m[1]]}.norm."),
    (r"^relative_pos_(.)$", lambda m: f"{STAGE[m[1]]}.shared.table"),
    (r"^blocks_(.)\.(\d+)\.proj\.", lambda m: f"{STAGE[m[1]]}.blocks.{m[2]}.local.proj."),
    (r"^blocks_(.)\.", lambda m: f"{STAGE[m[1]]}.blocks."),
    (r"\.attn\.sr\.", ".mixer.shrink."),
    (r"\.attn\.", ".mixer."),
    (r"\.mlp\.conv1\.", ".mlp.widen."),
    (r"\.mlp\.proj\.", ".mlp.local.proj."),
    (r"\.mlp\.proj_bn\.", ".mlp.act.1."),
    (r"\.mlp\.conv2\.", ".mlp.narrow."),
    (r"^_fc\.", "last.0."),
    (r"^_bn\.", "last.1."),
)
