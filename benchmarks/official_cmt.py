"""CMT wired as its authors wired it: the yardstick for ours, since timm has no CMT.

picture -> 3 x [conv, GELU, BN] -> 4 x [conv 2x2, norm, blocks] -> conv, BN, SiLU, mean -> head

Written from the description in our references of ggjy/CMT.pytorch 07e72b7 (Guo et al., CVPR 2022),
with its layout of memory and its tensor names, so that weights go both ways: maps in torch's
default order; tokens copied to maps and back inside every block; queries, keys and values by three
linear layers; attention spelled out as product, bias, softmax, product. Two things are ours: the
tables are made for any size whose sides are multiples of 32 (the authors' refuse all but one), and
drop path is left out (it does nothing in evaluation).
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import vitrail
from vitrail.errors import UserError
from vitrail.models.cmt import CONFIGS, CMTConfig

REDUCTIONS = (8, 4, 2, 1)
LETTERS = "abcd"
PREFIX = "official:"
OFFICIAL = {name: PREFIX + name for name in CONFIGS}
"""Our name -> the text of the same network here."""


class Attention(nn.Module):
    """Keys and values from a shrunk map; the table is added to the scores."""

    def __init__(self, dim: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.sr = (
            nn.Sequential(
                nn.Conv2d(dim, dim, reduction, reduction, groups=dim), nn.BatchNorm2d(dim)
            )
            if reduction > 1
            else None
        )

    def heads_of(self, x: Tensor) -> Tensor:
        """``(B, N, C)`` -> ``(B, heads, N, C / heads)``."""
        batch, tokens, dim = x.shape
        return x.reshape(batch, tokens, self.heads, dim // self.heads).permute(0, 2, 1, 3)

    def forward(self, x: Tensor, height: int, width: int, bias: Tensor) -> Tensor:
        """``(B, N, C)`` -> the same shape."""
        batch, tokens, dim = x.shape
        few = x
        if self.sr is not None:
            few = self.sr(as_map(x, height, width))
            few = few.reshape(batch, dim, -1).permute(0, 2, 1)
        q, k, v = self.heads_of(self.q(x)), self.heads_of(self.k(few)), self.heads_of(self.v(few))
        scores = (q @ k.transpose(-2, -1)) * self.scale + bias
        x = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, tokens, dim)
        return self.proj(x)


class FeedForward(nn.Module):
    """Inverted residual: widen, depthwise convolution with a residual, narrow; on maps."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(dim, hidden, 1), nn.GELU(), nn.BatchNorm2d(hidden))
        self.proj = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden)
        self.proj_act = nn.GELU()
        self.proj_bn = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Sequential(nn.Conv2d(hidden, dim, 1), nn.BatchNorm2d(dim))

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """``(B, N, C)`` -> the same shape."""
        x = self.conv1(as_map(x, height, width))
        x = self.proj_bn(self.proj_act(self.proj(x) + x))
        return as_tokens(self.conv2(x))


class Block(nn.Module):
    """Local perception, attention, feed-forward."""

    def __init__(self, dim: int, heads: int, reduction: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim, dim, 3, 1, 1, groups=dim)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads, reduction)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = FeedForward(dim, hidden)

    def forward(self, x: Tensor, height: int, width: int, bias: Tensor) -> Tensor:
        """``(B, N, C)`` -> the same shape."""
        seen = as_map(x, height, width)
        x = as_tokens(self.proj(seen) + seen)
        x = x + self.attn(self.norm1(x), height, width, bias)
        return x + self.mlp(self.norm2(x), height, width)


class PatchEmbed(nn.Module):
    """Halve the map; tokens, normalised."""

    def __init__(self, given: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(given, dim, 2, 2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        """``(B, given, H, W)`` -> ``(B, N, dim)`` and the sides of the map."""
        x = self.proj(x)
        return self.norm(as_tokens(x)), x.shape[2], x.shape[3]


class OfficialCMT(nn.Module):
    """The whole network; ``(B, in_chans, image, image)`` -> logits ``(B, classes)``."""

    def __init__(self, config: CMTConfig, *, classes: int, image: int, in_chans: int = 3) -> None:
        super().__init__()
        if image % 32:
            raise UserError(f"the official CMT needs sides that are multiples of 32, not {image}")
        stem, dims = config.stem, config.dims
        for number, (given, stride) in enumerate(((in_chans, 2), (stem, 1), (stem, 1)), start=1):
            self.add_module(f"stem_conv{number}", nn.Conv2d(given, stem, 3, stride, 1))
            self.add_module(f"stem_norm{number}", nn.BatchNorm2d(stem))
        self.act = nn.GELU()
        shapes = zip((stem, *dims[:3]), dims, config.depths, config.heads, strict=True)
        rows = zip(LETTERS, REDUCTIONS, shapes, strict=True)
        for level, (letter, reduction, (given, dim, depth, heads)) in enumerate(rows):
            hidden, places = int(dim * config.mlp_ratio), (image >> (level + 2)) ** 2
            table = torch.randn(heads, places, places // reduction**2)
            self.add_module(f"patch_embed_{letter}", PatchEmbed(given, dim))
            self.register_parameter(f"relative_pos_{letter}", nn.Parameter(table))
            blocks = (Block(dim, heads, reduction, hidden) for _ in range(depth))
            self.add_module(f"blocks_{letter}", nn.ModuleList(blocks))
        self._fc = nn.Conv2d(dims[-1], config.last, 1)
        self._bn = nn.BatchNorm2d(config.last)
        self._swish = nn.SiLU()
        self._avg_pooling = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(config.last, classes)

    def stages(self) -> Iterator[tuple[nn.Module, nn.Module, Tensor]]:
        """Patch embedding, blocks and table of each stage."""
        for letter in LETTERS:
            names = ("patch_embed", "blocks", "relative_pos")
            entrance, blocks, table = (getattr(self, f"{name}_{letter}") for name in names)
            yield entrance, blocks, table

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        for number in (1, 2, 3):
            conv, norm = getattr(self, f"stem_conv{number}"), getattr(self, f"stem_norm{number}")
            x = norm(self.act(conv(x)))
        for entrance, blocks, table in self.stages():
            x, height, width = entrance(x)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, height, width, table)
            x = as_map(x, height, width)
        x = self._swish(self._bn(self._fc(x)))
        return self.head(self._avg_pooling(x).flatten(1))


def as_map(x: Tensor, height: int, width: int) -> Tensor:
    """``(B, N, C)`` -> ``(B, C, H, W)`` in torch's default order: a copy."""
    return x.permute(0, 2, 1).reshape(x.shape[0], x.shape[2], height, width)


def as_tokens(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` -> ``(B, N, C)``."""
    return x.flatten(2).permute(0, 2, 1)


def build(text: str, /, *, classes: int, image: int, in_chans: int = 3) -> nn.Module:
    """As ``vitrail.create``; also ``official:cmt_s``, the authors' own layout.

    Raises:
        UserError: no such model, or one that cannot serve this size.
    """
    if not text.startswith(PREFIX):
        return vitrail.create(text, classes=classes, image=image, in_chans=in_chans)
    name = text.removeprefix(PREFIX)
    if name not in CONFIGS:
        raise UserError(f"no official layout of {name!r}; there are {', '.join(CONFIGS)}")
    return OfficialCMT(CONFIGS[name], classes=classes, image=image, in_chans=in_chans)
