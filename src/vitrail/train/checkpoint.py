"""Everything a run needs to go on, in one file that is whole or absent.

``checkpoint.safetensors`` holds the tensors of model, averaged model and optimiser under
``model/...``, ``ema/...``, ``optim/parameter/...`` and the rest as JSON in its metadata. No
pickle. No generator state either: chance is a function of the step (see ``chance``).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vitrail.errors import UserError
from vitrail.schema import convert, parse_json
from vitrail.tensors import load_tensors, save_tensors

NAME = "checkpoint.safetensors"
FORMAT = "vitrail-checkpoint-1"
_MODEL, _EMA, _BEST, _OPTIM = "model/", "ema/", "best/", "optim/"


@dataclass(kw_only=True)
class TrainingProgress:
    """How far a run is. Everything here is in the checkpoint.

    ``epoch`` and ``update`` say what comes next (update of that epoch), ``step`` counts updates,
    ``loss_sum`` and ``seconds`` gather over the epoch and the run, ``best`` is the row of the
    best epoch, ``epochs_since_best`` counts validations since then, ``skipped`` counts updates in
    a row that the fp16 loss scaler threw away.
    """

    step: int = 0
    epoch: int = 0
    update: int = 0
    lr: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    epoch_seconds: float = 0.0
    epoch_images: int = 0
    epochs_since_best: int = 0
    skipped: int = 0
    finished: bool = False
    best: dict[str, Any] | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass(kw_only=True)
class Snapshot:
    """A checkpoint in memory: full tensors on the CPU, by name.

    ``best`` holds the best epoch's weights while they are not yet in ``best.safetensors``;
    ``world`` counts the processes that made it, 0 before the first update.
    """

    progress: TrainingProgress
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    best: dict[str, Tensor]
    optim: dict[str, dict[str, Any]]
    scaler: dict[str, Any]
    world: int = 0


def save(path: Path, snapshot: Snapshot) -> None:
    """Write the snapshot; the old checkpoint stays until the new one is on the disk."""
    tensors = {_MODEL + name: value for name, value in snapshot.model.items()}
    tensors |= {_EMA + name: value for name, value in snapshot.ema.items()}
    tensors |= {_BEST + name: value for name, value in snapshot.best.items()}
    plain: dict[str, dict[str, Any]] = {}
    for name, state in snapshot.optim.items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{_OPTIM}{name}/{key}"] = value
            else:
                plain.setdefault(name, {})[key] = value
    facts = {
        "format": FORMAT,
        "progress": json.dumps(asdict(snapshot.progress)),
        "optim": json.dumps(plain),
        "scaler": json.dumps(snapshot.scaler),
        "world": str(snapshot.world),
    }
    save_tensors(path, tensors, facts)


def load(path: Path) -> Snapshot:
    """Read what :func:`save` wrote.

    Raises:
        UserError: no checkpoint, or one of another format.
    """
    tensors, facts = load_tensors(path)
    if facts.get("format") != FORMAT:
        raise UserError(f"{str(path)!r} is not a checkpoint this Vitrail reads ({FORMAT})")
    where = repr(str(path))
    lacking = [key for key in ("progress", "optim", "scaler", "world") if key not in facts]
    if lacking:
        raise UserError(f"{where} lacks {', '.join(lacking)}; take it from a copy, or train anew")
    optim: dict[str, dict[str, Any]]
    optim = parse_json(facts["optim"], dict[str, dict[str, Any]], f"{where}: optim")
    for name in [name for name in tensors if name.startswith(_OPTIM)]:
        parameter, _, key = name.removeprefix(_OPTIM).rpartition("/")
        optim.setdefault(parameter, {})[key] = tensors.pop(name)
    return Snapshot(
        progress=_read_progress(facts["progress"], f"{where}: progress"),
        model=_part(tensors, _MODEL),
        ema=_part(tensors, _EMA),
        best=_part(tensors, _BEST),
        optim=optim,
        scaler=parse_json(facts["scaler"], dict[str, Any], f"{where}: scaler"),
        world=parse_json(facts["world"], int, f"{where}: world"),
    )


def _read_progress(text: str, where: str) -> TrainingProgress:
    values = parse_json(text, dict[str, Any], where)
    if "stale" in values:  # the name of earlier versions
        values["epochs_since_best"] = values.pop("stale")
    progress: TrainingProgress = convert(TrainingProgress, values, where, extra_keys=True)
    return progress


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}


# ---- full state of wrapped models: the same code for one process, DDP and FSDP -------------------


def _options() -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True)


def model_state(model: nn.Module) -> dict[str, Tensor]:
    """The whole state dict on the CPU (a collective call; complete in the first process)."""
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    state: Any = get_model_state_dict(model, options=_options())
    return dict(state)


def set_model_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a whole state dict into a model however it is wrapped."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    set_model_state_dict(model, dict(state), options=StateDictOptions(full_state_dict=True))


def optimizer_state(model: nn.Module, optimizer: Optimizer) -> dict[str, dict[str, Any]]:
    """State by parameter name; empty before the first update."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    if not optimizer.state:
        return {}
    state: Any = get_optimizer_state_dict(model, optimizer, options=_options())
    return dict(state.get("state", {}))


def set_optimizer_state(
    model: nn.Module, optimizer: Optimizer, state: Mapping[str, Mapping[str, Any]]
) -> None:
    """The inverse of :func:`optimizer_state`; the groups' settings come from the recipe.

    Tensors get the strides of those that the optimiser would make itself, so that the same
    kernels run after a resume as before.
    """
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    if not state:
        return
    options = StateDictOptions(full_state_dict=True)
    fresh = get_optimizer_state_dict(model, optimizer, options=options)
    bare = getattr(model, "module", model)
    parameters = dict(bare.named_parameters(remove_duplicate=False))
    fresh["state"] = {
        name: {key: _like(value, parameters.get(name)) for key, value in values.items()}
        for name, values in state.items()
    }
    set_optimizer_state_dict(model, optimizer, fresh, options=options)


def _like(value: Any, parameter: nn.Parameter | None) -> Any:
    if not isinstance(value, Tensor) or type(parameter) is not nn.Parameter:
        return value  # a sharded parameter has no strides to copy
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, device="cpu", dtype=value.dtype).copy_(value)
