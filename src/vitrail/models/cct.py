"""CCT: Escaping the Big Data Paradigm with Compact Transformers (Hassani et al. 2021,
arXiv 2104.05704).

picture -> 1 or 2 x [convolution, ReLU, max-pool] + position -> blocks -> norm
        -> sequence pooling: a learned weighted mean of all tokens -> head

``cct_7_3x2``: 7 layers; 2 convolutions of 3 x 3. Variants and wiring of the released code
(SHI-Labs/Compact-Transformers), for 32 px and 10 classes unless said. A block's second residual
starts from the *normalised* tokens (see :class:`CCTBlock`): its weights depend on it. Deviations:
no dropout inside attention (0.1 there); tables are resized to any grid. ``table='sine'`` is
the released fixed table by order in the sequence, ``'none'`` leaves position to the convolutions.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.layers.drop import DropPath
from vitrail.layers.feed import Mlp
from vitrail.layers.grid import Grid, grid_of, to_tokens
from vitrail.layers.plan import Plan
from vitrail.layers.position import RESIZE, resize_table
from vitrail.models.backbone import (
    Config,
    Size,
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
from vitrail.models.reading import CamLayer, Fields, last_block
from vitrail.specs import Place


@dataclass(frozen=True)
class CCTConfig(Config):
    """One row of the released code's table, and what a user may change."""

    depth: int
    heads: int
    dim: int
    mlp_ratio: int
    kernel: int
    convs: int
    _: KW_ONLY
    image: Size = 32
    classes: int = 10
    stem: int = 64
    table: str = "learned"
    resize: str = "bicubic"
    mixer: tuple[str, ...] = ("softmax(bias=False)",)
    reducer: tuple[str, ...] = ("all",)


# fmt: off
CONFIGS = {  #             depth heads dim mlp kernel convs
    "cct_2_3x2":  CCTConfig(2,  2,  128, 1,  3,    2),
    "cct_4_3x2":  CCTConfig(4,  2,  128, 1,  3,    2),
    "cct_6_3x1":  CCTConfig(6,  4,  256, 2,  3,    1),
    "cct_6_3x2":  CCTConfig(6,  4,  256, 2,  3,    2),
    "cct_7_3x1":  CCTConfig(7,  4,  256, 2,  3,    1),
    "cct_7_3x2":  CCTConfig(7,  4,  256, 2,  3,    2),
    "cct_7_7x2":  CCTConfig(7,  4,  256, 2,  7,    2, image=224, classes=102),
    "cct_14_7x2": CCTConfig(14, 6,  384, 3,  7,    2, image=224, classes=1000),
}
# fmt: on
CHOICES = {"table": ("learned", "sine", "none"), "resize": tuple(RESIZE)}


class CCTBlock(nn.Module):
    """``x + attention(norm1(x))``, then ``y = norm2(x)`` and ``y + mlp(y)``: y is the residual."""

    def __init__(self, dim: int, hidden: int, mixer: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.mixer = mixer
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """``(B, N, C)`` -> the same shape."""
        x = x + self.drop_path(self.mixer(self.norm1(x), grid, shared, plan))
        x = self.norm2(x)
        return x + self.drop_path(self.mlp(x))


class CCT(OneScale):
    """A small hybrid for small pictures and small data."""

    tail = ("norm", "weigh")

    position: Tensor | None

    def __init__(self, config: CCTConfig) -> None:
        super().__init__(config)
        check_choices(config, CHOICES)
        dim, self.prefix_tokens = config.dim, 0
        self.width, self.channels = dim, (dim,) * 4
        self.grid = token_grid(image_hw(config.image), config)
        place = Place(dim=dim, heads=config.heads, grid=self.grid, name="cct's blocks")
        (choice,) = choose([place], config.mixer, config.reducer)
        self.tokenizer = tokenizer(config)
        self.place_tokens(place.tokens)
        self.shared = choice.build_shared()
        hidden = dim * config.mlp_ratio
        rates = drop_path_rates(config.drop_path, config.depth)
        self.blocks = choice.without_hold().blocks(partial(CCTBlock, dim, hidden), rates)
        self.norm = nn.LayerNorm(dim)
        self.weigh = nn.Linear(dim, 1)
        self.head = classifier(dim, config.classes)
        self.apply(init_weights)

    def place_tokens(self, tokens: int) -> None:
        """Make the position table: learned, fixed or none."""
        dim = self.config.dim
        if self.config.table == "learned":
            table = nn.init.trunc_normal_(torch.empty(1, tokens, dim), std=0.2)
            self.position = nn.Parameter(table)
        else:
            fixed = sine_table(tokens, dim) if self.config.table == "sine" else None
            self.register_buffer("position", fixed)

    def encode(self, x: Tensor, *, maps: bool = True) -> States:
        """Maps after each quarter of the depth; the last tokens, ``(B, N, C)``."""
        check_image(x, self.in_chans, 1)
        size = grid_of(x)
        x = self.tokenizer(x.contiguous(memory_format=torch.channels_last))
        x, grid = to_tokens(x), grid_of(x)
        if self.position is not None:
            x = x + resize_table(self.position, self.grid, grid, 0, self.config.resize)
        if not maps:
            return States((), self.blocks(x, grid, shared=self.shared))
        after = self.blocks.states(x, grid, shared=self.shared)
        return States(self.pyramid(after, grid, size), after[-1])

    def finish(self, last: Tensor) -> Tensor:
        """Normalised tokens."""
        return self.norm(last)

    def pool(self, x: Tensor) -> Tensor:
        """Sequence pooling: the mean of all tokens, weighted by a softmax over them: ``(B, C)``."""
        return (self.weigh(x).softmax(1).mT @ x).squeeze(1)

    def cam_layers(self) -> list[CamLayer]:
        """All tokens after the last block."""
        return last_block(self)

    reads = ("weigh",)

    def read_fields(self, fields: Fields, calls: Sequence[Any]) -> Tensor | None:
        """All places, as sequence pooling weighs them."""
        call = next(call for call in calls if call.name == "weigh")
        weights = call.output.detach().softmax(1)[:, :, 0]
        return (fields.state.tokens[:, :, 0] * weights).sum(1)

    def no_weight_decay(self) -> set[str]:
        """The position table, where it is learned."""
        return {"position"} if self.config.table == "learned" else set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, one group a block, then norm and pooling."""
        return {
            "stem": r"^position|^tokenizer|^shared",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm|^weigh", (99999,))],
        }


def tokenizer(config: CCTConfig) -> nn.Sequential:
    """Convolution, ReLU, max-pool; once or twice."""
    widths = (config.in_chans, *(config.stem,) * (config.convs - 1), config.dim)
    stride, padding = strides(config.kernel)
    layers = nn.Sequential()
    for width, out in zip(widths, widths[1:], strict=False):
        conv = nn.Conv2d(width, out, config.kernel, stride, padding, bias=False)
        nn.init.kaiming_normal_(conv.weight)
        layers.append(nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(3, 2, 1)))
    return layers


def strides(kernel: int) -> tuple[int, int]:
    """Stride and padding of a convolution, from its kernel."""
    return max(1, kernel // 2 - 1), max(1, kernel // 2)


def token_grid(image: Grid, config: CCTConfig) -> Grid:
    """The grid of tokens for an image of that many pixels."""
    stride, padding = strides(config.kernel)
    height, width = image
    for _ in range(config.convs):
        height, width = (
            ((side + 2 * padding - config.kernel) // stride + 2) // 2 for side in (height, width)
        )
    return height, width


def sine_table(tokens: int, dim: int) -> Tensor:
    """``(1, N, C)``: sine and cosine by turns, wavelengths from 2 pi to 20000 pi."""
    rate = 10000 ** (torch.arange(dim) // 2 * 2 / dim)
    angle = torch.arange(tokens)[:, None] / rate
    even = torch.arange(dim) % 2 == 0
    return torch.where(even, angle.sin(), angle.cos()).unsqueeze(0)


RENAMES = (  # official name -> ours
    (r"^tokenizer\.conv_layers\.", "tokenizer."),
    (r"^classifier\.positional_emb$", "position"),
    (r"^classifier\.attention_pool\.", "weigh."),
    (r"^classifier\.norm\.", "norm."),
    (r"^classifier\.fc\.", "head."),
    (r"^classifier\.(blocks\.\d+)\.norm1\.", r"\1.norm2."),
    (r"^classifier\.(blocks\.\d+)\.pre_norm\.", r"\1.norm1."),
    (r"^classifier\.(blocks\.\d+)\.self_attn\.", r"\1.mixer."),
    (r"^classifier\.(blocks\.\d+)\.linear([12])\.", r"\1.mlp.fc\2."),
)
