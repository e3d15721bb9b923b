"""MobileViT: Light-weight, General-purpose, and Mobile-friendly Vision Transformer.

Mehta and Rastegari, ICLR 2022 (arXiv 2110.02178), section 3 and table 4.

picture -> conv 3x3 -> inverted residuals (strides 2, 4)
        -> 3 x [inverted residual of stride 2, MobileViT block] (strides 8, 16, 32)
        -> conv 1x1 -> mean -> head

MobileViT block (figure 1): conv 3x3, conv 1x1 to the transformer's width, attention *between*
2x2 patches for each of the four positions *inside* them, conv 1x1 back, concatenated with the
block's input, conv 3x3. Convolution sees inside a patch, attention across: no position code.

Deviations: the paper's dropout (0.1 in feed-forwards and before the head) is left to drop path;
timm's weights load, and they expect pixels in [0, 1] that are not normalised further. Maps of odd
sides are resized (bilinear) to even ones for attention and back, as released.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.blocks import Chain
from vitrail.layers.feed import Mlp
from vitrail.layers.grid import Grid, cells, grid_of, to_map, to_tokens
from vitrail.layers.inverted import ConvNormAct, InvertedResidual, init_conv
from vitrail.layers.trace import one_node
from vitrail.models.backbone import (
    Backbone,
    Choice,
    Config,
    Size,
    States,
    check_image,
    choose,
    classifier,
    drop_path_rates,
    image_hw,
    init_weights,
)
from vitrail.models.reading import CamLayer, Fields, State
from vitrail.specs import Place

PATCH = 2
"""Pixels along a patch, in every block of every variant."""


@dataclass(frozen=True)
class MobileViTConfig(Config):
    """One column of table 4, and what a user may change."""

    dims: tuple[int, ...]
    widths: tuple[int, ...]
    ratio: int
    final: int
    _: KW_ONLY
    stem: int = 16
    depths: tuple[int, ...] = (2, 4, 3)
    heads: int = 4
    image: Size = 256
    mixer: tuple[str, ...] = ("softmax",) * 3
    reducer: tuple[str, ...] = ("all",) * 3


# fmt: off
CONFIGS = {  #                     dims of the five stages  transformer      expansion, final conv
    "mobilevit_xxs": MobileViTConfig((16, 24, 48, 64, 80),   (64, 80, 96),    2, 320),
    "mobilevit_xs":  MobileViTConfig((32, 48, 64, 80, 96),   (96, 120, 144),  4, 384),
    "mobilevit_s":   MobileViTConfig((32, 64, 96, 128, 160), (144, 192, 240), 4, 640),
}
# fmt: on
REPEATS = ((1,), (2, 1, 1), (2,), (2,), (2,))
"""Strides of the inverted residuals of each stage."""


class MobileViT(Backbone):
    """Five stages of inverted residuals; the last three end in a MobileViT block."""

    tail = ("final",)

    def __init__(self, config: MobileViTConfig) -> None:
        super().__init__(config)
        self.channels, self.width = config.dims[1:], config.final
        choices = choose(places(config), config.mixer, config.reducer)
        rates = iter(drop_path_rates(config.drop_path, sum(config.depths)))
        self.stem = ConvNormAct(config.in_chans, config.stem, 3, 2)
        self.stages = nn.ModuleList()
        width = config.stem
        for i, (dim, strides) in enumerate(zip(config.dims, REPEATS, strict=True)):
            stage = Chain()
            for stride in strides:
                stage.append(InvertedResidual(width, dim, stride, config.ratio))
                width = dim
            if i >= 2:
                steps = [next(rates) for _ in range(config.depths[i - 2])]
                stage.append(MobileViTBlock(dim, choices[i - 2], steps))
            self.stages.append(stage)
        self.final = ConvNormAct(width, config.final)
        self.head = classifier(self.width, config.classes)
        self.apply(init_weights)
        self.apply(init_conv)

    def encode(self, x: Tensor, *, maps: bool = True) -> States:
        """The output of stages 2 to 5, as the paper's detectors and segmenters read them."""
        check_image(x, self.in_chans, 32)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        after = []
        for stage in self.stages:
            x = stage(x)
            after.append(x)
        return States(tuple(after[1:]), x)

    def finish(self, last: Tensor) -> Tensor:
        """``(B, width, H / 32, W / 32)``."""
        return self.final(last)

    def final_grid(self, image: Grid) -> Grid:
        """That of stride 32."""
        return cells(image, 32)

    def prune_to(self, levels: int) -> None:
        """Drop later stages."""
        self.stages = self.stages[: levels + 1]

    def pool(self, x: Tensor) -> Tensor:
        """The mean over places."""
        return x.mean((2, 3))

    def cam_layers(self) -> list[CamLayer]:
        """The map of the last MobileViT block."""
        last = len(self.stages) - 1
        return [CamLayer(f"stages.{last}.{len(self.stages[last]) - 1}", "nchw")]  # type: ignore[arg-type]

    def no_weight_decay(self) -> set[str]:
        """Nothing beside biases and norms."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, then one group a block."""
        return {
            "stem": r"^stem",
            "blocks": [(r"^stages\.(\d+)\.(\d+)", None), (r"^final", (99999,))],
        }


def places(config: MobileViTConfig) -> list[Place]:
    """Where the mixers of the last three stages stand: one token a patch."""
    height, width = image_hw(config.image)
    return [
        Place(
            dim=dim,
            heads=config.heads,
            grid=cells((height, width), stride * PATCH),
            name=f"mobilevit's stage {i + 3}",
        )
        for i, (dim, stride) in enumerate(zip(config.widths, (8, 16, 32), strict=True))
    ]


class SmoothMlp(Mlp):
    """The feed-forward with SiLU."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(dim, hidden)
        self.act = nn.SiLU()


class MobileViTBlock(nn.Module):
    """Look inside patches by convolution, between patches by attention, and fuse both."""

    def __init__(self, dim: int, choice: Choice, rates: list[float]) -> None:
        super().__init__()
        width = choice.place.dim
        self.local = ConvNormAct(dim, dim, 3)
        self.widen = nn.Conv2d(dim, width, 1, bias=False)
        self.shared = choice.build_shared()
        self.blocks = choice.plain_blocks(2 * width, rates, SmoothMlp, eps=1e-5)
        self.norm = nn.LayerNorm(width)
        self.narrow = ConvNormAct(width, dim)
        self.fuse = ConvNormAct(2 * dim, dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, H, W)`` -> the same shape."""
        size = grid_of(x)
        grid = cells(size, PATCH)
        y = resize(self.widen(self.local(x)), (grid[0] * PATCH, grid[1] * PATCH))
        z = self.blocks(unfold(y, grid), grid, shared=self.shared)
        y = resize(fold(self.norm(z), grid), size)
        return self.fuse(torch.cat((x, self.narrow(y)), 1))

    reads = ("fuse",)

    def propagate(self, fields: Fields, call: Any, steps: Sequence[Any]) -> None:
        """A rollout's field: one sequence for each position inside a patch."""
        x, grid = call.args[0], steps[0].full_grid
        size = grid_of(x)
        f = fields.enter(call.name, size, 0, to_tokens(x)).tokens
        image = resize(to_map(f, size), (grid[0] * PATCH, grid[1] * PATCH))
        out = fold(fields.encode(unfold(image, grid), steps), grid)
        into, out = (to_tokens(resize(each, size)) for each in (image, out))
        f = fields.join(f, into, out, self.attention_share(steps[-1].unit_reads["fuse"].args[0]))
        fields.leave(call.name, State(f, size))

    @torch.no_grad()
    def attention_share(self, both: Tensor) -> Tensor:
        """``(B, H*W, 1)``: how much of the fusing convolution's answer comes from attention."""
        conv = self.fuse.conv
        parts = zip(both.chunk(2, 1), conv.weight.chunk(2, 1), strict=True)
        direct, mixed = (F.conv2d(x, w, padding=conv.padding).norm(dim=1) for x, w in parts)
        return (mixed / (direct + mixed).clamp(min=1e-12)).flatten(1).unsqueeze(2)


@one_node
def resize(x: Tensor, size: Grid) -> Tensor:
    """Bilinear, where the size differs."""
    if grid_of(x) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def unfold(x: Tensor, grid: Grid) -> Tensor:
    """``(B, C, 2h, 2w)`` -> ``(B * 4, h * w, C)``: one sequence for each position in a patch."""
    x = x.unflatten(3, (grid[1], PATCH)).unflatten(2, (grid[0], PATCH))
    return x.permute(0, 3, 5, 2, 4, 1).flatten(0, 2).flatten(1, 2)


def fold(z: Tensor, grid: Grid) -> Tensor:
    """The inverse of :func:`unfold`, in channels-last memory."""
    z = z.unflatten(1, grid).unflatten(0, (-1, PATCH, PATCH)).permute(0, 3, 1, 4, 2, 5)
    return z.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


TIMM = {  # ours -> timm's, which has weights for it (equal outputs: ``tests/parity``)
    "mobilevit_xxs": "mobilevit_xxs",
    "mobilevit_xs": "mobilevit_xs",
    "mobilevit_s": "mobilevit_s",
}
RENAMES = (  # timm's name -> ours
    (r"\.bn\.", ".norm."),
    (r"\.conv1_1x1\.", ".expand."),
    (r"\.conv2_kxk\.", ".depthwise."),
    (r"\.conv3_1x1\.", ".project."),
    (r"\.conv_kxk\.", ".local."),
    (r"\.conv_1x1\.", ".widen."),
    (r"\.transformer\.", ".blocks."),
    (r"\.attn\.", ".mixer."),
    (r"\.conv_proj\.", ".narrow."),
    (r"\.conv_fusion\.", ".fuse."),
    (r"^final_conv\.", "final."),
    (r"^head\.fc\.", "head."),
)
