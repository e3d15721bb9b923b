"""ViT: An Image Is Worth 16x16 Words (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929).

picture -> patches -> (class token) + position -> blocks of (softmax, mlp) -> norm -> head

Table 1 of the paper, with Ti from DeiT (Touvron et al. 2021, table 1). As timm, not as the JAX
original: exact GELU, fused q, k, v. ``pool="mean"`` has no class token, averages, then
normalises (timm's ``class_token=False, global_pool="avg"``). Deviations: pictures whose sides the
patch does not divide are padded at the right and bottom; the position table is resized to any
grid (bicubic with anti-aliasing, as timm's, or another of the three ways in use).

``sl_vit`` is the ViT of "Vision Transformer for Small-Size Datasets" (Lee, Lee, Song,
arXiv 2112.13492): 64 px, patches tokenised with four shifted copies, locality self-attention.
Both are choices of any ViT: ``vit_tiny(stem='shifted', mixer='lsa')``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.layers.grid import Grid, cells, grid_of, pad_to, to_tokens
from vitrail.layers.patches import ShiftedPatches
from vitrail.layers.position import RESIZE, resize_table
from vitrail.models.backbone import (
    Config,
    States,
    check_choices,
    check_image,
    choose,
    classifier,
    drop_path_rates,
    image_hw,
    init_weights,
)
from vitrail.models.jax import from_jax
from vitrail.models.pyramid import OneScale
from vitrail.models.reading import CamLayer, last_block, last_mixer
from vitrail.specs import Place


@dataclass(frozen=True, kw_only=True)
class ViTConfig(Config):
    """One row of the family's table, and what a user may change."""

    depth: int
    dim: int
    heads: int
    patch: int = 16
    mlp_ratio: float = 4.0
    stem: str = "patch"
    pool: str = "token"
    resize: str = "bicubic"
    eps: float = 1e-6
    mixer: tuple[str, ...] = ("softmax",)
    reducer: tuple[str, ...] = ("all",)


CONFIGS = {
    "vit_tiny": ViTConfig(depth=12, dim=192, heads=3),
    "vit_small": ViTConfig(depth=12, dim=384, heads=6),
    "vit_base": ViTConfig(depth=12, dim=768, heads=12),
    "vit_large": ViTConfig(depth=24, dim=1024, heads=16),
    "sl_vit": ViTConfig(
        depth=9,
        dim=192,
        heads=12,
        patch=8,
        mlp_ratio=2.0,
        stem="shifted",
        mixer=("lsa",),
        eps=1e-5,
        image=64,
        classes=100,
    ),
}


def plain_patches(in_chans: int, dim: int, patch: int) -> nn.Module:
    """Non-overlapping patches, one linear map: ``(B, C, H, W)`` -> ``(B, dim, H / P, W / P)``."""
    return nn.Conv2d(in_chans, dim, patch, patch)


STEMS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "patch": plain_patches,
    "shifted": ShiftedPatches,
}
CHOICES = {"stem": tuple(STEMS), "pool": ("token", "mean"), "resize": tuple(RESIZE)}


class PlainTransformer(OneScale):
    """What ViT and DeiT share: patches, tokens in front, a position table, plain blocks."""

    tail = ("norm",)

    def __init__(self, config: ViTConfig, name: str, prefix_tokens: int) -> None:
        super().__init__(config)
        check_choices(config, CHOICES)
        dim, self.prefix_tokens = config.dim, prefix_tokens
        self.width, self.channels = dim, (dim,) * 4
        self.grid = cells(image_hw(config.image), config.patch)
        place = Place(
            dim=dim,
            heads=config.heads,
            grid=self.grid,
            extra=prefix_tokens,
            name=f"{name}'s blocks",
        )
        self.patch = STEMS[config.stem](config.in_chans, dim, config.patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim)) if prefix_tokens else None
        self.position = nn.Parameter(torch.zeros(1, place.tokens, dim))
        (choice,) = choose([place], config.mixer, config.reducer)
        self.shared = choice.build_shared()
        rates = drop_path_rates(config.drop_path, config.depth)
        self.blocks = choice.plain_blocks(int(dim * config.mlp_ratio), rates, eps=config.eps)
        self.norm = nn.LayerNorm(dim, eps=config.eps)
        self.head = classifier(dim, config.classes)
        self.apply(init_weights)
        nn.init.trunc_normal_(self.position, std=0.02)
        if self.cls is not None:
            nn.init.normal_(self.cls, std=1e-6)

    def prefix(self) -> list[Tensor]:
        """The tokens in front of the grid's, ``(1, 1, C)`` each."""
        return [] if self.cls is None else [self.cls]

    def embed(self, x: Tensor) -> tuple[Tensor, Grid]:
        """``(B, in_chans, H, W)`` -> tokens with position ``(B, E + N, C)``, and their grid."""
        check_image(x, self.in_chans, 1)
        x = self.patch(pad_to(x, self.config.patch))
        grid = grid_of(x)
        x = torch.cat([*(t.expand(x.shape[0], -1, -1) for t in self.prefix()), to_tokens(x)], 1)
        how = self.config.resize
        return x + resize_table(self.position, self.grid, grid, self.prefix_tokens, how), grid

    def encode(self, x: Tensor, *, maps: bool = True) -> States:
        """Maps after each quarter of the depth; the last tokens, ``(B, E + N, C)``."""
        size = grid_of(x)
        x, grid = self.embed(x)
        if not maps:
            return States((), self.blocks(x, grid, shared=self.shared))
        after = self.blocks.states(x, grid, shared=self.shared)
        return States(self.pyramid(after, grid, size), after[-1])

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, then one group a block."""
        return {
            "stem": r"^cls|^dist|^position|^patch",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }


class ViT(PlainTransformer):
    """The plain transformer everything is measured against."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config, "vit", int(config.pool == "token"))

    def finish(self, last: Tensor) -> Tensor:
        """Normalised where there is a class token; else pooling does."""
        return last if self.cls is None else self.norm(last)

    def pool(self, x: Tensor) -> Tensor:
        """The class token, or the normalised mean: ``(B, C)``."""
        return self.norm(x.mean(1)) if self.cls is None else x[:, 0]

    def cam_layers(self) -> list[CamLayer]:
        """What the last mixer is given; without class token, all tokens after the last block."""
        return last_block(self) if self.cls is None else last_mixer(self)

    def no_weight_decay(self) -> set[str]:
        """Position table and class token."""
        return {"position", "cls"}


TIMM = {  # ours -> timm's, which has weights for it (equal outputs: ``tests/parity``)
    "vit_tiny": "vit_tiny_patch16_224",
    "vit_small": "vit_small_patch16_224",
    "vit_base": "vit_base_patch16_224",
    "vit_large": "vit_large_patch16_224",
}
convert = from_jax
"""The original's ``.npz`` files: other shapes as well as other names."""
RENAMES = (  # timm's, torchvision's and, last, SPT and LSA's released name -> ours
    (r"^cls_token$|^class_token$", "cls"),
    (r"^pos_embed$|^(?:encoder\.)?pos_embedding$", "position"),
    (r"^patch_embed\.proj\.|^conv_proj\.", "patch."),
    (r"\.attn\.", ".mixer."),
    (r"^fc_norm\.|^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_", "blocks."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".mixer.qkv."),
    (r"\.self_attention\.out_proj\.", ".mixer.proj."),
    (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
    (r"^heads\.head\.", "head."),
    (r"^to_patch_embedding\.merging\.1\.", "patch.norm."),
    (r"^to_patch_embedding\.merging\.2\.", "patch.proj."),
    (r"^transformer\.layers\.(\d+)\.0\.norm\.", r"blocks.\1.norm1."),
    (r"^transformer\.layers\.(\d+)\.1\.norm\.", r"blocks.\1.norm2."),
    (r"^transformer\.layers\.(\d+)\.0\.fn\.scale$", r"blocks.\1.mixer.scale"),
    (r"^transformer\.layers\.(\d+)\.0\.fn\.to_qkv\.", r"blocks.\1.mixer.qkv."),
    (r"^transformer\.layers\.(\d+)\.0\.fn\.to_out\.0\.", r"blocks.\1.mixer.proj."),
    (r"^transformer\.layers\.(\d+)\.1\.fn\.net\.0\.", r"blocks.\1.mlp.fc1."),
    (r"^transformer\.layers\.(\d+)\.1\.fn\.net\.3\.", r"blocks.\1.mlp.fc2."),
    (r"^mlp_head\.0\.", "norm."),
    (r"^mlp_head\.1\.", "head."),
)
