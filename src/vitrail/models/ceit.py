"""CeiT: Incorporating Convolution Designs into Visual Transformers (Yuan et al., ICCV 2021,
arXiv 2103.11816).

picture -> convolution, norm, max-pool -> patches, class token + position
        -> blocks of (softmax, locally enhanced feed-forward)
        -> the class tokens after every block attend to each other (LCA) -> norm -> head

Variants and wiring of the released code (coeusguo/ceit): no activation in the stem, and
64 channels there; the class token passes the feed-forward untouched, so its residual adds its
norm. Of the last block's feed-forward over the grid nothing reaches a logit; it is kept, as
published, and feeds ``features``. LCA asks with the last token only (the released code computes
all answers and keeps that one). Deviation: sides that 16 does not divide are padded.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.layers.attend import attend, attention_weights, join_heads, project_last, split_heads
from vitrail.layers.conv import ImageToTokens
from vitrail.layers.drop import DropPath
from vitrail.layers.feed import LocalFeedForward, Mlp
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
from vitrail.models.reading import CamLayer, Fields, last_mixer
from vitrail.specs import Place

STRIDE = 16


@dataclass(frozen=True)
class CeiTConfig(Config):
    """One row of the family's table, and what a user may change."""

    dim: int
    heads: int
    depth: int = 12
    _: KW_ONLY
    stem: int = 64
    mlp_ratio: int = 4
    resize: str = "bicubic"
    mixer: tuple[str, ...] = ("softmax",)
    reducer: tuple[str, ...] = ("all",)


CONFIGS = {  #              dim heads
    "ceit_tiny": CeiTConfig(192, 3),
    "ceit_small": CeiTConfig(384, 6),
    "ceit_base": CeiTConfig(768, 12),
}


class CeiTBlock(nn.Module):
    """Attention, then the feed-forward that looks around."""

    def __init__(self, dim: int, hidden: int, mixer: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.mixer = mixer
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.leff = LocalFeedForward(dim, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: Grid, shared: nn.Module | None = None) -> Tensor:
        """``(B, 1 + H*W, C)`` -> the same shape."""
        x = x + self.drop_path(self.mixer(self.norm1(x), grid, shared))
        return x + self.drop_path(self.leff(self.norm2(x), grid))


class LayerAttention(nn.Module):
    """LCA: the last layer's class token asks those of all layers: ``(B, L, C)`` -> ``(B, C)``."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """One query, L keys."""
        last, tokens = x[:, -1:], self.norm1(x)
        q, k, v = (split_heads(t, self.heads) for t in project_last(self.qkv, tokens))
        last = last + self.proj(join_heads(attend(q, k, v)))
        return (last + self.mlp(self.norm2(last))).squeeze(1)

    @torch.no_grad()
    def layer_weights(self, x: Tensor) -> Tensor:
        """``(B, L)``: how the last class token weighs those of all layers."""
        q, k, _ = (split_heads(t, self.heads) for t in self.qkv(self.norm1(x)).chunk(3, 2))
        return attention_weights(q[:, :, -1:], k).mean(1)[:, 0]


class CeiT(OneScale):
    """A ViT that convolves before, inside and, over its layers, attends after."""

    tail = ("norm", "lca", "layers")

    def __init__(self, config: CeiTConfig) -> None:
        super().__init__(config)
        check_choices(config, {"resize": tuple(RESIZE)})
        dim, depth, self.prefix_tokens = config.dim, config.depth, 1
        self.width, self.channels = dim, (dim,) * 4
        self.grid = cells(image_hw(config.image), STRIDE)
        place = Place(dim=dim, heads=config.heads, grid=self.grid, extra=1, name="ceit's blocks")
        (choice,) = choose([place], config.mixer, config.reducer)
        hidden = dim * config.mlp_ratio
        self.stem = ImageToTokens(config.in_chans, config.stem)
        self.patch = nn.Conv2d(config.stem, dim, STRIDE // 4, STRIDE // 4)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.position = nn.Parameter(torch.zeros(1, place.tokens, dim))
        self.shared = choice.build_shared()
        choice = choice.without_hold().require_grid(
            "its feed-forward looks over a grid", "use reducer 'pool' or 'all'"
        )
        self.blocks = choice.blocks(
            partial(CeiTBlock, dim, hidden), drop_path_rates(config.drop_path, depth)
        )
        self.layers = nn.Parameter(torch.zeros(1, depth, dim))
        self.lca = LayerAttention(dim, config.heads, hidden)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = classifier(dim, config.classes)
        self.apply(init_weights)
        nn.init.trunc_normal_(self.position, std=0.02)
        nn.init.trunc_normal_(self.cls, std=0.02)

    def encode(self, x: Tensor, *, maps: bool = True) -> States:
        """Maps after each quarter of the depth; each block's class token, ``(B, depth, C)``."""
        check_image(x, self.in_chans, 1)
        size = grid_of(x)
        x = self.patch(self.stem(pad_to(x, STRIDE)))
        grid = grid_of(x)
        x = torch.cat((self.cls.expand(x.shape[0], -1, -1), to_tokens(x)), 1)
        x = x + resize_table(self.position, self.grid, grid, 1, self.config.resize)
        after = self.blocks.states(x, grid, shared=self.shared)
        last = torch.cat([tokens[:, :1] for tokens in after], 1)
        return States(self.pyramid(after, grid, size) if maps else (), last)

    def pool(self, x: Tensor) -> Tensor:
        """What the last class token learns from the others, normalised: ``(B, C)``."""
        return self.norm(self.lca(x + self.layers))

    def cam_layers(self) -> list[CamLayer]:
        """What the last mixer is given."""
        return last_mixer(self)

    reads = ("lca",)

    def read_fields(self, fields: Fields, calls: Sequence[Any]) -> Tensor | None:
        """The last class token, and what it learns from those behind every block."""
        call = next(call for call in calls if call.name == "lca")
        firsts = [fields.tap(name, 1).tokens[:, 0, 0] for name in fields.left]
        read = (torch.stack(firsts, 1) * self.lca.layer_weights(call.args[0])).sum(1)
        return 0.5 * firsts[-1] + 0.5 * read

    def no_weight_decay(self) -> set[str]:
        """Position table and class token (the layers' embedding decays, as released)."""
        return {"position", "cls"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, one group a block, then what reads the class tokens."""
        return {
            "stem": r"^cls|^position|^stem|^patch|^shared",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm|^lca|^layers", (99999,))],
        }


RENAMES = (  # official name -> ours
    (r"^cls_token$", "cls"),
    (r"^pos_embed$", "position"),
    (r"^pos_layer_embed$", "layers"),
    (r"^i2t\.backbone\.", "stem."),
    (r"^i2t\.proj\.", "patch."),
    (r"^lca\.attn\.", "lca."),
    (r"^lca\.feedforward\.", "lca.mlp."),
    (r"\.attn\.", ".mixer."),
)
