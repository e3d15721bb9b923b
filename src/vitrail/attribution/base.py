"""``explain``: one call for every method, and the :class:`Explanation` it returns.

::

    found = explain(model, images, method="gradcam", target=None)     # an Explanation
    found.map                                                          # (B, H, W), raw

A *method* is a function ``run(case, *, option=default, ...) -> MethodResult``, registered by name::

    @method("saliency", class_specific=True, signed=False, needs={Need.GRADIENT})
    def saliency(case: Case) -> MethodResult:
        \"\"\"Largest gradient over the channels.\"\"\"

Write it in a module named in :data:`MODULES`. ``explain`` checks what the method needs, resolves
the target, keeps the model's state (:mod:`vitrail.attribution.preserve`), resizes the native map
to the image, and refuses maps that are zero everywhere or hold NaN.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from importlib import import_module
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor

from vitrail.arguments import check_arguments
from vitrail.attribution.preserve import (
    ExplainError,
    Model,
    OpenedRun,
    device_of,
    dtype_of,
    preserve_state,
    why_opaque,
)
from vitrail.attribution.scale import Scale, normalise, resize
from vitrail.attribution.targets import (
    Goal,
    Target,
    class_names,
    has_classes,
    names_to_numbers,
    resolve,
)
from vitrail.errors import unknown
from vitrail.layers.grid import Grid

# Modules of this package that register methods, imported when a method is first looked up.
MODULES: tuple[str, ...] = (
    "cam",
    "gradient",
    "lrp",
    "masks",
    "occlusion",
    "rise",
    "rollout",
)

LayerKind = Literal["filter", "random", "cluster", "attention", "cam", "relevance"]


@dataclass(frozen=True)
class LayerRecord:
    """What one layer of the model showed.

    Attributes:
        kind: ``filter`` {score, gate, mask, indices}, ``random`` {mask}, ``cluster``
            {labels, sizes}, ``attention``, ``cam`` or ``relevance`` {map}.
        grid: ``(h, w)`` of the tensors that lie on one.
        tensors: by name, batch first.
    """

    kind: LayerKind
    grid: Grid | None
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """What a method found; :func:`explain` makes an :class:`Explanation` of it.

    Attributes:
        native: ``(B, h, w)`` at its own grid.
        map: ``(B, H, W)`` at the image's size; None: ``native``, resized bilinearly with
            half-pixel centres.
        layers: records in the order the image runs through them.
        check: sums that a reader may hold the map to, each ``(B,)``.
        signed: whether the map has a meaningful sign; None: as the method declares.
    """

    native: Tensor
    map: Tensor | None = None
    layers: Mapping[str, LayerRecord] = field(default_factory=dict)
    check: Mapping[str, Tensor] = field(default_factory=dict)
    signed: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Where in the images a model's answer lies, by one method.

    Attributes:
        map: ``(B, H, W)`` float32 at the images' size: raw, **not** normalised.
        native: ``(B, h, w)`` float32, the map at its own grid.
        signed: whether negative values speak against the target.
        class_specific: whether the map depends on the target at all.
        layers: the record of each layer, by module name, in the order of the forward pass.
        target: the class of each sample, a callable's name, or None (no classes).
        score: ``(B,)``, what was explained: the targets' scores; None without a target.
        check: sums to hold the map to, such as LRP's ``input``, ``bias``, ``residual``.
        params: method, seed, and every option with its value.
        seconds: wall time of the whole call.
    """

    map: Tensor
    native: Tensor
    signed: bool
    class_specific: bool
    layers: Mapping[str, LayerRecord]
    target: tuple[int, ...] | str | None
    score: Tensor | None
    check: Mapping[str, Tensor]
    params: Mapping[str, Any]
    seconds: float

    def normalise(self, kind: Scale = "minmax") -> Tensor:
        """The map for display, ``(B, H, W)``; see :func:`normalise`."""
        return normalise(self.map, kind)


class Need(Enum):
    """What a method asks of a model beyond its outputs; any of them asks for eager modules."""

    GRADIENT = "gradients through the model"
    LAYERS = "the outputs of its layers"
    RECORD = "what Vitrail's own layers record"


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a method is given.

    Attributes:
        model: in evaluation, frozen, guarded; call it on ``(B, C, H, W)``.
        images: ``(B, C, H, W)``, the method's own copy, on the model's device, in its precision.
        goal: reads scores ``(B,)`` off an output; ``goal.of(i)`` for variants of sample i.
        score: ``(B,)``, the goal's scores on the clean images; None for class-agnostic methods
            on models without classes.
        seed: for :meth:`generator`.
    """

    model: Model
    images: Tensor
    goal: Goal
    score: Tensor | None
    seed: int

    @property
    def size(self) -> Grid:
        """``(H, W)`` of the images."""
        return (self.images.shape[2], self.images.shape[3])

    def generator(self) -> torch.Generator:
        """Fresh random numbers from the seed, on the images' device.

        Draw without a batch axis what all samples share: a sample's map must not depend on its
        neighbours.
        """
        return torch.Generator(self.images.device).manual_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class Method:
    """A registered method.

    Attributes:
        name: as people type it.
        run: the function.
        class_specific: whether its maps depend on the target.
        signed: whether its maps have a sign, by default.
        needs: of the model, beyond outputs.
        random: whether a sample's map may depend on chance beyond the seed, so that alone and
            in a batch it may differ.
    """

    name: str
    run: Callable[..., MethodResult]
    class_specific: bool
    signed: bool
    needs: frozenset[Need]
    random: bool = False

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.run.__doc__ or "").strip().splitlines()[0]

    @property
    def defaults(self) -> dict[str, Any]:
        """Options with their defaults."""
        parameters = inspect.signature(self.run).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All options: what was given over the defaults.

        Raises:
            ExplainError: an option the method does not have.
        """
        for option in given:
            if option not in self.defaults:
                has = ", ".join(self.defaults) or "none"
                raise ExplainError(f"method {self.name!r} has no option {option!r}; it has {has}")
        return {**self.defaults, **given}

    def check(self, model: Model) -> None:
        """Refuse a model one cannot look inside, where the method has to.

        Raises:
            ExplainError: with the reason, and the methods that do work.
        """
        reason = why_opaque(model) if self.needs else None
        if reason:
            needs = " and ".join(sorted(need.value for need in self.needs))
            free = ", ".join(m.name for m in methods().values() if not m.needs) or "none yet"
            raise ExplainError(
                f"method {self.name!r} needs {needs}, and {reason}; explain the eager model "
                f"instead, or use a method that needs outputs only ({free})"
            )


_KNOWN: dict[str, Method] = {}


def method(
    name: str,
    *,
    class_specific: bool,
    signed: bool = False,
    needs: set[Need] | frozenset[Need] = frozenset(),
    random: bool = False,
) -> Callable[[Callable[..., MethodResult]], Callable[..., MethodResult]]:
    """Register a function as a method; it stays an ordinary function."""

    def register(run: Callable[..., MethodResult]) -> Callable[..., MethodResult]:
        _KNOWN[name] = Method(
            name=name,
            run=run,
            class_specific=class_specific,
            signed=signed,
            needs=frozenset(needs),
            random=random,
        )
        return run

    return register


def methods() -> dict[str, Method]:
    """All methods, by name."""
    for module in MODULES:
        import_module(f"vitrail.attribution.{module}")
    return dict(sorted(_KNOWN.items()))


DEFAULT = "occlusion"
"""The method where none is named. Of those that serve any model and every use it alone was, in the
scored table (``docs/results/explain-scores.md``), below the centre Gaussian in no score of any
family.
"""


def find_method(name: str) -> Method:
    """The method of this name.

    Raises:
        UserError: there is none; with the close ones.
    """
    known = methods()
    if name not in known:
        raise unknown("method", name, known)
    return known[name]


@check_arguments
def explain(
    model: Model | OpenedRun,
    images: Tensor,
    method: str = DEFAULT,
    target: Target = None,
    *,
    seed: int = 0,
    **options: Any,
) -> Explanation:
    """Where in the images the model's answer lies.

    The model is left as it was found, hooks, flags and gradients included.

    Args:
        model: any of Vitrail's; any torch module where the method needs no record of ours; any
            callable for methods that only need outputs; or a run that ``open_run`` opened.
        images: ``(3, H, W)`` or ``(B, 3, H, W)`` float, normalised as the model wants it.
        method: a name of :func:`methods`; the default is what did best in the scored table
            (``docs/results/explain-scores.md``) among methods that serve any model.
        target: None for the predicted class, a class, one a sample, or a callable from the
            model's output to ``(B,)`` scores. A class is a number, or a name of a run's classes
            (of ``model.class_names`` for a module).
        seed: of methods that draw.
        options: of the method; all are kept in ``params``.

    Raises:
        UserError: no such method.
        ExplainError: what cannot be explained so, and why.
    """
    started = perf_counter()
    chosen = find_method(method)
    params = chosen.options(options)
    target = names_to_numbers(target, class_names(model))
    network = model.model if isinstance(model, OpenedRun) and not callable(model) else model
    chosen.check(network)
    with preserve_state(network):
        case = _case(network, images, target, seed, chosen.class_specific)
        finding = chosen.run(case, **params)
    native, maps = _maps(finding, case, method)
    signed = chosen.signed if finding.signed is None else finding.signed
    return Explanation(
        map=maps,
        native=native,
        signed=signed,
        class_specific=chosen.class_specific,
        layers=finding.layers,
        target=case.goal.label,
        score=case.score,
        check=finding.check,
        params={"method": method, "seed": seed, **params},
        seconds=perf_counter() - started,
    )


def _case(model: Model, images: Tensor, target: Target, seed: int, class_specific: bool) -> Case:
    images = images[None] if images.dim() == 3 else images
    if images.dim() != 4 or not images.is_floating_point() or not images.numel():
        raise ExplainError(
            f"images are {tuple(images.shape)} {images.dtype}; give normalised float images "
            "(3, H, W) or (B, 3, H, W)"
        )
    images = images.detach().to(device_of(model), dtype_of(model), copy=True)
    case = Case(model=model, images=images, goal=Goal(), score=None, seed=seed)
    with torch.no_grad():
        output = model(images)
        if target is None and not class_specific and not has_classes(output):
            return case
        goal = resolve(target, output, images.shape[0])
        return replace(case, goal=goal, score=goal(output).detach())


def _maps(finding: MethodResult, case: Case, name: str) -> tuple[Tensor, Tensor]:
    """The native and the full-size maps in float32, once they say something."""
    native = finding.native.detach().float()
    maps = native if finding.map is None else finding.map.detach().float()
    broken = [i for i, one in enumerate(maps) if not torch.isfinite(one).all()]
    if broken:
        raise ExplainError(
            f"{name}: the maps of {_samples(broken)} hold NaN or infinity; look whether the "
            "model's own outputs are finite, and use full precision"
        )
    empty = [i for i, one in enumerate(maps) if not one.any()]
    if empty:
        last = list(finding.layers)[-1] if finding.layers else "the model"
        raise ExplainError(
            f"{name}: the maps of {_samples(empty)} are zero everywhere: nothing at {last} speaks "
            "for the target; choose another target, or another method or layer"
        )
    if finding.map is None:
        maps = resize(maps, case.size)
    return native, maps


def _samples(indices: Sequence[int]) -> str:
    return "sample " + ", ".join(str(i) for i in indices)
