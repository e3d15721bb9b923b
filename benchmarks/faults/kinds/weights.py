"""Weights files: nested, renamed, damaged, and pickles that would run code."""

import argparse
import io
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.faults.damage import damaged
from benchmarks.faults.stage import CLASSES, IMAGE, TINY
from benchmarks.faults.trial import Kind, Trial
from benchmarks.faults.verdict import Fault

State = dict[str, Tensor]
PREFIXES = ("", "module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.",
            "module.model.")  # fmt: skip
NESTS = ("", "model", "state_dict", "model_state_dict")


class Touch:
    """A pickle of this makes a file when it is loaded by a careless reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


def weights(trial: Trial) -> None:
    """One file, into a tiny model through Python or the command line."""
    make = trial.chance.choice((wrapped, wrapped, strange, hostile, broken, broken, numpy_file))
    path, same = make(trial)
    if trial.chance.random() < 0.15:
        words = trial.stage.train_words("out", epochs=1)
        trial.command(*words, "--weights", path)
    else:
        load(trial, path, same)


def load(trial: Trial, path: Path, same: bool) -> None:
    """Build a model with the file; with ``same``, its weights must be the run's."""
    import vitrail
    from vitrail.errors import UserError

    try:
        model = vitrail.create(TINY, weights=path, classes=len(CLASSES), image=IMAGE)
    except UserError as error:
        if same:
            raise Fault("a good weights file is refused", f"{path.name}: {error}") from error
        one_line(error)
        return
    if same:
        own, wanted = model.state_dict(), state_of(trial)
        if any(not torch.equal(own[name], wanted[name]) for name in own):
            raise Fault("other weights than those in the file", path.name)


def one_line(error: Exception) -> None:
    """An error's text is for one line.

    Raises:
        Fault: it is long, or more lines.
    """
    if len(str(error)) > 2000 or "\n" in str(error).strip():
        raise Fault("an error of many lines", str(error)[:500])


def state_of(trial: Trial) -> State:
    """The run's weights."""
    from safetensors.torch import load_file

    return load_file(trial.stage.of("run") / "best.safetensors")


def wrapped(trial: Trial) -> tuple[Path, bool]:
    """The run's weights as other tools save them."""
    chance = trial.chance
    prefix, nest = chance.choice(PREFIXES), chance.choice(NESTS)
    state: Any = {f"{prefix}{name}": tensor for name, tensor in state_of(trial).items()}
    if nest:
        state = {nest: state, "epoch": 3, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}
        if chance.random() < 0.3:
            state["args"] = argparse.Namespace(model="x", lr=0.1)
    path = trial.folder / chance.choice(("w.pth", "w.pt", "w.bin"))
    torch.save(state, path)
    return path, "args" not in state if isinstance(state, dict) else True


def strange(trial: Trial) -> tuple[Path, bool]:
    """Values that are no weights of this model."""
    chance = trial.chance
    state = state_of(trial)
    name = chance.choice(sorted(state))
    shape = state[name].shape
    odd: tuple[Any, ...] = (
        torch.full(shape, float("nan")), torch.full(shape, float("inf")), torch.zeros(0),
        torch.zeros((1,) * 9), torch.zeros(shape, dtype=torch.int64), torch.tensor(1.0),
        torch.zeros(shape, dtype=torch.complex64), torch.zeros(shape).to_sparse(), 3, "x", None,
        [], torch.empty(shape, device="meta"), torch.zeros(shape, dtype=torch.float16),
    )  # fmt: skip
    mixed: dict[Any, Any] = dict(state)
    mixed[name] = chance.choice(odd)
    if chance.random() < 0.3:
        mixed[chance.choice((1, None, "", "\x1b[31m", "x" * 9999))] = torch.zeros(2)
    whole = chance.choice(
        (mixed, mixed, mixed, [mixed], {}, [], None, 3, {"model": {"model": mixed}})
    )
    path = trial.folder / "w.pth"
    torch.save(whole, path)
    return path, False


def hostile(trial: Trial) -> tuple[Path, bool]:
    """A pickle that runs code, in every place where a reader could find it."""
    chance = trial.chance
    bad: Any = Touch(trial.stage.canary)
    state: dict[str, Any] = dict(state_of(trial))
    holder = chance.choice(({"model": state, "args": bad}, {**state, "x": bad}, bad, [bad]))
    name = chance.choice(("w.pth", "w.pt", "w.bin", "w.pkl", "w.npz", "w.safetensors", "w.npy"))
    path = trial.folder / name
    way = chance.choice(("torch", "legacy", "pickle", "npz"))
    if way == "pickle":
        path.write_bytes(pickle.dumps(holder, protocol=chance.choice((0, 2, 4))))
    elif way == "npz":
        held = io.BytesIO()
        np.savez(held, allow_pickle=True, x=np.array([bad], dtype=object))
        path.write_bytes(held.getvalue())
    else:
        torch.save(holder, path, _use_new_zipfile_serialization=way == "torch")
    return path, False


def broken(trial: Trial) -> tuple[Path, bool]:
    """A good file, damaged."""
    path, _ = trial.chance.choice((wrapped, numpy_file, safetensors_file))(trial)
    path.write_bytes(damaged(path.read_bytes(), trial.chance))
    return path, False


def numpy_file(trial: Trial) -> tuple[Path, bool]:
    """The run's weights as NumPy's archive."""
    path = trial.folder / "w.npz"
    np.savez(path, **{name: tensor.numpy() for name, tensor in state_of(trial).items()})  # type: ignore[arg-type]
    return path, True


def safetensors_file(trial: Trial) -> tuple[Path, bool]:
    """The run's own file."""
    path = trial.folder / "w.safetensors"
    shutil.copy(trial.stage.of("run") / "best.safetensors", path)
    return path, True


KINDS = (
    Kind(name="weights", about="weights files: wrapped, odd, damaged, hostile pickles",
         attempt=weights, needs=("run",), weight=1.5, seconds=30),
)  # fmt: skip
