"""ConViT: Soft Convolutional Inductive Biases (d'Ascoli et al., ICML 2021, arXiv 2103.10697).

picture -> patches + position -> 10 blocks of (gated, mlp) -> class token joins
        -> 2 blocks of (softmax, mlp) -> norm -> class token -> head

Table 1 of the paper; wiring as in the released code and timm: no bias in q, k, v; the position
table has no entry for the class token. The "+" variants are 64 channels a head:
``convit_tiny(dim=256)``, ``convit_small(dim=576)``, ``convit_base(dim=1024)``.

Deviations: position attention is applied along rows and columns (see ``mixers/gated.py``; equal
to rounding, any grid, square or not); the bias of the position scores is left out, since a
softmax does not see it (one number a head and gated block fewer than published).
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.errors import UserError
from vitrail.layers.blocks import Blocks
from vitrail.layers.grid import Grid, cells, grid_of, pad_to, to_tokens
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
from vitrail.models.pyramid import OneScale
from vitrail.models.reading import CamLayer, last_mixer
from vitrail.specs import Place


@dataclass(frozen=True, kw_only=True)
class ConViTConfig(Config):
    """One row of table 1, and what a user may change; ``local`` blocks come before the token."""

    dim: int
    heads: int
    depth: int = 12
    local: int = 10
    patch: int = 16
    mlp_ratio: float = 4.0
    resize: str = "bicubic"
    mixer: tuple[str, ...] = ("gated", "softmax(bias=False)")
    reducer: tuple[str, ...] = ("all",) * 2


CONFIGS = {
    "convit_tiny": ConViTConfig(dim=192, heads=4),
    "convit_small": ConViTConfig(dim=432, heads=9),
    "convit_base": ConViTConfig(dim=768, heads=16),
}


class ConViT(OneScale):
    """Attention that starts as convolution and may learn to leave it."""

    tail = ("norm",)

    def __init__(self, config: ConViTConfig) -> None:
        super().__init__(config)
        check_choices(config, {"resize": tuple(RESIZE)})
        dim, self.prefix_tokens = config.dim, 0
        self.width, self.channels = dim, (dim,) * 4
        self.grid = cells(image_hw(config.image), config.patch)
        self.patch = nn.Conv2d(config.in_chans, dim, config.patch, config.patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.position = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1], dim))
        local, late = choose(places(config, self.grid), config.mixer, config.reducer)
        late = replace(late, first=config.local)
        self.shared_local, self.shared_late = local.build_shared(), late.build_shared()
        hidden, rates = int(dim * config.mlp_ratio), drop_path_rates(config.drop_path, config.depth)
        early = local.plain_blocks(hidden, rates[: config.local])
        self.blocks = Blocks([*early, *late.plain_blocks(hidden, rates[config.local :])])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = classifier(dim, config.classes)
        self.apply(init_weights)
        nn.init.trunc_normal_(self.position, std=0.02)
        nn.init.trunc_normal_(self.cls, std=0.02)

    def encode(self, x: Tensor, *, maps: bool = True) -> States:
        """Maps after each quarter of the depth; the last tokens, ``(B, 1 + N, C)``."""
        if maps:
            after, grid = self.blocks_out(x)
            return States(self.pyramid(after, grid, grid_of(x)), after[-1])
        x, grid = self.embed(x)
        x = self.blocks(x, grid, shared=self.shared_local, last=self.config.local)
        x = self.join(x)
        return States((), self.blocks(x, grid, shared=self.shared_late, first=self.config.local))

    def blocks_out(self, x: Tensor) -> tuple[list[Tensor], Grid]:
        """``(B, in_chans, H, W)`` -> tokens after each block, and their grid.

        ``(B, N, C)`` after local blocks, ``(B, 1 + N, C)`` after the others.
        """
        x, grid = self.embed(x)
        local = self.config.local
        early = self.blocks.states(x, grid, shared=self.shared_local, last=local)
        if len(self.blocks) <= local:  # pruned
            return early, grid
        x = self.join(early[-1] if early else x)
        return early + self.blocks.states(x, grid, shared=self.shared_late, first=local), grid

    def finish(self, last: Tensor) -> Tensor:
        """Normalised tokens."""
        return self.norm(last)

    def embed(self, x: Tensor) -> tuple[Tensor, Grid]:
        """``(B, in_chans, H, W)`` -> tokens with position ``(B, N, C)``, and their grid."""
        check_image(x, self.in_chans, 1)
        x = self.patch(pad_to(x, self.config.patch))
        table = resize_table(self.position, self.grid, grid_of(x), 0, self.config.resize)
        return to_tokens(x).contiguous() + table, grid_of(x)

    def join(self, x: Tensor) -> Tensor:
        """The class token in front, ``(B, N, C)`` -> ``(B, 1 + N, C)``."""
        return torch.cat((self.cls.expand(x.shape[0], -1, -1), x), 1)

    def prune_to(self, levels: int) -> None:
        """Drop later blocks, and the class token where they were to meet it."""
        super().prune_to(levels)
        if len(self.blocks) <= self.config.local:
            self.register_parameter("cls", None)
            self.shared_late = None

    def pool(self, x: Tensor) -> Tensor:
        """The class token, ``(B, C)``."""
        return x[:, 0]

    def cam_layers(self) -> list[CamLayer]:
        """What the last mixer is given."""
        return last_mixer(self)

    def no_weight_decay(self) -> set[str]:
        """Position table and class token."""
        return {"position", "cls"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, then one group a block."""
        return {
            "stem": r"^cls|^position|^patch|^shared",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }


def places(config: ConViTConfig, grid: Grid) -> list[Place]:
    """Where mixers stand: before and after the class token joins.

    Raises:
        UserError: the class token would never join.
    """
    if not 0 <= config.local < config.depth:
        raise UserError(
            f"local={config.local} of depth={config.depth}: at least one block must follow, since "
            "the class token joins after the local ones"
        )
    local = Place(dim=config.dim, heads=config.heads, grid=grid, name="convit's local blocks")
    late = Place(
        dim=config.dim, heads=config.heads, grid=grid, extra=1, name="convit's last blocks"
    )
    return [local, late]


TIMM = {  # ours -> timm's, which has weights for it (equal outputs: ``tests/parity``)
    "convit_tiny": "convit_tiny",
    "convit_small": "convit_small",
    "convit_base": "convit_base",
}
RENAMES = (  # official and timm's name -> ours
    (r"^cls_token$", "cls"),
    (r"^pos_embed$", "position"),
    (r"^patch_embed\.proj\.", "patch."),
    (r"\.attn\.pos_proj\.weight$", ".mixer.position"),
    (r"\.attn\.gating_param$", ".mixer.gate"),
    (r"\.attn\.", ".mixer."),
)
UNUSED = r"\.mixer\.pos_proj\.bias$"
"""What is added to all position scores of a head alike: softmax does not see it."""
