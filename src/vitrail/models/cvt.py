"""CvT: Introducing Convolutions to Vision Transformers (Wu et al., ICCV 2021, arXiv 2103.15808).

picture -> 3 x [overlapping convolution, norm, blocks of (projected, mlp)]
        -> norm -> class token of stage 3 -> head

Variants and wiring of the released code (microsoft/CvT). No position table anywhere. Its
quirks are kept, since its weights need them: attention scaled by all channels of a stage, the
activation ``x * sigmoid(1.702 x)``, norms with epsilon 1e-5. The class token joins in stage 3,
and only there blocks drop their paths. Deviation: stage 3 at stride 32 (bilinear) is the fourth
map of ``features``; the network itself ends at 16.

Not the "CVT" of the compact transformers (``cct.py``), which is another model.
"""

from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.layers.feed import Mlp
from vitrail.layers.grid import Grid, cells, grid_of, to_tokens
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
from vitrail.models.pyramid import grid_map, resample
from vitrail.models.reading import CamLayer, last_mixer
from vitrail.specs import Place


@dataclass(frozen=True)
class CvTConfig(Config):
    """One row of the released settings, and what a user may change."""

    dims: tuple[int, ...]
    heads: tuple[int, ...]
    depths: tuple[int, ...]
    _: KW_ONLY
    mlp_ratio: int = 4
    mixer: tuple[str, ...] = ("projected",) * 3
    reducer: tuple[str, ...] = ("all",) * 3


# fmt: off
CONFIGS = {  #           dims              heads        depths
    "cvt_13":  CvTConfig((64, 192, 384),   (1, 3, 6),   (1, 2, 10)),
    "cvt_21":  CvTConfig((64, 192, 384),   (1, 3, 6),   (1, 4, 16)),
    "cvt_w24": CvTConfig((192, 768, 1024), (3, 12, 16), (2, 2, 20)),
}
EMBED = ((7, 4, 2), (3, 2, 1), (3, 2, 1))
"""Kernel, stride and padding of each stage's convolution."""
# fmt: on


class QuickGelu(nn.Module):
    """``x * sigmoid(1.702 x)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Each number by itself."""
        return x * torch.sigmoid(1.702 * x)


class QuickMlp(Mlp):
    """The feed-forward with :class:`QuickGelu`."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(dim, hidden)
        self.act = QuickGelu()


class CvTStage(nn.Module):
    """An overlapping convolution makes tokens; in the last stage a class token joins them."""

    def __init__(
        self,
        width: int,
        choice: Choice,
        embed: tuple[int, int, int],
        hidden: int,
        rates: list[float],
    ) -> None:
        super().__init__()
        dim = choice.place.dim
        self.embed = nn.Conv2d(width, dim, *embed)
        self.norm = nn.LayerNorm(dim)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim)) if choice.place.extra else None
        self.shared = choice.build_shared()
        self.blocks = choice.plain_blocks(hidden, rates, QuickMlp, 1e-5)
        if self.cls is not None:
            nn.init.trunc_normal_(self.cls, std=0.02)

    def forward(self, x: Tensor) -> tuple[Tensor, Grid]:
        """``(B, width, H, W)`` -> tokens ``(B, E + N, dim)`` and their grid."""
        x = self.embed(x)
        grid = grid_of(x)
        x = self.norm(to_tokens(x))
        if self.cls is not None:
            x = torch.cat((self.cls.expand(x.shape[0], -1, -1), x), 1)
        return self.blocks(x, grid, shared=self.shared), grid


class CvT(Backbone):
    """A pyramid whose tokens come from convolutions and meet through convolutions."""

    tail = ("norm",)

    def __init__(self, config: CvTConfig) -> None:
        super().__init__(config)
        self.width, self.channels = config.dims[-1], (*config.dims, config.dims[-1])
        choices = choose(places(config), config.mixer, config.reducer)
        widths = (config.in_chans, *config.dims[:-1])
        hidden = [dim * config.mlp_ratio for dim in config.dims]
        rates = [[0.0] * depth for depth in config.depths[:-1]]
        rates.append(drop_path_rates(config.drop_path, config.depths[-1]))
        rows = zip(widths, choices, EMBED, hidden, rates, strict=True)
        self.stages = nn.ModuleList(CvTStage(*row) for row in rows)
        self.norm = nn.LayerNorm(self.width)
        self.head = classifier(self.width, config.classes)
        self.apply(init_weights)

    def encode(self, x: Tensor, *, maps: bool = True) -> States:
        """Each stage's map, the last again at stride 32; tokens of stage 3, ``(B, 1 + N, C)``."""
        check_image(x, self.in_chans, 16)
        size = grid_of(x)
        scales: list[tuple[Tensor, Grid]] = []
        for stage in self.stages:
            scales.append(stage(grid_map(*scales[-1]) if scales else x))
        levels = [grid_map(tokens, grid) for tokens, grid in scales] if maps else []
        coarser = resample(levels[-1:], size, self.strides[-1:]) if maps else ()
        return States((*levels, *coarser), scales[-1][0])

    def finish(self, last: Tensor) -> Tensor:
        """Normalised tokens."""
        return self.norm(last)

    def pool(self, x: Tensor) -> Tensor:
        """The class token, ``(B, C)``."""
        return x[:, 0]

    def prune_to(self, levels: int) -> None:
        """Drop later stages (the fourth map is the third's)."""
        self.stages = self.stages[:levels]

    def cam_layers(self) -> list[CamLayer]:
        """What the last mixer is given."""
        return last_mixer(self)

    def no_weight_decay(self) -> set[str]:
        """The class token."""
        return {"stages.2.cls"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stage 1's convolution, then each block by stage."""
        return {
            "stem": r"^stages\.0\.(?:embed|norm|shared)",
            "blocks": [
                (r"^stages\.(\d+)\.(?:embed|norm|cls|shared)", (0,)),
                (r"^stages\.(\d+)\.blocks\.(\d+)", None),
                (r"^norm", (99999,)),
            ],
        }


def places(config: CvTConfig) -> list[Place]:
    """Where each stage's mixers and reducers stand: strides 4, 8, 16; a class token in the last."""
    image = image_hw(config.image)
    return [
        Place(
            dim=dim,
            heads=heads,
            grid=cells(image, stride),
            extra=int(i == 2),
            name=f"cvt's stage {i + 1}",
        )
        for i, (dim, heads, stride) in enumerate(
            zip(config.dims, config.heads, Backbone.strides[:3], strict=True)
        )
    ]


RENAMES = (  # official name -> ours
    (r"^stage(\d)\.patch_embed\.proj\.", r"stages.\1.embed."),
    (r"^stage(\d)\.patch_embed\.norm\.", r"stages.\1.norm."),
    (r"^stage(\d)\.cls_token$", r"stages.\1.cls"),
    (r"^stage(\d)\.", r"stages.\1."),
    (r"\.attn\.", ".mixer."),
)
