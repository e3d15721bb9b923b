"""CoaT: Co-Scale Conv-Attentional Image Transformers (Xu et al., ICCV 2021, arXiv 2104.06399).

picture -> 4 x [patch embedding, class token, blocks of (CPE, conv-attention, mlp)]
        -> CoaT-Lite: norm, class token of stage 4 -> head
        -> CoaT: blocks over three scales at once -> norms -> three class tokens mixed -> head

Follows the released code (mlpc-ucsd/CoaT 220d31f) where the paper is silent: the class token of
a stage is dropped at its end; the three scales of a parallel block share one feed-forward; drop
path has one rate for all blocks; patch norms have epsilon 1e-5, all others 1e-6. Not carried
over: its unused ``norm1`` (and ``norm2``, ``norm3`` of the Lite models). Reducers serve the serial
blocks; the parallel ones always run on all tokens.

**Clustering CoaT** (design note by Bang, Park, Jung, Sim, after ACT, arXiv 2011.09315) is the
same network with another answer to "which tokens work" or "how do they meet"; the note allows
several readings and reports no experiment, so each has its own name:

=============================== =================================== ===============================
name                            what differs from coat_lite_*       what it costs
=============================== =================================== ===============================
clustering_coat_lite_tiny       reading TB: cluster(ratio=4) in     about 0.4 of the multiply-adds
                                stages 1-3                          (the one that saves)
clustering_coat_lite_tiny_qf    prototype_conv in every stage       1.01 of them: the hash costs
                                                                    more than it saves
clustering_coat_lite_tiny_qs    prototype_softmax in every stage    more, by how many clusters the
                                                                    hash makes (quadratic at worst)
pooled_coat_lite_tiny           control: pool(size=2), stages 1-3   about 0.35; not a clustering
=============================== =================================== ===============================

and likewise for mini, small and medium.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.errors import UserError
from vitrail.layers.blocks import BlockList
from vitrail.layers.drop import DropPath
from vitrail.layers.feed import Mlp
from vitrail.layers.grid import Grid, grid_of, to_map, to_tokens
from vitrail.layers.position import ConvPosition
from vitrail.models.backbone import (
    Backbone,
    Choice,
    Config,
    States,
    check_image,
    choose,
    classifier,
    image_hw,
    init_weights,
)
from vitrail.models.reading import CamLayer, Fields, State, last_mixer
from vitrail.specs import Place


@dataclass(frozen=True)
class CoaTConfig(Config):
    """One row of the released code's table, and what a user may change."""

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    ratios: tuple[int, ...]
    parallel: int = 0
    _: KW_ONLY
    heads: int = 8
    mixer: tuple[str, ...] = ("conv_attention",) * 4
    reducer: tuple[str, ...] = ("all",) * 4

    def __post_init__(self) -> None:
        unequal = len({*self.dims[1:]}) > 1 or len({*self.ratios[1:]}) > 1
        if self.parallel and unequal:
            raise UserError(
                "CoaT: the three scales of a parallel block share one feed-forward, so dims "
                f"{self.dims[1:]} and ratios {self.ratios[1:]} must each be equal; leave parallel "
                "out (CoaT-Lite), or start from coat_tiny, coat_mini or coat_small"
            )


# fmt: off
PLAIN = {  #                      dims                  depths         mlp ratios    parallel
    "coat_lite_tiny":   CoaTConfig((64, 128, 256, 320),  (2, 2, 2, 2),  (8, 8, 4, 4)),
    "coat_lite_mini":   CoaTConfig((64, 128, 320, 512),  (2, 2, 2, 2),  (8, 8, 4, 4)),
    "coat_lite_small":  CoaTConfig((64, 128, 320, 512),  (3, 4, 6, 3),  (8, 8, 4, 4)),
    "coat_lite_medium": CoaTConfig((128, 256, 320, 512), (3, 6, 10, 8), (4, 4, 4, 4)),
    "coat_tiny":        CoaTConfig((152, 152, 152, 152), (2, 2, 2, 2),  (4, 4, 4, 4), 6),
    "coat_mini":        CoaTConfig((152, 216, 216, 216), (2, 2, 2, 2),  (4, 4, 4, 4), 6),
    "coat_small":       CoaTConfig((152, 320, 320, 320), (2, 2, 2, 2),  (4, 4, 4, 4), 6),
}
READINGS = {
    "clustering_{}":    {"reducer": ("cluster",) * 3 + ("all",)},
    "clustering_{}_qf": {"mixer": ("prototype_conv",) * 4},
    "clustering_{}_qs": {"mixer": ("prototype_softmax",) * 4},
    "pooled_{}":        {"reducer": ("pool",) * 3 + ("all",)},
}
# fmt: on
PATCHES = (4, 2, 2, 2)
CONFIGS = PLAIN | {
    reading.format(name): replace(config, **change)  # type: ignore[arg-type]
    for name, config in PLAIN.items()
    if not config.parallel
    for reading, change in READINGS.items()
}


class CoaT(Backbone):
    """Serial stages from fine to coarse, then (CoaT, not Lite) blocks over three scales."""

    tail = ("norms", "aggregate")

    def __init__(self, config: CoaTConfig) -> None:
        super().__init__(config)
        self.channels, self.width = config.dims, config.dims[-1]
        widths = (config.in_chans, *config.dims[:-1])
        choices = choose(places(config), config.mixer, config.reducer)
        self.stages = nn.ModuleList(
            CoaTStage(*row, config.drop_path)
            for row in zip(widths, PATCHES, choices, config.depths, config.ratios, strict=True)
        )
        hidden = config.dims[-1] * config.ratios[-1]
        self.parallel = ParallelBlocks(
            ParallelBlock([c.at(i) for c in choices[1:]], hidden, config.drop_path)
            for i in range(config.parallel)
        )
        read = range(1, 4) if config.parallel else range(3, 4)
        self.norms = nn.ModuleDict({str(i): nn.LayerNorm(config.dims[i], eps=1e-6) for i in read})
        self.aggregate = nn.Conv1d(3, 1, 1) if config.parallel else None
        self.head = classifier(self.width, config.classes)
        self.apply(init_weights)

    def encode(self, x: Tensor, *, maps: bool = True) -> States:
        """Each stage's image tokens as a map; the tokens of stage 4 ``(B, 1 + N, C)``.

        CoaT: the class tokens of the three scales, ``(B, 3, C)``.
        """
        check_image(x, self.in_chans, 32)
        scales: list[tuple[Tensor, Grid]] = []
        for stage in self.stages:
            scales.append(stage(image_map(*scales[-1]) if scales else x))
        if self.parallel:
            scales[1:] = self.parallel(scales[1:], list(self.stages[1:]))
        levels = tuple(image_map(*scale) for scale in scales) if maps else ()
        classes = [tokens[:, :1] for tokens, _ in scales[1:]]
        return States(levels, torch.cat(classes, 1) if self.parallel else scales[-1][0])

    def finish(self, last: Tensor) -> Tensor:
        """Normalised, each scale by its own norm."""
        norms = self.norms.values()
        if self.aggregate is None:
            return self.norms["3"](last)
        return torch.cat([norm(last[:, i : i + 1]) for i, norm in enumerate(norms)], 1)

    def prune_to(self, levels: int) -> None:
        """Drop later stages; parallel blocks, behind all maps but the first, need all of them."""
        if levels == 1:
            del self.parallel[:]
        if not self.parallel:
            self.stages = self.stages[:levels]

    def pool(self, x: Tensor) -> Tensor:
        """The class token of stage 4, or the learned mix of three: ``(B, C)``."""
        return x[:, 0] if self.aggregate is None else self.aggregate(x).squeeze(1)

    def cam_layers(self) -> list[CamLayer]:
        """What the last mixer is given; with parallel blocks, at each of their three scales."""
        if not self.parallel:
            return last_mixer(self)
        last = f"parallel.{len(self.parallel) - 1}.scales"
        return [CamLayer(f"{last}.{i}.mixer", "tokens", "input") for i in range(3)]

    def read_fields(self, fields: Fields, calls: Sequence[Any]) -> Tensor | None:
        """With parallel blocks: the class tokens of three scales, as the head mixes them."""
        if self.aggregate is None or not fields.scales:
            return None
        shares = self.aggregate.weight.flatten().abs()
        firsts = torch.stack([scale.tokens[:, 0, 0] for scale in fields.scales], 1)
        return firsts @ (shares / shares.sum())

    def no_weight_decay(self) -> set[str]:
        """Class tokens."""
        return {f"stages.{i}.cls" for i in range(4)}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stage 1's embedding, then each block by stage, then the parallel blocks."""
        return {
            "stem": r"^stages\.0\.(?:embed|cls|cpe|shared)",
            "blocks": [
                (r"^stages\.(\d+)\.(?:embed|cls|cpe|shared)", (0,)),
                (r"^stages\.(\d+)\.blocks\.(\d+)", None),
                (r"^parallel\.(\d+)", (10,)),
                (r"^norms|^aggregate", (99999,)),
            ],
        }


def image_map(x: Tensor, grid: Grid) -> Tensor:
    """``(B, 1 + H*W, C)`` -> ``(B, C, H, W)``, without the class token."""
    return to_map(x[:, 1:], grid)


def places(config: CoaTConfig) -> list[Place]:
    """Where each stage's mixers and reducers stand: strides 4, 8, 16, 32, one class token."""
    height, width = image_hw(config.image)
    return [
        Place(
            dim=dim,
            heads=config.heads,
            grid=(max(1, height // stride), max(1, width // stride)),
            extra=1,
            name=f"coat's stage {i + 1}",
        )
        for i, (dim, stride) in enumerate(zip(config.dims, Backbone.strides, strict=True))
    ]


class CoaTStage(nn.Module):
    """Patch embedding, a class token, and the serial blocks, which share CPE and CRPE."""

    def __init__(
        self, width: int, patch: int, choice: Choice, depth: int, ratio: int, drop_path: float
    ) -> None:
        super().__init__()
        dim = choice.place.dim
        self.embed = PatchEmbed(width, dim, patch)
        self.cls = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, dim), std=0.02))
        self.cpe = ConvPosition(dim)
        self.shared = choice.build_shared()
        self.blocks = choice.plain_blocks(dim * ratio, [drop_path] * depth)

    def forward(self, x: Tensor) -> tuple[Tensor, Grid]:
        """``(B, width, H, W)`` -> tokens ``(B, 1 + N, dim)`` and their grid."""
        x, grid = self.embed(x)
        x = torch.cat((self.cls.expand(x.shape[0], -1, -1), x), 1)
        return self.blocks(x, grid, local=self.cpe, shared=self.shared), grid


class PatchEmbed(nn.Module):
    """Non-overlapping convolution, then layer norm; the last ragged rows fall away."""

    def __init__(self, width: int, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(width, dim, patch, patch)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Grid]:
        """``(B, width, H, W)`` -> tokens ``(B, N, dim)`` and their grid."""
        x = self.proj(x.contiguous(memory_format=torch.channels_last))
        return self.norm(to_tokens(x)), grid_of(x)


class Scale(nn.Module):
    """One scale's own part of a parallel block."""

    def __init__(self, choice: Choice) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(choice.place.dim, eps=1e-6)
        self.mixer = choice.mixer.build(choice.place)
        self.norm2 = nn.LayerNorm(choice.place.dim, eps=1e-6)

    def forward(self, x: Tensor, grid: Grid, shared: nn.Module | None) -> Tensor:
        """The attention branch, ``(B, 1 + N, C)``."""
        return self.mixer(self.norm1(x), grid, shared)


class ParallelBlock(nn.Module):
    """Three scales attend by themselves, are resized and added, and share one feed-forward."""

    def __init__(self, choices: list[Choice], hidden: int, drop_path: float) -> None:
        super().__init__()
        self.scales = nn.ModuleList(Scale(choice) for choice in choices)
        self.mlp = Mlp(choices[0].place.dim, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, tokens: Sequence[Tensor], grids: Sequence[Grid], stages: Sequence[Any]
    ) -> list[Tensor]:
        """Three times ``(B, 1 + N_i, C)`` -> the same; CPE and CRPE are the serial stages'."""
        xs = [stage.cpe(x, grid) for stage, x, grid in zip(stages, tokens, grids, strict=True)]
        rows = zip(self.scales, xs, grids, stages, strict=True)
        attended = [scale(x, grid, stage.shared) for scale, x, grid, stage in rows]
        out = []
        for i, (scale, x) in enumerate(zip(self.scales, xs, strict=True)):
            x = x + self.drop_path(add_scales(attended, grids, i))
            out.append(x + self.drop_path(self.mlp(scale.norm2(x))))  # type: ignore[operator]
        return out

    def propagate(self, fields: Fields, call: Any, steps: Sequence[Any]) -> None:
        """A rollout's fields: three scales, resized and blended by the lengths of their answers."""
        if not fields.scales:
            fields.scales = [fields.tap(fields.last_of(f"stages.{i}")) for i in (1, 2, 3)]
        fields.entering[call.name] = fields.scales
        moved = [fields.operators(s)(f.tokens) for s, f in zip(steps, fields.scales, strict=True)]
        after = []
        for state, step in zip(fields.scales, steps, strict=True):
            answers = [resize_or_keep(s.output, s.grid, step.grid) for s in steps]
            lengths = torch.stack([a.norm(dim=2, keepdim=True) for a in answers])
            parts = lengths / lengths.sum(0).clamp(min=1e-12)
            resized = torch.stack(
                [resize_or_keep(f, s.grid, step.grid) for f, s in zip(moved, steps, strict=True)]
            )
            if fields.share is None:
                mixed = state.tokens + resized.sum(0)
            else:
                share = fields.share(step)
                mixed = state.tokens - share * state.tokens + share * (parts * resized).sum(0)
            after.append(State(mixed, step.grid))
        fields.scales = after


class ParallelBlocks(BlockList):
    """Blocks over three scales, one after the other."""

    def forward(
        self, scales: Sequence[tuple[Tensor, Grid]], stages: Sequence[CoaTStage]
    ) -> list[tuple[Tensor, Grid]]:
        """Tokens and grid of each scale -> the same."""
        tokens, grids = zip(*scales, strict=True)
        for block in self:
            fine, middle, coarse = self.run(block, tokens, grids, stages)
            tokens = fine, middle, coarse  # unpacked by number, as torch.fx must know it
        return list(zip(tokens, grids, strict=True))


def add_scales(attended: Sequence[Tensor], grids: Sequence[Grid], i: int) -> Tensor:
    """The tokens of scale ``i``, and those of the others resized to its grid."""
    others = [j for j in range(len(attended)) if j != i]
    return sum((resize(attended[j], grids[j], grids[i]) for j in others), attended[i])


def resize_or_keep(x: Tensor, old: Grid, new: Grid) -> Tensor:
    """:func:`resize`; the same grid returns the same tokens."""
    return x if old == new else resize(x, old, new)


def resize(x: Tensor, old: Grid, new: Grid) -> Tensor:
    """Bilinear resize of image tokens to another grid; the class token passes as it is."""
    image = F.interpolate(to_map(x[:, 1:], old), size=new, mode="bilinear", align_corners=False)
    return torch.cat((x[:, :1], to_tokens(image)), 1)


TIMM = {  # ours -> timm's, which has weights for it (equal outputs: ``tests/parity``)
    "coat_lite_tiny": "coat_lite_tiny",
    "coat_lite_mini": "coat_lite_mini",
    "coat_lite_small": "coat_lite_small",
    "coat_lite_medium": "coat_lite_medium",
    "coat_tiny": "coat_tiny",
    "coat_mini": "coat_mini",
    "coat_small": "coat_small",
}
SHARED: dict[str, str] = {
    "patch_embed": "embed",
    "cls_token": "cls",
    "cpe": "cpe",
    "crpe": "shared",
}
RENAMES = (  # official and timm's name -> ours; several names of one tensor meet in one of ours
    (r"^(patch_embed|cls_token|cpe|crpe)(\d)", lambda m: f"stages.{int(m[2]) - 1}.{SHARED[m[1]]}"),
    (r"^serial_blocks(\d)\.\d+\.cpe", lambda m: f"stages.{int(m[1]) - 1}.cpe"),
    (r"^serial_blocks(\d)\.\d+\.factoratt_crpe\.crpe", lambda m: f"stages.{int(m[1]) - 1}.shared"),
    (r"^parallel_blocks\.\d+\.cpes\.(\d)", lambda m: f"stages.{int(m[1]) + 1}.cpe"),
    (
        r"^parallel_blocks\.\d+\.factoratt_crpe(\d)\.crpe",
        lambda m: f"stages.{int(m[1]) - 1}.shared",
    ),
    (r"^serial_blocks(\d)", lambda m: f"stages.{int(m[1]) - 1}.blocks"),
    (r"^parallel_blocks\.(\d+)\.mlp[234]", r"parallel.\1.mlp"),
    (
        r"^parallel_blocks\.(\d+)\.(norm[12]|factoratt_crpe)([234])",
        lambda m: f"parallel.{m[1]}.scales.{int(m[3]) - 2}.{m[2]}",
    ),
    (r"factoratt_crpe\.", "mixer."),
    (r"^norm(\d)", lambda m: f"norms.{int(m[1]) - 1}"),
)
UNUSED = r"^norms\.[0-2]\."
"""Norms the official models carry and never call (all of them in CoaT-Lite, norm1 in CoaT)."""
