"""The activations a class activation map is made of, as each model names them.

Behind a class token's last attention the places get no gradient; a map of few cells shows little;
and tokens, maps and channels-last maps look alike to code that does not know the model. So each
model names its layers by a method ``cam_layers()``: models with a class token what the last mixer
is given, models that pool the output of their last block or stage, pyramids that end in few cells
the maps at strides 8, 16 and 32. For timm's models see :func:`timm_layers`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from vitrail.attribution.preserve import ExplainError
from vitrail.layers.grid import Grid
from vitrail.models.reading import DEEP, CamLayer

__all__ = ["CamLayer", "layers_of", "tokens_to_map"]


def layers_of(model: nn.Module, asked: Sequence[str | CamLayer] | None = None) -> list[CamLayer]:
    """The activations to read: those asked for, or the model's own.

    A name stands for the output of that module, a map ``(B, C, H, W)``.

    Raises:
        ExplainError: an unknown module, or a model without ``cam_layers``.
    """
    if asked is None:
        own = getattr(model, "cam_layers", None)
        return list(own()) if callable(own) else foreign_layers(model)
    known = dict(model.named_modules())
    layers = [CamLayer(each, "nchw") if isinstance(each, str) else each for each in asked]
    for layer in layers:
        if layer.name not in known:
            raise ExplainError(f"the model has no module {layer.name!r}; see named_modules()")
    return layers


def foreign_layers(model: nn.Module) -> list[CamLayer]:
    """For models without a method ``cam_layers``.

    Raises:
        ExplainError: the model is not one of timm's either.
    """
    if hasattr(model, "pretrained_cfg"):
        return timm_layers(model)
    raise ExplainError(
        f"which layer of {type(model).__name__} to read is for you to say: layers=['layer4'] for "
        "a map (B, C, H, W), or a vitrail.attribution.CamLayer"
    )


def timm_layers(model: Any) -> list[CamLayer]:
    """For timm's own models.

    Plain ViTs: the norm before the last attention; CoaT likewise, by scale. Any other: the
    module that its ``feature_info`` names last, a map whose channels lie where they are announced.

    Raises:
        ExplainError: a model without ``feature_info``.
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
