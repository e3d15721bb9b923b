"""ViT: An Image Is Worth 16x16 Words (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929).

picture -> patches -> (class token) + position -> blocks of (softmax, mlp) -> norm -> head

Table 1 of the paper, with Ti from DeiT (Touvron et al. 2021, table 1). As timm, not as the JAX
original: exact GELU, fused q, k, v. ``pool="mean"`` has no class token, averages, then
normalises (timm's ``class_token=False, global_pool="avg"``). Deviations: pictures whose sides the
patch does not divide are padded at the right and bottom; the position table is resized to any
grid (bicubic with anti-aliasing, as timm's, or another of the three ways in use).
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.errors import UserError
from vitrail.layers.block import nothing_local
from vitrail.layers.grid import Grid, cells, grid_of, pad_to, to_map, to_tokens
from vitrail.layers.position import RESIZE, resize_table
from vitrail.models.backbone import (
    Backbone,
    Size,
    check_image,
    choose,
    classifier,
    init_weights,
    rising,
    sides,
)
from vitrail.specs import Place


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """One row of the family's table, and what a user may change."""

    depth: int
    dim: int
    heads: int
    patch: int = 16
    mlp_ratio: float = 4.0
    pool: str = "token"
    resize: str = "bicubic"
    classes: int = 1000
    in_chans: int = 3
    image: Size = 224
    mixer: tuple[str, ...] = ("softmax",)
    reducer: tuple[str, ...] = ("all",)
    drop_path: float = 0.0


CONFIGS = {
    "vit_tiny": ViTConfig(depth=12, dim=192, heads=3),
    "vit_small": ViTConfig(depth=12, dim=384, heads=6),
    "vit_base": ViTConfig(depth=12, dim=768, heads=12),
    "vit_large": ViTConfig(depth=24, dim=1024, heads=16),
}


class ViT(Backbone):
    """The plain transformer everything is measured against."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        if config.pool not in ("token", "mean") or config.resize not in RESIZE:
            raise UserError(
                f"pool={config.pool!r}, resize={config.resize!r}: pool is 'token' or 'mean', "
                f"resize one of {', '.join(RESIZE)}"
            )
        dim, extra = config.dim, int(config.pool == "token")
        self.width, self.channels = dim, (dim,) * 4
        self.grid = cells(sides(config.image), config.patch)
        place = Place(dim=dim, heads=config.heads, grid=self.grid, extra=extra, name="vit's blocks")
        self.patch = nn.Conv2d(config.in_chans, dim, config.patch, config.patch)
        self.cls = nn.Parameter(torch.zeros(1, extra, dim)) if extra else None
        self.position = nn.Parameter(torch.zeros(1, place.tokens, dim))
        (choice,) = choose([place], config.mixer, config.reducer)
        self.shared = choice.shared()
        rates = rising(config.drop_path, config.depth)
        hidden = int(dim * config.mlp_ratio)
        self.blocks = nn.ModuleList(choice.block(hidden, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = classifier(dim, config.classes)
        self.apply(init_weights)
        nn.init.trunc_normal_(self.position, std=0.02)
        if self.cls is not None:
            nn.init.normal_(self.cls, std=1e-6)

    def embed(self, x: Tensor) -> tuple[Tensor, Grid]:
        """``(B, in_chans, H, W)`` -> tokens with position ``(B, E + N, C)``, and their grid."""
        check_image(x, self.in_chans, 1)
        x = self.patch(pad_to(x, self.config.patch))
        grid = grid_of(x)
        x = to_tokens(x)
        if self.cls is not None:
            x = torch.cat((self.cls.expand(x.shape[0], -1, -1), x), 1)
        extra = x.shape[1] - grid[0] * grid[1]
        return x + resize_table(self.position, self.grid, grid, extra, self.config.resize), grid

    def forward_features(self, x: Tensor) -> Tensor:
        """``(B, in_chans, H, W)`` -> tokens ``(B, E + N, C)``; normalised with a class token."""
        x, grid = self.embed(x)
        for block in self.blocks:
            x = self.run(block, x, grid, nothing_local, self.shared)
        return x if self.cls is None else self.norm(x)

    def pool(self, x: Tensor) -> Tensor:
        """The class token, or the normalised mean: ``(B, C)``."""
        return self.norm(x.mean(1)) if self.cls is None else x[:, 0]

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Maps after each quarter of the depth, resampled to strides 4, 8, 16, 32.

        A ViT has one scale; ViTDet (Li et al. 2022) makes a pyramid of its last map by learned
        (de)convolutions. Here nothing is learned: bilinear resampling, heads learn the rest.
        """
        height, width = x.shape[2:]
        quarters = [(i + 1) * len(self.blocks) // 4 - 1 for i in range(4)]
        x, grid = self.embed(x)
        maps = []
        for i, block in enumerate(self.blocks):
            x = self.run(block, x, grid, nothing_local, self.shared)
            if i in quarters:
                maps.append(to_map(x[:, x.shape[1] - grid[0] * grid[1] :], grid))
        return tuple(
            F.interpolate(m, cells((height, width), s), mode="bilinear", antialias=True)
            for m, s in zip(maps, self.strides, strict=True)
        )

    def no_weight_decay(self) -> set[str]:
        """Position table and class token."""
        return {"position", "cls"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, then one group a block."""
        return {
            "stem": r"^cls|^position|^patch",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }


RENAMES = (  # timm's name -> ours
    (r"^cls_token$", "cls"),
    (r"^pos_embed$", "position"),
    (r"^patch_embed\.proj\.", "patch."),
    (r"\.attn\.", ".mixer."),
    (r"^fc_norm\.", "norm."),
)
