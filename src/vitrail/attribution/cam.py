"""Class activation maps: activations of one layer, weighed by what the score makes of them.

With activations ``A`` ``(C, h, w)`` and gradients ``g = dy/dA``:

=========== ============================================== ====================================
Grad-CAM    ``relu(sum_c mean_ij(g_c) A_c)``               Selvaraju et al., ICCV 2017
HiResCAM    ``relu(sum_c g_c * A_c)``                      Draelos and Carin, arXiv 2011.08891
LayerCAM    ``relu(sum_c relu(g_c) * A_c)``                Jiang et al., TIP 2021
=========== ============================================== ====================================

The arithmetic is trivial; what goes wrong in practice is the layer and its layout, for which see
:mod:`vitrail.attribution.cam_layers`. Where a reducer let few tokens work in that layer, their
values are carried back by its plan: a resting token has none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.attribution.base import Case, LayerRecord, MethodResult, Need, method
from vitrail.attribution.cam_layers import CamLayer, layers_of, tokens_to_map
from vitrail.attribution.preserve import ExplainError
from vitrail.attribution.record import ModuleCall, recording
from vitrail.attribution.scale import resize
from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.mixers import Mixer

Weighting = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Activation:
    """One layer's activation.

    Attributes:
        name: the layer's.
        tensor: in the model's own layout, part of the graph.
        layout: of the tensor.
        grid: ``(h, w)`` of its places.
        plan: which tokens of the grid those in the tensor stand for; None for all.
    """

    name: str
    tensor: Tensor
    layout: str
    grid: Grid
    plan: Plan | None = None

    def channels_first(self, x: Tensor) -> Tensor:
        """Channels first, places behind: ``(B, C, h, w)``, or ``(B, C, K)`` of working tokens."""
        if self.layout == "nhwc":
            return x.movedim(3, 1)
        if self.layout == "nchw":
            return x
        return (
            x.mT[:, :, self.plan.extra :] if self.plan else tokens_to_map(x, self.grid, self.name)
        )

    def on_grid(self, cam: Tensor) -> Tensor:
        """One number a place ``(B, h, w)``, also where few tokens work ``(B, K)``."""
        if self.plan is None:
            return cam
        return self.plan.restore_grid(cam.unsqueeze(2)).squeeze(2).unflatten(1, self.grid)


def read_activation(layer: CamLayer, calls: Sequence[ModuleCall], size: Grid) -> Activation:
    """Find a layer's activation among the calls of a forward pass.

    Raises:
        ExplainError: the layer was not called, or holds something else than it should.
    """
    called = [call for call in calls if call.name == layer.name]
    if not called:
        raise ExplainError(f"{layer.name} took no part in the forward pass; choose another layer")
    call = called[-1]
    tensor = call.args[0] if layer.side == "input" else call.output
    dims = 3 if layer.layout == "tokens" else 4
    if not isinstance(tensor, Tensor) or tensor.dim() != dims:
        said = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        raise ExplainError(
            f"{layer.name} gives {said}, not {layer.layout}; give a CamLayer with its layout"
        )
    if dims == 4:
        height, width = tensor.shape[2:] if layer.layout == "nchw" else tensor.shape[1:3]
        return Activation(layer.name, tensor, layer.layout, (height, width))
    if layer.grid is not None:
        return Activation(layer.name, tensor, "tokens", layer.grid(size))
    plan = call.args[3] if isinstance(call.module, Mixer) and len(call.args) > 3 else None
    grid = call.args[1] if len(call.args) > 1 else None
    if not isinstance(grid, tuple):
        raise ExplainError(f"{layer.name} is not given its grid; give the CamLayer one")
    return Activation(layer.name, tensor, "tokens", grid, plan)


def gradients(case: Case, readings: Sequence[Activation], score: Tensor) -> list[Tensor]:
    """The score's gradient at each activation, in its own layout.

    Raises:
        ExplainError: a gradient that is zero everywhere: the map would be empty.
    """
    found = torch.autograd.grad(
        score.sum(), [r.tensor for r in readings], materialize_grads=True, retain_graph=True
    )
    for reading, gradient in zip(readings, found, strict=True):
        places = reading.channels_first(gradient).flatten(1)
        if not places.any(1).all():
            raise ExplainError(
                f"the gradient at {reading.name} is zero everywhere: the score does not read "
                "these places; take an earlier layer (before the last attention, not behind it)"
            )
    return list(found)


def cam_maps(
    case: Case, layers: Sequence[str | CamLayer] | None, weigh: Weighting
) -> dict[str, Tensor]:
    """The signed map of each layer ``(B, h, w)``, by name."""
    assert isinstance(case.model, nn.Module)
    wanted = layers_of(case.model, layers)
    modules = dict(case.model.named_modules())
    with recording(case.model, {layer.name: modules[layer.name] for layer in wanted}) as calls:
        score = case.goal(case.model(case.images.requires_grad_()))
    readings = [read_activation(layer, calls, case.size) for layer in wanted]
    slopes = gradients(case, readings, score)
    return {
        r.name: weighted_map(r, slope, weigh) for r, slope in zip(readings, slopes, strict=True)
    }


def weighted_map(reading: Activation, slope: Tensor, weigh: Weighting) -> Tensor:
    """One layer's map ``(B, h, w)`` from its activation and gradient."""
    activations, slopes = (
        reading.channels_first(reading.tensor.detach()),
        reading.channels_first(slope),
    )
    return reading.on_grid(weigh(activations, slopes))


def weight_by_mean_gradient(activations: Tensor, slopes: Tensor) -> Tensor:
    """Each channel weighed by its mean gradient."""
    weights = slopes.flatten(2).mean(2).reshape(*slopes.shape[:2], *[1] * (slopes.dim() - 2))
    return (weights * activations).sum(1)


def weight_by_gradient(activations: Tensor, slopes: Tensor) -> Tensor:
    """Each activation weighed by its own gradient."""
    return (slopes * activations).sum(1)


def weight_by_positive_gradient(activations: Tensor, slopes: Tensor) -> Tensor:
    """Each activation weighed by its own gradient, where that is positive."""
    return (slopes.clamp(min=0) * activations).sum(1)


def fuse_layers(
    maps: dict[str, Tensor], positive: bool, fuse: Callable[..., Tensor]
) -> MethodResult:
    """Fuse the layers' maps on the finest of their grids, in order of the forward pass."""
    shown = {name: m.clamp(min=0) if positive else m for name, m in maps.items()}
    sizes = [(m.shape[1], m.shape[2]) for m in shown.values()]
    finest = max(sizes, key=lambda size: size[0] * size[1])
    return MethodResult(
        native=fuse([resize(m, finest) for m in shown.values()]),
        layers={
            name: LayerRecord("cam", size, {"map": m})
            for (name, m), size in zip(shown.items(), sizes, strict=True)
        },
        signed=not positive,
    )


def fuse_by_mean(maps: list[Tensor]) -> Tensor:
    """The mean of several layers' maps."""
    return torch.stack(maps).mean(0)


def fuse_by_max(maps: list[Tensor]) -> Tensor:
    """The maximum, each first scaled by ``tanh(2 m / max m)`` (LayerCAM); one map is left alone."""
    if len(maps) == 1:
        return maps[0]
    tops = [m.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(m.dtype).tiny) for m in maps]
    scaled = torch.stack([torch.tanh(2 * m / top) for m, top in zip(maps, tops, strict=True)])
    return scaled.gather(0, scaled.abs().argmax(0, keepdim=True))[0]


CAM = {Need.GRADIENT, Need.LAYERS}


@method("gradcam", class_specific=True, needs=CAM)
def gradcam(
    case: Case, *, layers: Sequence[str | CamLayer] | None = None, positive: bool = True
) -> MethodResult:
    """Channels of one layer, weighed by their mean gradient (Grad-CAM)."""
    return fuse_layers(cam_maps(case, layers, weight_by_mean_gradient), positive, fuse_by_mean)


@method("hirescam", class_specific=True, needs=CAM)
def hirescam(
    case: Case, *, layers: Sequence[str | CamLayer] | None = None, positive: bool = True
) -> MethodResult:
    """Activations times their own gradient (HiResCAM): what a linear head adds up."""
    return fuse_layers(cam_maps(case, layers, weight_by_gradient), positive, fuse_by_mean)


@method("layercam", class_specific=True, needs=CAM)
def layercam(
    case: Case, *, layers: Sequence[str | CamLayer] | None = None, positive: bool = True
) -> MethodResult:
    """Activations times their own positive gradient (LayerCAM); layers fused by maximum."""
    return fuse_layers(cam_maps(case, layers, weight_by_positive_gradient), positive, fuse_by_max)
