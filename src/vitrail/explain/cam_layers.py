"""Which activations a class activation map is made of, for each model: a table, not a guess.

Behind a class token's last attention, places get no gradient at all; a map of few cells says
little; tokens, maps and channels-last maps look alike to code that does not know. So each model
says where to look. A model of another package says it by a method ``cam_layers()``.

================================ ======================================== =======================
model                            what is read                             layout
================================ ======================================== =======================
ViT, DeiT, CeiT, ConViT, CvT,    what the last block's mixer is given     tokens, class tokens
CoaT-Lite                                                                 dropped
CoaT                             the same of the last parallel block, at  tokens, three scales
                                 scales 2, 3, 4
ViT without class token, CCT     output of the last block                 tokens
CoAtNet, CMT, FilterViT v2       output of the last stage                 maps
MobileViT                        output of the last MobileViT block       maps
FilterViT, DropoutViT            output of the last block at strides 8,   maps
                                 16 and 32
FilterViT v2                     output of stages at strides 8, 16, 32    maps
timm's models                    see :func:`timm_layers`
================================ ======================================== =======================
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Literal

from torch import Tensor, nn

from vitrail.explain.guard import ExplainError
from vitrail.explain.record import mixers_of
from vitrail.layers.grid import Grid
from vitrail.models.cct import CCT
from vitrail.models.ceit import CeiT
from vitrail.models.cmt import CMT
from vitrail.models.coat import CoaT
from vitrail.models.coatnet import CoAtNet
from vitrail.models.convit import ConViT
from vitrail.models.cvt import CvT
from vitrail.models.filtervit import FilterViT
from vitrail.models.filtervit_v2 import FilterViTv2
from vitrail.models.mobilevit import MobileViT
from vitrail.models.vit import ViT

Layout = Literal["tokens", "nchw", "nhwc"]
DEEP = (8, 16, 32)
"""Strides at which a pyramid that ends in few cells is read."""


@dataclass(frozen=True)
class CamLayer:
    """An activation to read.

    Attributes:
        name: path of the module.
        layout: ``"tokens"`` ``(B, E + N, C)``, ``"nchw"`` or ``"nhwc"``.
        side: the module's ``"output"`` or its first ``"input"``.
        grid: ``(H, W)`` of tokens for images of a size; None where the call itself says it (our
            mixers and blocks are told their grid).
    """

    name: str
    layout: Layout
    side: Literal["output", "input"] = "output"
    grid: Callable[[Grid], Grid] | None = None


def layers_of(model: nn.Module, asked: Sequence[str | CamLayer] | None = None) -> list[CamLayer]:
    """The activations to read: those asked for, or the model's own.

    A name stands for the output of that module, a map ``(B, C, H, W)``.

    Raises:
        ExplainError: an unknown module, or a model that nobody has said anything about.
    """
    if asked is None:
        own = getattr(model, "cam_layers", None)
        return list(own()) if callable(own) else cam_layers(model)
    known = dict(model.named_modules())
    layers = [CamLayer(each, "nchw") if isinstance(each, str) else each for each in asked]
    for layer in layers:
        if layer.name not in known:
            raise ExplainError(f"the model has no module {layer.name!r}; see named_modules()")
    return layers


@singledispatch
def cam_layers(model: nn.Module) -> list[CamLayer]:
    """The model's own row of the table.

    Raises:
        ExplainError: it has none.
    """
    if hasattr(model, "pretrained_cfg"):
        return timm_layers(model)
    raise ExplainError(
        f"which layer of {type(model).__name__} to read is for you to say: layers=['layer4'] for "
        "a map (B, C, H, W), or a vitrail.explain.CamLayer"
    )


def last_mixer(model: nn.Module) -> list[CamLayer]:
    """What the last mixer is given: behind it, places no longer reach a class token."""
    return [CamLayer(list(mixers_of(model))[-1], "tokens", "input")]


@cam_layers.register(CeiT)
@cam_layers.register(ConViT)
@cam_layers.register(CvT)
def _(model: nn.Module) -> list[CamLayer]:
    return last_mixer(model)


@cam_layers.register
def _(model: ViT) -> list[CamLayer]:
    return [_last_block(model)] if model.cls is None else last_mixer(model)


@cam_layers.register
def _(model: CCT) -> list[CamLayer]:
    return [_last_block(model)]


def _last_block(model: Any) -> CamLayer:
    """All tokens after the last block; one with a reducer gives working tokens only."""
    last = len(model.blocks) - 1
    name = "blocks" if hasattr(model.blocks[last], "reducer") else f"blocks.{last}"
    return CamLayer(name, "tokens")


@cam_layers.register
def _(model: CoaT) -> list[CamLayer]:
    if not model.parallel:
        return last_mixer(model)
    last = f"parallel.{len(model.parallel) - 1}.scales"
    return [CamLayer(f"{last}.{i}.mixer", "tokens", "input") for i in range(3)]


@cam_layers.register(CoAtNet)
@cam_layers.register(CMT)
def _(model: Any) -> list[CamLayer]:
    return [CamLayer(f"stages.{len(model.stages) - 1}", "nchw")]


@cam_layers.register
def _(model: MobileViT) -> list[CamLayer]:
    last = len(model.stages) - 1
    return [CamLayer(f"stages.{last}.{len(model.stages[last]) - 1}", "nchw")]  # type: ignore[arg-type]


@cam_layers.register
def _(model: FilterViT) -> list[CamLayer]:
    names = [*(f"early.{n}" for n in model.early), *(f"late.{i}" for i in range(len(model.late)))]
    last = dict(zip(model.strides_of_blocks, names, strict=True))
    return [CamLayer(last[stride], "nchw") for stride in DEEP]


@cam_layers.register
def _(model: FilterViTv2) -> list[CamLayer]:
    return [CamLayer(f"stages.{i}", "nchw") for i in (1, 2, 3)]


def timm_layers(model: Any) -> list[CamLayer]:
    """For timm's own models.

    Plain ViTs: the norm before the last attention; CoaT likewise, by scale. Any other: the
    module that its ``feature_info`` names last, a map whose channels lie where they are announced.

    Raises:
        ExplainError: a model whose last features nobody has announced.
    """
    if hasattr(model, "serial_blocks4"):
        return _timm_coat(model)
    patches = getattr(getattr(model, "patch_embed", None), "dynamic_feat_size", None)
    blocks = getattr(model, "blocks", None)
    if patches is not None and blocks is not None and hasattr(blocks[-1], "norm1"):
        name = f"blocks.{len(blocks) - 1}.norm1"
        return [CamLayer(name, "tokens", grid=lambda size: tuple(patches(size)))]
    info = getattr(model, "feature_info", None)
    if not info:
        raise ExplainError(
            f"{type(model).__name__} does not announce its features; say layers=['...'] yourself"
        )
    last = info[-1] if isinstance(info, list) else info.get_dicts()[-1]
    nhwc = getattr(model, "output_fmt", "NCHW") == "NHWC"
    return [CamLayer(last["module"], "nhwc" if nhwc else "nchw")]


def _timm_coat(model: Any) -> list[CamLayer]:
    """The norms before the last attention, at stride 32 or at 8, 16 and 32."""

    def at(stride: int) -> Callable[[Grid], Grid]:
        return lambda size: (size[0] // stride, size[1] // stride)

    if model.parallel_blocks:
        last = f"parallel_blocks.{len(model.parallel_blocks) - 1}"
        strides = zip((2, 3, 4), DEEP, strict=True)
        return [CamLayer(f"{last}.norm1{i}", "tokens", grid=at(stride)) for i, stride in strides]
    last = f"serial_blocks4.{len(model.serial_blocks4) - 1}"
    return [CamLayer(f"{last}.norm1", "tokens", grid=at(32))]


def tokens_to_map(x: Tensor, grid: Grid, name: str) -> Tensor:
    """Drop what stands in front of the grid's tokens, ``(B, E + N, C)`` -> ``(B, C, H, W)``.

    Raises:
        ExplainError: fewer tokens than the grid has places.
    """
    extra = x.shape[1] - grid[0] * grid[1]
    if extra < 0:
        raise ExplainError(
            f"{name} holds {x.shape[1]} tokens, fewer than {grid[0]} x {grid[1]} places; "
            "give the CamLayer its grid"
        )
    return x[:, extra:].mT.unflatten(2, grid)
