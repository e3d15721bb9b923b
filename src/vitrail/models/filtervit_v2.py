"""FilterViT corrected: what :mod:`vitrail.models.filtervit` shows to be wrong, set right.

picture -> conv 5x5, inverted residual (stride 2)
        -> 4 x [inverted residual of stride 2, position,
                (pooled block), n x (filter block, inverted residual)] (strides 4, 8, 16, 32)
        -> mean -> mlp

The idea of Sun and Chen (2024, arXiv 2410.22709) in the words of this library: the **reducer** is
``filter`` where maps are large and ``all`` where they are small, the mixer is softmax, the local
step an inverted residual. So every stage takes every other reducer and mixer.

=============================== ==============================================================
as published                    here
=============================== ==============================================================
score sigmoid(gelu(z)), not     linear score, monotone: the best are the best
monotone
the scorer learns through a     a straight-through gate on each update, and Gumbel noise in
gate only; the choice does not  training, so that rejected places are tried (``reducers/select``)
K by a table of sides           a share of the grid, any size and shape
post-norm, chosen places        pre-norm, residual: a chosen place is x + update, all others
overwritten                     stay as they are; one value distribution in one map
1-D position over rows          2-D, the same field over any grid
no padding: 110, 55, 28, 14     padded: 112, 56, 28, 14, 7, which feeds pyramids
64 to 192 channels at 110 px    16 to 48 at 112: there the time goes, not into attention
dropout 0.5 in front of logits  0.1: the published run still under-fits
=============================== ==============================================================

No published weights or figures exist for these models; the sizes have about the parameters of
their namesakes. ``dropoutvit_v2_xs`` is the control: random choice, a lattice in evaluation.
"""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.layers.blocks import Chain, StagePass
from vitrail.layers.grid import Grid, cells, grid_of, to_map, to_tokens
from vitrail.layers.inverted import ConvNormAct, InvertedResidual, init_conv
from vitrail.layers.position import sinusoid
from vitrail.layers.trace import one_node
from vitrail.models.backbone import (
    Backbone,
    Choice,
    Config,
    States,
    check_image,
    choose,
    drop_path_rates,
    image_hw,
    init_weights,
    mlp_head,
)
from vitrail.models.reading import CamLayer, every_second
from vitrail.reducers import Pool
from vitrail.specs import Place


@dataclass(frozen=True)
class FilterViTv2Config(Config):
    """One size, and what a user may change."""

    stem: int
    dims: tuple[int, ...]
    depths: tuple[int, ...]
    hidden: int
    _: KW_ONLY
    ratio: int = 3
    mlp_ratio: int = 2
    head_dim: int = 32
    pooled: tuple[int, ...] = (8, 4, 0, 0)  # side of the pooled block's cells; 0: no such block
    head_dropout: float = 0.1
    mixer: tuple[str, ...] = ("softmax",) * 4
    reducer: tuple[str, ...] = ("filter(keep=0.085)", "filter(keep=0.165)", "all", "all")


# fmt: off
CONFIGS = {  #                            stem dims of the stages   blocks        head
    "filtervit_v2_xxs": FilterViTv2Config(16, (32, 64, 96, 160),    (1, 1, 2, 1), 256),
    "filtervit_v2_xs":  FilterViTv2Config(16, (32, 64, 128, 256),   (1, 2, 2, 1), 384),
    "filtervit_v2_s":   FilterViTv2Config(24, (64, 96, 192, 352),   (1, 2, 3, 1), 512),
}
# fmt: on
RANDOM = ("random(keep=0.085)", "random(keep=0.165)", "all", "all")
CONFIGS["dropoutvit_v2_xs"] = replace(CONFIGS["filtervit_v2_xs"], reducer=RANDOM)


class FilterViTv2(Backbone):
    """Four stages of inverted residuals and blocks in which few places work."""

    def __init__(self, config: FilterViTv2Config) -> None:
        super().__init__(config)
        self.channels, self.width = config.dims, config.dims[-1]
        self.stem = ConvNormAct(config.in_chans, config.stem, 5, 2)
        self.first = InvertedResidual(config.stem, config.stem, 1, 2)
        choices = choose(places(config), config.mixer, config.reducer)
        rates = iter(drop_path_rates(config.drop_path, sum(config.depths)))
        self.stages = nn.ModuleList()
        width = config.stem
        for choice, depth, cell in zip(choices, config.depths, config.pooled, strict=True):
            steps = [next(rates) for _ in range(depth)]
            self.stages.append(FilterStage(width, choice, cell, steps, config))
            width = choice.place.dim
        self.head = mlp_head(self.width, config.hidden, config.classes, config.head_dropout)
        self.apply(init_weights)
        self.apply(init_conv)

    def encode(self, x: Tensor, *, maps: bool = True) -> States:
        """The output of each stage."""
        check_image(x, self.in_chans, 32)
        x = self.first(self.stem(x.contiguous(memory_format=torch.channels_last)))
        after = []
        for stage in self.stages:
            x = stage(x)
            after.append(x)
        return States(tuple(after), x)

    def final_grid(self, image: Grid) -> Grid:
        """That of stride 32."""
        return cells(image, 32)

    def prune_to(self, levels: int) -> None:
        """Drop later stages."""
        self.stages = self.stages[:levels]

    def pool(self, x: Tensor) -> Tensor:
        """The mean over places."""
        return x.mean((2, 3))

    def fresh_head(self, classes: int) -> nn.Module:
        """A two-layer classifier, ``(B, width)`` -> ``(B, classes)``."""
        return mlp_head(self.width, self.config.hidden, classes, self.config.head_dropout)

    def cam_layers(self) -> list[CamLayer]:
        """The maps at strides 8, 16 and 32."""
        return [CamLayer(f"stages.{i}", "nchw") for i in (1, 2, 3)]

    def cell_centres(self, count: int, pixels: int) -> Tensor:
        """Padded convolutions of stride 2 centre their cells at every second place."""
        return every_second(2.0 * torch.arange(-(-pixels // 2)), count)

    def no_weight_decay(self) -> set[str]:
        """Nothing beside biases and norms."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, then each stage's entrance and its blocks."""
        return {
            "stem": r"^stem|^first",
            "blocks": [
                (r"^stages\.(\d+)\.(?:down|pooled|shared|shared_pooled)\.", None),
                (r"^stages\.(\d+)\.(?:blocks|convs)\.(\d+)", None),
            ],
        }


def places(config: FilterViTv2Config) -> list[Place]:
    """Where each stage's mixers and reducers stand."""
    size = image_hw(config.image)
    return [
        Place(
            dim=dim,
            heads=dim // config.head_dim,
            grid=cells(size, stride),
            name=f"filtervit_v2's stage {i + 1}",
        )
        for i, (dim, stride) in enumerate(zip(config.dims, Backbone.strides, strict=True))
    ]


class FilterStage(nn.Module):
    """Halve the map, say where each place is, look at all in brief, then work on few."""

    def __init__(
        self,
        width: int,
        choice: Choice,
        cell: int,
        rates: list[float],
        config: FilterViTv2Config,
    ) -> None:
        super().__init__()
        dim, hidden = choice.place.dim, choice.place.dim * config.mlp_ratio
        self.grid = choice.place.grid
        self.down = InvertedResidual(width, dim, 2, config.ratio)
        brief = replace(choice, reducer=Pool(size=cell)) if cell else None
        self.shared_pooled = brief.build_shared() if brief else None
        self.pooled = brief.plain_blocks(hidden, rates[:1])[0] if brief else None
        self.shared = choice.build_shared()
        self.blocks = choice.without_hold().plain_blocks(hidden, rates)
        self.convs = Chain(InvertedResidual(dim, dim, 1, config.ratio, rate) for rate in rates)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, width, H, W)`` -> ``(B, dim, H / 2, W / 2)``."""
        x = self.convs.run(self.down, x)
        grid = grid_of(x)
        x = x + position(grid, self.grid, x.shape[1], x.device).to(x.dtype)
        if self.pooled is not None:
            stage = StagePass(grid, None, self.shared_pooled)
            x = to_map(self.convs.run(stage.run_group, [self.pooled], to_tokens(x)), grid)
        for i, conv in enumerate(self.convs):
            z = self.blocks(to_tokens(x), grid, shared=self.shared, first=i, last=i + 1)
            x = self.convs.run(conv, to_map(z, grid))
        return x


@one_node
def position(grid: Grid, built: Grid, dim: int, device: torch.device) -> Tensor:
    """A fixed 2-D code ``(1, dim, H, W)``: half the channels tell the row, half the column.

    The field is that of the grid the model was built for, read at any other grid's centres.
    """
    axes = [
        sinusoid((torch.arange(n, device=device) + 0.5) * (was / n), dim // 2)
        for n, was in zip(grid, built, strict=True)
    ]
    rows = axes[0][:, None].expand(*grid, -1)
    columns = axes[1][None].expand(*grid, -1)
    return torch.cat((rows, columns), 2).permute(2, 0, 1).unsqueeze(0)


RENAMES = ()
