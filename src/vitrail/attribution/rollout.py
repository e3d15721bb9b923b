"""Attention as an explanation: of one layer, rolled out over all, and weighed by its gradient.

Attention shows where a step looked, not why the model answered as it did: two of these methods
give the same map for every target. :mod:`vitrail.attribution.propagate` takes a distribution back
through the layers, :mod:`vitrail.attribution.mixing` says how one step mixes tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.attribution.base import Case, LayerRecord, MethodResult, Need, method
from vitrail.attribution.cam import (
    Activation,
    gradients,
    read_activation,
    weight_by_gradient,
    weighted_map,
)
from vitrail.attribution.cam_layers import layers_of
from vitrail.attribution.mixing import gradient_operator, operator
from vitrail.attribution.preserve import ExplainError
from vitrail.attribution.propagate import SHARES, Propagation, masses_by_layer
from vitrail.attribution.record import (
    MixerCall,
    ModuleCall,
    mixer_calls,
    parts_of,
    projection,
    recording,
)
from vitrail.models.reading import State, mixers_of

RECORD = {Need.LAYERS, Need.RECORD}


@method("attention", class_specific=False, needs=RECORD)
def attention(case: Case, *, layer: int | str = -1) -> MethodResult:
    """Where one layer looked: what the class token, or else the mean token, attends to there.

    ``layer`` counts mixers, or names one. All layers are in ``layers``.
    """
    assert isinstance(case.model, nn.Module)
    with torch.no_grad(), recording(case.model, parts_of(case.model)) as calls:
        case.model(case.images)
    steps = {step.name: step for step in mixer_calls(calls)}
    name = layer if isinstance(layer, str) else _nth(list(steps), layer)
    if name not in steps:
        raise ExplainError(f"no mixer {name!r}; there are {', '.join(steps)}")
    maps = {n: attention_map(step, len(case.images)) for n, step in steps.items()}
    layers = {
        n: LayerRecord("attention", (m.shape[1], m.shape[2]), {"map": m}) for n, m in maps.items()
    }
    return MethodResult(native=maps[name], layers=layers)


def _nth(names: list[str], index: int) -> str:
    if not -len(names) <= index < len(names):
        raise ExplainError(f"layer={index}: the model has {len(names)} mixers")
    return names[index]


def attention_map(step: MixerCall, images: int) -> Tensor:
    """What the readers of one step attend to, on its full grid ``(B, H, W)``."""
    grid, extra = step.full_grid, step.extra
    whole = step.plan if step.block_plan is None else step.block_plan
    grid = grid if whole is None else whole.grid
    f = step.tokens.new_ones(len(step.tokens), extra + grid[0] * grid[1], 1).requires_grad_()
    answered = operator(step)(f if whole is None else whole.reduce(f))
    readers = answered[:, :extra] if extra else answered
    (found,) = torch.autograd.grad(readers.mean((1, 2)).sum(), f)
    found = found[:, extra:, 0].unflatten(1, grid)
    return found.unflatten(0, (images, -1)).mean(1)  # MobileViT: four sequences an image


@method("rollout", class_specific=False, needs=RECORD)
def rollout(case: Case, *, residual: str = "half") -> MethodResult:
    """What the head reads, propagated back through attention and residuals to the first grid.

    ``residual``: the branch counts ``"half"`` as published, or by its share of lengths
    (``"norm"``). ``check`` tells how far any layer's mass is from one.
    """
    assert isinstance(case.model, nn.Module)
    if residual not in SHARES:
        raise ExplainError(f"residual={residual!r}: it is {' or '.join(map(repr, SHARES))}")
    with torch.no_grad(), recording(case.model, parts_of(case.model)) as calls:
        case.model(case.images)
    fields = Propagation(operators=operator, share=SHARES[residual])
    fields.run(mixer_calls(calls))
    found = masses_by_layer(fields, readout(case.model, fields, calls))
    totals = torch.stack([sum(m.sum(1) for m in many) for many in found.values()])  # type: ignore[misc]
    return _result(fields, found, {"mass_error": (totals - 1).abs().amax(0)})


@method("grad_rollout", class_specific=True, needs=RECORD | {Need.GRADIENT})
def grad_rollout(case: Case) -> MethodResult:
    """Rollout of attention weighed by the score's gradient (Chefer et al., ICCV 2021).

    From the class token, or where a model pools, from the positive part of HiResCAM at its last
    layer. CoaT's matrix is implied: formed for its weights only, and signed.
    """
    assert isinstance(case.model, nn.Module)
    model, parts = case.model, parts_of(case.model)
    modules, mixers = dict(model.named_modules()), mixers_of(model)
    behind = {f"{name}.heads": projection(mixer) for name, mixer in mixers.items()}
    parts |= {name: linear for name, linear in behind.items() if linear is not None}
    parts |= {layer.name: modules[layer.name] for layer in layers_of(model)}
    with recording(model, parts) as calls:
        score = case.goal(model(case.images.requires_grad_()))
    joined = {c.name: c.output for c in calls if c.name in mixers}
    joined |= {c.name.removesuffix(".heads"): c.args[0] for c in calls if c.name in behind}
    tops = [read_activation(layer, calls, case.size) for layer in layers_of(model)]
    slopes = torch.autograd.grad(
        score.sum(), list(joined.values()), retain_graph=True, materialize_grads=True
    )
    grads = dict(zip(joined, slopes, strict=True))
    fields = Propagation(
        operators=lambda step: gradient_operator(
            step, grads[step.name], joined[step.name].detach()
        ),
        share=None,
    )
    fields.run([_detach(step) for step in mixer_calls(calls)])
    pooled = partial(positive_evidence, case, tops[-1:], score)
    found = masses_by_layer(fields, readout(model, fields, calls, pooled))
    return _result(fields, found, {})


def _detach(step: MixerCall) -> MixerCall:
    """The step without its graph."""
    return replace(
        step,
        tokens=step.tokens.detach(),
        output=step.output.detach(),
        stream=step.stream.detach(),
    )


def positive_evidence(
    case: Case, tops: Sequence[Activation], score: Tensor, state: State
) -> Tensor:
    """``(B, H*W)``: HiResCAM's positive part at the last layer, on the grid of a state."""
    slopes = gradients(case, tops, score)
    maps = weighted_map(tops[0], slopes[0], weight_by_gradient).clamp(min=0)
    return F.adaptive_avg_pool2d(maps.unsqueeze(1), state.grid).flatten(1)


def _result(
    fields: Propagation, found: dict[str, list[Tensor]], check: dict[str, Tensor]
) -> MethodResult:
    layers = {}
    for name, many in found.items():
        states = fields.entering[name]
        maps = {
            f"map{i or ''}": mass[:, state.extra :].unflatten(1, state.grid)
            for i, (mass, state) in enumerate(zip(many[:-1], states, strict=True))
        }
        first = torch.cat([m[:, : s.extra] for m, s in zip(many[:-1], states, strict=True)], 1)
        layers[name] = LayerRecord(
            "attention", states[0].grid, {**maps, "class": first, "aside": many[-1]}
        )
    native = next(iter(layers.values())).tensors["map"]
    return MethodResult(native=native, layers=layers, check=check)


def readout(
    model: nn.Module,
    fields: Propagation,
    calls: Sequence[ModuleCall],
    pooled: Callable[[State], Tensor] | None = None,
) -> Tensor:
    """What the head reads of the last fields, ``(B,)``: r_L as a weighted sum.

    As the model says by ``read_fields``; else a class token, or the mean of several; all places
    alike, or by ``pooled``.
    """
    state, own = fields.state, getattr(model, "read_fields", None)
    assert state is not None
    if own is not None and (pooled is None or state.extra or fields.scales):
        found: Tensor | None = own(fields, calls)
        if found is not None:
            return found
    if state.extra:
        return state.tokens[:, : state.extra].mean((1, 2))
    places = state.tokens[:, :, 0]
    if pooled is not None:
        return (places * pooled(state)).sum(1)
    return places.mean(1)
