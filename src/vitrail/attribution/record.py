"""The calls of a model's modules during a forward pass, in order, by hooks on instances.

::

    with recording(model, parts_of(model)) as calls:
        model(images)
    for call in mixer_calls(calls): ...           # each mixer's call: its tokens, grid and plan
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vitrail.attribution.preserve import ExplainError
from vitrail.layers.blocks import HeldChoice
from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.mixers import Mixer
from vitrail.models.reading import mixers_of
from vitrail.reducers import Reducer


def is_unit(module: nn.Module) -> bool:
    """Whether mixers in a block do not stand in a plain residual branch: a paper's own wiring."""
    return callable(getattr(module, "propagate", None))


@dataclass(frozen=True)
class ModuleCall:
    """One call of one module.

    Attributes:
        name: the module's path in the model.
        module: itself.
        args: positional inputs.
        output: what it gave.
    """

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    output: Any


@contextmanager
def recording(model: nn.Module, parts: Mapping[str, nn.Module]) -> Iterator[list[ModuleCall]]:
    """The calls of some of a model's modules, in the order in which they end."""
    calls: list[ModuleCall] = []

    def listen(name: str, module: nn.Module) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], given: dict[str, Any], out: Any) -> None:
            calls.append(ModuleCall(name, module, (*args, *given.values()), out))

        return module.register_forward_hook(hook, with_kwargs=True)

    handles = [listen(name, module) for name, module in parts.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def reducers_of(model: nn.Module) -> dict[str, nn.Module]:
    """The reducers, and what hands their choice on, by path."""
    return {n: m for n, m in model.named_modules() if isinstance(m, (Reducer, HeldChoice))}


def parts_of(model: nn.Module) -> dict[str, nn.Module]:
    """All that an explanation of attention reads: mixers, reducers, what stands beside them.

    Raises:
        ExplainError: the model has no mixer of ours.
    """
    mixers = mixers_of(model)
    if not mixers:
        raise ExplainError(
            f"{type(model).__name__} has no mixer of Vitrail's whose attention could be read; "
            "take gradcam, lrp, or rise"
        )
    parts: dict[str, nn.Module] = {**mixers, **reducers_of(model)}
    modules = dict(model.named_modules())
    for name in mixers:
        beside = (f"{block_of(name)}.{part}" for part in ("norm1", "shortcut"))
        parts |= {path: modules[path] for path in beside if path in modules}
    for name in getattr(model, "reads", ()):
        parts[name] = modules[name]
    for name, module in modules.items():
        if is_unit(module):
            parts[name] = module
            parts |= {path: modules[path] for path in paths_read(name, module)}
    return parts


def paths_read(name: str, unit: nn.Module) -> dict[str, str]:
    """The modules that a block of a paper's own ``reads``: path in the model -> path inside it."""
    return {f"{name}.{part}": part for part in getattr(unit, "reads", ())}


def block_of(name: str) -> str:
    """The path of the block a mixer or reducer stands in."""
    return name.rpartition(".")[0]


@dataclass(frozen=True)
class MixerCall:
    """One mixer's call, with the residual stream, plan and block around it.

    Attributes:
        name: the mixer's path.
        mixer: the module.
        tokens: ``(B, K, C)``, its input.
        grid: the grid it was given.
        shared: what its stage shares.
        plan: which tokens its own stand for, as the mixer was given it; None for all of a grid.
        block_plan: the plan of the block's reducer, or None.
        output: ``(B, K, C)``.
        stream: the residual it is added to, ``(B, K, C)``.
        unit: the call of the paper's own block around it, or None in a plain block.
        unit_reads: the calls that this block ``reads``, by path inside the block.
    """

    name: str
    mixer: Mixer
    tokens: Tensor
    grid: Grid
    shared: nn.Module | None
    plan: Plan | None
    block_plan: Plan | None
    output: Tensor
    stream: Tensor
    unit: ModuleCall | None
    unit_reads: Mapping[str, ModuleCall]

    @property
    def full_grid(self) -> Grid:
        """The grid of all tokens, also of those that do not work."""
        return self.grid if self.block_plan is None else self.block_plan.grid

    @property
    def extra(self) -> int:
        """Class tokens in front."""
        plan = self.block_plan or self.plan
        if plan is not None:
            return plan.extra
        return self.tokens.shape[1] - self.grid[0] * self.grid[1]


def mixer_calls(calls: list[ModuleCall]) -> list[MixerCall]:
    """The calls of mixers, in order."""
    return [_mixer_call(calls, i) for i, call in enumerate(calls) if isinstance(call.module, Mixer)]


def _mixer_call(calls: list[ModuleCall], i: int) -> MixerCall:
    call = calls[i]
    block = block_of(call.name)
    x, grid, shared, plan = (*call.args, None, None)[:4]
    reduced = _nearest(calls[:i][::-1], f"{block}.reducer")
    normed = _nearest(calls[:i][::-1], f"{block}.norm1")
    entered = _nearest(calls[i:], f"{block}.shortcut")
    stream = normed.args[0] if normed else x
    if entered is not None:
        stream = entered.output.flatten(2).mT
    units = [c for c in calls[i:] if is_unit(c.module) and block.startswith(f"{c.name}.")]
    paths = paths_read(units[0].name, units[0].module) if units else {}
    reads = {part: _nearest(calls[i:], path) for path, part in paths.items()}
    assert isinstance(call.module, Mixer)
    return MixerCall(
        name=call.name,
        mixer=call.module,
        tokens=x,
        grid=grid,
        shared=shared,
        plan=plan,
        block_plan=reduced.output[1] if reduced else None,
        output=call.output,
        stream=stream,
        unit=units[0] if units else None,
        unit_reads={part: found for part, found in reads.items() if found is not None},
    )


def _nearest(calls: list[ModuleCall], name: str) -> ModuleCall | None:
    return next((call for call in calls if call.name == name), None)


def projection(mixer: nn.Module) -> nn.Module | None:
    """The linear map behind the joined heads, or None where they leave as they are."""
    found = getattr(getattr(mixer, "inner", mixer), "proj", None)
    return found if isinstance(found, nn.Module) else None
