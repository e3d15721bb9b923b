"""FilterViT and DropoutViT (Sun and Chen, 2024, arXiv 2410.22709), as published.

picture -> conv 5x5, inverted residual (stride 2) -> pooled, filter and full blocks -> mean -> mlp

=============== ============================================================================
block           what it does before its inverted residual
=============== ============================================================================
``Pooled``      x <- x + enlarge(encode(average of cells x cells + position))
``FilterBlock`` m = sigmoid(gelu(score(x))); x <- m x; K places of largest m <- encode(x + position)
``Drop``        K random places <- encode(x + position)
``Full``        x <- x + encode(all places)
=============== ============================================================================

``encode`` is a post-norm encoder layer with ReLU. Follows the authors' code (BobSun98/FilterVIT
67b09ae, folder v4.5), quirks included: GELU makes the score fall, then rise, and never lets a
gate below 0.457; chosen places leave as layer norm's output, the others as convolution's; the
stem has no padding, so sides are 110, 55, 28, 14, 7, 4; a full block always adds its input; xs
resamples every picture to 110 x 110 behind the stem. ``filtervit_v2_*`` corrects all this.

Deviations: static shapes (top K, gather, scatter) in place of a boolean mask; K for other sizes
is the same share of the places (the original fails, or mixes up positions); no dropout on
attention weights; DropoutViT answers by a fixed lattice in evaluation (``chance="random"`` draws
there too, as published; ``"all"`` lets every place work); :meth:`features` resamples its maps to
strides 4 to 32. The experimental size s2 is left out. Positions are computed, never stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.errors import UserError
from vitrail.layers.blocks import Chain
from vitrail.layers.conv import Stem
from vitrail.layers.drop import DropPath
from vitrail.layers.grid import Grid, cells, grid_of, resample, to_map, to_tokens
from vitrail.layers.inverted import InvertedResidual, init_conv
from vitrail.layers.position import sinusoid
from vitrail.mixers import MixerSpec
from vitrail.models.backbone import (
    Backbone,
    Config,
    States,
    check_image,
    drop_path_rates,
    image_hw,
    init_weights,
    mlp_head,
)
from vitrail.models.filtervit_weights import RENAMES
from vitrail.models.reading import DEEP, CamLayer, Fields, State, every_second, pool_centres
from vitrail.reducers import All, ReducerSpec
from vitrail.specs import Place
from vitrail.tokens import selection

__all__ = ["CONFIGS", "RENAMES", "FilterViT", "FilterViTConfig"]


@dataclass(frozen=True)
class Row:
    """One block: its kind and width, and what its encoder and inverted residual are like.

    ``cells`` is the side of a pooled block's grid; ``keep`` the share of places a filter keeps.
    """

    kind: str
    dim: int
    heads: int
    stride: int = 2
    _: KW_ONLY
    cells: int = 0
    keep: float = 0.0
    ratio: int = 2
    depth: int = 1


@dataclass(frozen=True)
class FilterViTConfig(Config):
    """One size, and what a user may change."""

    stem: int
    ratio: int
    rows: tuple[Row, ...]
    hidden: int
    _: KW_ONLY
    resample: int = 0  # side of the map behind the stem; 0 leaves it as it comes
    apart: bool = False  # the original keeps the first block outside its list
    chance: str = "lattice"  # where a drop block works in evaluation
    dropout: float = 0.1
    head_dropout: float = 0.5
    mixer: tuple[str, ...] = ("softmax",)
    reducer: tuple[str, ...] = ("all",)


FINE, COARSE = 256 / 55**2, 128 / 28**2
"""The shares the published numbers of places are: 256 of 55 x 55, 128 of 28 x 28."""
# fmt: off
XS = (
    Row("pooled", 128, 2, cells=11),
    Row("filter", 128, 4, 1, keep=FINE,   ratio=3),
    Row("pooled", 128, 2, cells=11),
    Row("filter", 128, 4, 1, keep=COARSE, ratio=3),
    Row("filter", 128, 4, 1, keep=COARSE, ratio=3),
    Row("pooled", 128, 2, cells=7),
    Row("full",   128, 8),
    Row("full",   256, 8),
)
XXS = (
    Row("pooled", 64,  2, cells=20),
    Row("filter", 64,  2, 1, keep=FINE),
    Row("filter", 64,  4, 2, keep=FINE),
    Row("filter", 128, 4, 1, keep=COARSE),
    Row("filter", 128, 4, 1, keep=COARSE),
    Row("full",   128, 8),
    Row("full",   128, 8),
)
S = (
    Row("pooled", 128, 2, cells=16, depth=2),
    Row("filter", 128, 4, 1, keep=FINE,   ratio=2, depth=2),
    Row("filter", 128, 4, 2, keep=FINE,   ratio=3, depth=2),
    Row("filter", 128, 4, 1, keep=COARSE, ratio=3, depth=2),
    Row("filter", 256, 4, 2, keep=COARSE, ratio=3, depth=2),
    Row("full",   256, 8, depth=2),
    Row("full",   256, 8, depth=2),
)
# fmt: on
DROP = tuple(replace(row, kind={"filter": "drop"}.get(row.kind, row.kind)) for row in XS)
CONFIGS = {
    "filtervit_xxs": FilterViTConfig(64, 2, XXS, 384, apart=True),
    "filtervit_xs": FilterViTConfig(64, 3, XS, 384, resample=110),
    "filtervit_s": FilterViTConfig(128, 3, S, 512),
    "dropoutvit_xs": FilterViTConfig(64, 3, DROP, 384, resample=110),
}


class FilterViT(Backbone):
    """A pyramid of inverted residuals with attention on few places between them."""

    def __init__(self, config: FilterViTConfig) -> None:
        super().__init__(config)
        mixer = check_choices(config)
        self.stem = Stem(config.in_chans, config.stem)
        self.first = InvertedResidual(config.stem, config.stem, 1, config.ratio)
        self.early, self.late = nn.ModuleDict(), Chain()
        names = iter((["first"] if config.apart else []) + [str(i) for i in range(9)])
        width, grid, stride = config.stem, behind_stem(config, config.image), 2
        self.strides_of_blocks: list[int] = []
        for row, rate in zip(
            config.rows, drop_path_rates(config.drop_path, len(config.rows)), strict=True
        ):
            block = KINDS[row.kind](width, row, grid, mixer, config, rate)
            if row.kind == "full":
                self.late.append(block)
            else:
                self.early[next(names)] = block
            width, grid, stride = row.dim, cells(grid, row.stride), stride * row.stride
            self.strides_of_blocks.append(stride)
        widths = dict(zip(self.strides_of_blocks, (r.dim for r in config.rows), strict=True))
        self.width, self.channels = width, tuple(widths[s] for s in self.strides)
        self.head = mlp_head(width, config.hidden, config.classes, config.head_dropout)
        self.apply(init_weights)
        self.apply(init_conv)

    def encode(self, x: Tensor, *, maps: bool = True) -> States:
        """The last map of each resolution, resampled to strides 4, 8, 16, 32 where it is off."""
        check_image(x, self.in_chans, 32)
        size, side, run = grid_of(x), self.config.resample, self.late.run
        x = run(self.first, self.stem(x.contiguous(memory_format=torch.channels_last)))
        x = resample(x, (side, side)) if side else x
        after = {}
        blocks = (*self.early.values(), *self.late)
        for block, stride in zip(blocks, self.strides_of_blocks, strict=True):
            after[stride] = x = run(block, x)
        return States(self.levels(after, size) if maps else (), x)

    def levels(self, maps: dict[int, Tensor], size: Grid) -> tuple[Tensor, ...]:
        """The last map of each resolution, for images of ``size``."""
        return tuple(
            m if grid_of(m) == to else F.interpolate(m, to, mode="bilinear", antialias=True)
            for stride, m in maps.items()
            if stride in self.strides and (to := cells(size, stride))
        )

    def final_grid(self, image: Grid) -> Grid:
        """Behind the last block, for images of any size."""
        return cells(behind_stem(self.config, image), self.strides_of_blocks[-1] // 2)

    def prune_to(self, levels: int) -> None:
        """Drop later blocks, also those that go on beyond stride 32."""
        strides = [s for s in self.strides_of_blocks if s <= self.strides[levels - 1]]
        early, self.strides_of_blocks = list(self.early.items()), strides
        self.early = nn.ModuleDict(dict(early[: len(strides)]))
        del self.late[max(0, len(strides) - len(early)) :]

    def pool(self, x: Tensor) -> Tensor:
        """The mean over places."""
        return x.mean((2, 3))

    def fresh_head(self, classes: int) -> nn.Module:
        """A two-layer classifier, ``(B, width)`` -> ``(B, classes)``."""
        return mlp_head(self.width, self.config.hidden, classes, self.config.head_dropout)

    def cam_layers(self) -> list[CamLayer]:
        """The last map at strides 8, 16 and 32."""
        early, late = (f"early.{n}" for n in self.early), (f"late.{i}" for i in range(9))
        last = dict(zip(self.strides_of_blocks, (*early, *late), strict=False))
        return [CamLayer(last[stride], "nchw") for stride in DEEP]

    def cell_centres(self, count: int, pixels: int) -> Tensor:
        """The stem (5 x 5, stride 2, no padding) centres its cells at ``2 i + 2``."""
        behind = 2.0 * torch.arange((pixels - 5) // 2 + 1) + 2
        return every_second(pool_centres(behind, self.config.resample), count)

    def no_weight_decay(self) -> set[str]:
        """Nothing beside biases and norms."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, then one group a block."""
        return {
            "stem": r"^stem|^first|^early\.first",
            "blocks": [(r"^early\.(\d+)", None), (r"^late\.(\d+)", None)],
        }


def check_choices(config: FilterViTConfig) -> MixerSpec:
    """The encoder layers' mixer.

    Raises:
        UserError: not one spec, a reducer, or an unknown rule of evaluation.
    """
    if len(config.mixer) != 1 or len(config.reducer) != 1:
        raise UserError("filtervit's blocks take one mixer and one reducer for all")
    reducer = ReducerSpec.parse(config.reducer[0])
    if not isinstance(reducer, All):
        where = Place(dim=config.rows[0].dim, heads=1, grid=(55, 55), name="filtervit's blocks")
        raise reducer.refuse(
            where,
            "each block chooses its own places, as published",
            "use filtervit_v2_*, which takes every reducer",
        )
    if config.chance not in CHANCES:
        raise UserError(f"chance={config.chance!r}: it is one of {', '.join(CHANCES)}")
    return MixerSpec.parse(config.mixer[0])


def behind_stem(config: FilterViTConfig, image: int | Grid) -> Grid:
    """The grid the blocks begin with, for images of a size."""
    if config.resample:
        return config.resample, config.resample
    height, width = image_hw(image)
    return (height - 5) // 2 + 1, (width - 5) // 2 + 1


class EncoderLayer(nn.Module):
    """Attention, add, norm; ReLU feed-forward, add, norm (Vaswani et al. 2017)."""

    def __init__(self, place: Place, mixer: MixerSpec, ratio: int, dropout: float) -> None:
        super().__init__()
        dim = place.dim
        self.mixer, self.shared = mixer.build(place), mixer.build_shared(place)
        self.norm1 = nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, dim * ratio), nn.Linear(dim * ratio, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, grid: Grid, plan: selection.Selection | None = None) -> Tensor:
        """``(B, K, C)`` -> the same shape."""
        x = self.norm1(x + self.drop(self.mixer(x, grid, self.shared, plan)))
        return self.norm2(x + self.drop(self.fc2(self.drop(self.fc1(x).relu()))))


class EncoderBlock(nn.Module):
    """What all blocks share: encoder layers, then an inverted residual."""

    scattered = False

    def __init__(
        self,
        width: int,
        row: Row,
        grid: Grid,
        mixer: MixerSpec,
        config: FilterViTConfig,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.row, self.chance = row, config.chance
        place = Place(
            dim=width,
            heads=row.heads,
            grid=(row.cells, row.cells) if row.cells else grid,
            scattered=self.scattered,
            name=f"filtervit's {row.kind} blocks",
        )
        ratio = row.ratio
        self.layers = nn.ModuleList(
            EncoderLayer(replace(place, index=i), mixer, ratio, config.dropout)
            for i in range(row.depth)
        )
        self.drop_path = DropPath(drop_path)
        self.conv = InvertedResidual(width, row.dim, row.stride, ratio, drop_path)

    def encode(self, x: Tensor, grid: Grid, plan: selection.Selection | None = None) -> Tensor:
        """The encoder layers, one after the other."""
        for layer in self.layers:
            x = layer(x, grid, plan)
        return x

    def attend(self, x: Tensor) -> Tensor:
        """``(B, width, H, W)`` -> the same shape: the step that gives a block its name."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """``(B, width, H, W)`` -> ``(B, dim, H / stride, W / stride)``."""
        return self.conv(self.attend(x))

    def propagate(self, fields: Fields, call: Any, steps: Sequence[Any]) -> None:
        """A rollout's field: all places, or chosen ones overwritten."""
        grid = grid_of(call.args[0])
        f = fields.enter(call.name, grid, 0, to_tokens(call.args[0])).tokens
        plan = steps[0].plan
        if plan is not None:
            chosen = plan.reduce(f)
            f = f + plan.restore(fields.encode(chosen, steps) - chosen)
        else:
            f = fields.join(f, f, fields.encode(f, steps), 0.5)
        fields.leave(call.name, State(f, grid))


class Pooled(EncoderBlock):
    """Attention on a small averaged grid, enlarged and added (``FirstConvFormerBlock``)."""

    def attend(self, x: Tensor) -> Tensor:
        """Enlarging is adaptive average pooling, too: exact copies at multiples."""
        grid = self.row.cells, self.row.cells
        z = to_tokens(resample(x, grid))
        z = z + sinusoid(torch.arange(z.shape[1], device=x.device), z.shape[2]).to(z.dtype)
        return x + self.drop_path(resample(to_map(self.encode(z, grid), grid), grid_of(x)))

    def propagate(self, fields: Fields, call: Any, steps: Sequence[Any]) -> None:
        """Mean of cells, encoder, copies."""
        grid, coarse = grid_of(call.args[0]), steps[0].grid
        f = fields.enter(call.name, grid, 0, to_tokens(call.args[0])).tokens
        image = resample(to_map(f, grid), coarse)
        out = to_map(fields.encode(to_tokens(image), steps), coarse)
        into, out = (to_tokens(resample(each, grid)) for each in (image, out))
        fields.leave(call.name, State(fields.join(f, into, out, 0.5), grid))


class Full(EncoderBlock):
    """Attention on all places, added; no position (``ConvFormerBlock``)."""

    def attend(self, x: Tensor) -> Tensor:
        """The input is always added."""
        grid = grid_of(x)
        return x + self.drop_path(to_map(self.encode(to_tokens(x), grid), grid))


class Chooser(EncoderBlock):
    """What filter and drop blocks share: work at some places only."""

    scattered, draws_places = True, False

    def work(self, x: Tensor, grid: Grid, index: Tensor) -> Tensor:
        """Encode the tokens at some places and overwrite them: ``(B, N, C)`` -> a map."""
        z = selection.gather(x, index)
        z = z + sinusoid(index, z.shape[2]).to(z.dtype)
        z = self.encode(z, grid, selection.Selection(grid=grid, extra=0, index=index))
        return to_map(selection.scatter(x, index, z.to(x.dtype)), grid)


class FilterBlock(Chooser):
    """Attention on the best-scored places of the gated map (``LeakyConvFormerBlock``).

    The score is a 7x7 convolution of dilation 5, normalised: it sees 31 x 31 places.
    """

    def __init__(self, width: int, *args: Any) -> None:
        super().__init__(width, *args)
        conv = nn.Conv2d(width, 1, 7, padding=15, dilation=5)
        self.score = nn.Sequential(conv, nn.BatchNorm2d(1))

    def attend(self, x: Tensor) -> Tensor:
        """Gate all, encode the best, overwrite them."""
        gate, count = self.gate(self.score(x)), selection.keep_count(self.row.keep, grid_of(x))
        index = selection.stable_topk_indices(gate.detach().flatten(1), count)
        return self.work(to_tokens(gate * x), grid_of(x), index)

    def gate(self, score: Tensor) -> Tensor:
        """``(B, 1, H, W)`` into [0.457, 1): importance and gate in one."""
        return F.gelu(score).sigmoid()

    def explain_selection(self, x: Tensor) -> Mapping[str, Tensor]:
        """``score`` and ``gate`` ``(B, H, W)``."""
        score = self.score(x)
        return {"score": score.squeeze(1), "gate": self.gate(score).squeeze(1)}


class Drop(Chooser):
    """Attention on random places, the same for all pictures of a batch (``DropOutBlock``)."""

    draws_places = True

    def attend(self, x: Tensor) -> Tensor:
        """No score, no gate."""
        grid = grid_of(x)
        places, count = grid[0] * grid[1], selection.keep_count(self.row.keep, grid)
        if self.training or self.chance == "random":
            index = selection.topk_indices(torch.rand(1, places, device=x.device), count)
        else:
            index = selection.lattice(places if self.chance == "all" else count, grid, x.device)
        return self.work(to_tokens(x), grid, index.expand(x.shape[0], -1))


KINDS = {"pooled": Pooled, "filter": FilterBlock, "drop": Drop, "full": Full}
CHANCES = ("lattice", "random", "all")
