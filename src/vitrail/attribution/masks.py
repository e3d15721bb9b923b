"""Which tokens worked: places that filters chose, clusters that shared a token, random draws.

These masks are the same for every target: they say where attention was spent, not why the model
answered. FilterViT's authors show such masks; on their own sample picture the mask avoids the
bird and favours the borders. So scores come beside pictures (:mod:`vitrail.explain`), and
``check`` tells the share of chosen places on the border, with what chance would put there.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vitrail.attribution.base import Case, LayerKind, LayerRecord, MethodResult, Need, method
from vitrail.attribution.centres import centres, map_to_image
from vitrail.attribution.preserve import ExplainError
from vitrail.attribution.record import ModuleCall, recording
from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.mixers.clustered import ClusteredAttention, ImprovedClusteredAttention
from vitrail.mixers.prototype import PrototypeAttention
from vitrail.models.reading import mixers_of
from vitrail.reducers import Reducer
from vitrail.tokens.plans import Clusters, SoftAssignment
from vitrail.tokens.selection import Selection

RECORD = {Need.LAYERS, Need.RECORD}
CLUSTERING = (PrototypeAttention, ClusteredAttention, ImprovedClusteredAttention)
"""Mixers whose queries cluster, head by head."""


@method("filter_mask", class_specific=False, needs=RECORD)
def filter_mask(case: Case) -> MethodResult:
    """Which places each filter (or draw) lets work, and the mean over layers; chance is 1."""
    model, calls = _run(case, lambda m: isinstance(m, Reducer) or chooses_places(m))
    layers = dict(_selections(calls, len(case.images)))
    if not layers:
        raise _nothing(model, "chooses places", "filtervit_*, dropoutvit_* or reducer='filter'")
    maps = torch.stack([_map_to_image(model, layer, case.size) for layer in layers.values()])
    rings = torch.stack([_on_border(layer) for layer in layers.values()])
    chance = torch.tensor([_border_share(layer.grid) for layer in layers.values()])
    check = {"border": rings.mean(0), "border_by_chance": chance.mean().expand(len(case.images))}
    return MethodResult(native=_finest_mask(layers), map=maps.mean(0), layers=layers, check=check)


@method("dropout_frequency", class_specific=False, needs=RECORD, random=True)
def dropout_frequency(case: Case, *, draws: int = 64) -> MethodResult:
    """How often chance lets each place work when it draws; 1 everywhere with enough draws."""
    if draws < 1:
        raise ExplainError(f"draws={draws}: draw at least once")
    assert isinstance(case.model, nn.Module)
    torch.manual_seed(case.seed)
    totals: dict[str, LayerRecord] = {}
    with _drawing(case.model):
        for _ in range(draws):
            _, calls = _run(case, draws_places)
            for name, layer in _selections(calls, len(case.images)):
                before = totals[name].tensors["mask"] if name in totals else 0
                drawn = layer.tensors["mask"].float() / draws + before
                totals[name] = LayerRecord("random", layer.grid, {"mask": drawn})
    if not totals:
        raise _nothing(case.model, "draws places", "dropoutvit_* or reducer='random'")
    maps = torch.stack([_map_to_image(case.model, layer, case.size) for layer in totals.values()])
    return MethodResult(native=_finest_mask(totals), map=maps.mean(0), layers=totals)


@method("cluster_map", class_specific=False, needs=RECORD)
def cluster_map(case: Case) -> MethodResult:
    """Which tokens share a working token, and how finely each place is seen; the mean is 1."""
    model, calls = _run(case, lambda m: isinstance(m, (Reducer, *CLUSTERING)))
    layers = dict(_clusterings(calls, len(case.images)))
    if not layers:
        raise _nothing(
            model,
            "clusters tokens",
            "clustering_coat_lite_* or a reducer that clusters, such as 'cluster'",
        )
    maps = []
    for layer in layers.values():
        fine = layer.tensors["fineness"]
        assert layer.grid is not None
        where = centres(model, layer.grid, case.size)
        maps.append(map_to_image(fine, where, case.size, smooth=False))
    native = max((layer.tensors["fineness"] for layer in layers.values()), key=Tensor.numel)
    return MethodResult(native=native, map=torch.stack(maps).mean(0), layers=layers)


def chooses_places(module: nn.Module) -> bool:
    """Whether a block lets only some places work, without a reducer (or a reducer draws them)."""
    return hasattr(module, "draws_places")


def draws_places(module: nn.Module) -> bool:
    """Whether a block's or reducer's places are drawn at random in training."""
    return getattr(module, "draws_places", False) is True


def _run(case: Case, serves: Callable[[nn.Module], bool]) -> tuple[nn.Module, list[ModuleCall]]:
    """One pass, recording the modules that ``serves`` accepts and the mixers inside them."""
    model = case.model
    assert isinstance(model, nn.Module)
    mixers, parts = mixers_of(model), dict[str, nn.Module]()
    for name, module in model.named_modules():
        inside = name in mixers and any(name.startswith(f"{outer}.") for outer in parts)
        if serves(module) or inside:
            parts[name] = module
    with torch.no_grad(), recording(model, parts) as calls:
        model(case.images)
    return model, calls


def _nothing(model: nn.Module, what: str, models: str) -> ExplainError:
    return ExplainError(f"nothing in {type(model).__name__} {what}; this is for {models}")


def _selections(calls: Sequence[ModuleCall], images: int) -> Iterator[tuple[str, LayerRecord]]:
    """The selecting layers, in order: reducers, and blocks that choose places themselves."""
    for i, call in enumerate(calls):
        if isinstance(call.output, tuple) and isinstance(call.output[1], Selection):
            yield call.name, _selection(call.output[1], images)
        elif chooses_places(call.module):
            inside = next(c for c in calls[:i] if c.name.startswith(f"{call.name}."))
            layer = _selection(inside.args[3], images)
            if explain := getattr(call.module, "explain_selection", None):
                mask = {"mask": layer.tensors["mask"].bool()}
                parts = {**layer.tensors, **mask, **explain(call.args[0])}
                layer = LayerRecord("filter", layer.grid, parts)
            yield call.name, layer


def _selection(plan: Selection, images: int) -> LayerRecord:
    """A selecting plan as a record; of the four sequences of a MobileViT image, their mean."""
    tokens = plan.grid[0] * plan.grid[1]
    mask = torch.zeros(len(plan.index), tokens, device=plan.index.device)
    mask = mask.scatter(1, plan.index, 1.0).unflatten(1, plan.grid)
    parts = {"mask": mask.unflatten(0, (images, -1)).mean(1), "indices": plan.index}
    kind: LayerKind = "random" if plan.score is None else "filter"
    if plan.score is not None:
        score = plan.score.unflatten(1, plan.grid)
        parts["score"] = score.unflatten(0, (images, -1)).mean(1)
    return LayerRecord(kind, plan.grid, parts)


def _map_to_image(model: nn.Module, layer: LayerRecord, size: Grid) -> Tensor:
    """A mask on the picture, divided by the share of places it lets work: chance is 1."""
    assert layer.grid is not None
    mask = layer.tensors["mask"].float()
    share = mask.mean((1, 2), keepdim=True)
    return map_to_image(mask / share, centres(model, layer.grid, size), size, smooth=False)


def _finest_mask(layers: dict[str, LayerRecord]) -> Tensor:
    """The mask of the finest grid."""
    return max((layer.tensors["mask"].float() for layer in layers.values()), key=Tensor.numel)


def _on_border(layer: LayerRecord) -> Tensor:
    """``(B,)``: the share of chosen places on the outermost ring of cells."""
    mask = layer.tensors["mask"].float()
    inner = mask[:, 1:-1, 1:-1].sum((1, 2))
    return 1 - inner / mask.sum((1, 2))


def _border_share(grid: Grid | None) -> float:
    """The share of a grid's places that lie on its outermost ring."""
    assert grid is not None
    return 1 - max(grid[0] - 2, 0) * max(grid[1] - 2, 0) / (grid[0] * grid[1])


@contextmanager
def _drawing(model: nn.Module) -> Iterator[None]:
    """What chooses places by chance draws, as in training; all else stays in evaluation."""
    drawing = [module for module in model.modules() if draws_places(module)]
    try:
        for module in drawing:
            module.training = True
        yield
    finally:
        for module in drawing:
            module.training = False


def _clusterings(calls: Sequence[ModuleCall], images: int) -> Iterator[tuple[str, LayerRecord]]:
    """The clustering layers, in order: reducers (of soft shares, the largest), and mixers."""
    for call in calls:
        if isinstance(call.module, CLUSTERING):
            parts = call.module.explain(*call.args)
            labels, grid = parts["clusters"], call.args[1]
            yield call.name, _clustering(labels, grid, int(labels.amax()) + 1, {})
        elif isinstance(call.output, tuple) and isinstance(
            call.output[1], Clusters | SoftAssignment
        ):
            plan = call.output[1]
            labels = plan.assignment.unflatten(0, (images, -1))
            spread = _distance_to_mean(call.args[0], plan).unflatten(0, (images, -1)).mean(1)
            apart = {"distance": spread.unflatten(1, plan.grid)}
            clusters = plan.sizes.shape[1] - plan.extra
            yield call.name, _clustering(labels, plan.grid, clusters, apart)


def _clustering(labels: Tensor, grid: Grid, clusters: int, more: dict[str, Tensor]) -> LayerRecord:
    """A record of ``(B, S, N)`` labels, S clusterings an image: heads, or sequences.

    ``fineness`` is how many working tokens a place has, against what it would have if all
    clusters of the image were alike: over the places of an image, the mean is 1.
    """
    sizes = torch.zeros(*labels.shape[:2], clusters, device=labels.device)
    sizes = sizes.scatter_add(2, labels, torch.ones_like(labels, dtype=sizes.dtype))
    used = (sizes > 0).sum(2, keepdim=True)
    fineness = (labels.shape[2] / used) / sizes.gather(2, labels)
    parts = {
        "labels": labels.unflatten(2, grid).squeeze(1),
        "sizes": sizes.squeeze(1),
        "fineness": fineness.mean(1).unflatten(1, grid),
    }
    return LayerRecord("cluster", grid, {**parts, **more})


def _distance_to_mean(x: Tensor, plan: Plan) -> Tensor:
    """``(B, N)``: how far each token lies from the mean of its cluster."""
    return (x - plan.restore(plan.reduce(x)))[:, plan.extra :].norm(dim=2)
