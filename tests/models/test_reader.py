"""Files of others: which weights are taken, under which names, and nothing run."""

import argparse
import collections
import datetime
import os
import pathlib
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

import vitrail
from vitrail.errors import UserError
from vitrail.models.reader import bare_names, is_plain, read_weights

RAW = {"stem.weight": torch.zeros(2), "head.weight": torch.zeros(3)}
AVERAGED = {name: tensor + 1 for name, tensor in RAW.items()}


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("nest", ["state_dict_ema", "model_ema", "ema", "ema_state_dict"])
@pytest.mark.parametrize("raw", ["model", "state_dict", "module"])
def test_averaged_weights_go_first_and_the_file_says_so(nest, raw, tmp_path) -> None:
    content = {raw: RAW, nest: {"module": AVERAGED}, "epoch": 3}
    file = saved(tmp_path / "w.pth", content)
    with pytest.warns(UserWarning, match="averaged ones are taken; .* say w.pth#raw"):
        assert read_weights(file)["stem.weight"][0] == 1
    with pytest.warns(UserWarning, match="trained ones are taken; .* say w.pth#averaged"):
        assert read_weights(f"{file}#raw")["stem.weight"][0] == 0
    side_by_side = {**prefixed("model.", RAW), **prefixed("ema_model.module.", AVERAGED)}
    file = saved(tmp_path / "flat.ckpt", {"state_dict": side_by_side})
    with pytest.warns(UserWarning, match="averaged ones"):
        assert read_weights(file)["head.weight"][0] == 1


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "model.", "_orig_mod.", "module.model.", "model._orig_mod.module.",
     "_orig_mod.module.module.", "_fsdp_wrapped_module."],
)  # fmt: skip
def test_what_wrappers_put_before_names_goes(prefix: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bare_names(prefixed(prefix, RAW)).keys() == RAW.keys()
        swa = {"n_averaged": torch.tensor(3), **prefixed(f"module.{prefix}", RAW)}
        assert bare_names(swa).keys() == RAW.keys()


def test_few_names_with_a_prefix_keep_it_and_few_without_are_passed_over() -> None:
    few = {"model.weight": torch.zeros(1), **RAW}
    assert bare_names(few).keys() == few.keys()
    many = prefixed("model.", {f"layer{i}": torch.zeros(1) for i in range(20)})
    with pytest.warns(UserWarning, match="1 tensors beside the model .* criterion.weight"):
        assert "layer3" in bare_names({**many, "criterion.weight": torch.zeros(1)})


class Settings:
    def __init__(self) -> None:
        self.rate = 0.1


@pytest.mark.parametrize("zipped", [True, False])
def test_settings_beside_the_weights_are_passed_over(zipped, tmp_path, monkeypatch) -> None:
    """Nothing of theirs is looked up: a class that would say so if it was built is not."""
    beside = {
        "args": argparse.Namespace(lr=0.1, inner=argparse.Namespace(at=pathlib.Path("x"))),
        "best": numpy.float64(0.5),
        "scores": numpy.arange(3.0),
        "config": Settings(),
        "by": collections.defaultdict(list, {1: [2]}),
        "when": datetime.datetime(2026, 1, 1),
    }
    torch.save({"model": RAW, **beside}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    monkeypatch.setattr(Settings, "__setstate__", lambda *_: 1 / 0, raising=False)
    assert read_weights(tmp_path / "w.pth").keys() == RAW.keys()


class Trap:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


@pytest.mark.parametrize(
    "trap",
    [
        Trap(os.mkdir, "sprung"),
        Trap(exec, "open('sprung', 'w')"),
        Trap(eval, "open('sprung', 'w')"),
        Trap(subprocess.Popen, ["touch", "sprung"]),
        Trap(pathlib.Path.touch, pathlib.Path("sprung")),
        Trap(torch.save, 1, "sprung"),
        Trap(numpy.save, "sprung", 1),
        Trap(torch.hub.load, "x", "y"),
    ],
    ids=lambda trap: trap.parts[0].__name__,
)
def test_no_function_in_a_file_is_called(trap, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "w.pth", {"model": RAW, "trap": trap})
    with pytest.raises(UserError, match="Vitrail runs no code from files") as caught:
        read_weights(tmp_path / "w.pth")
    assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["w.pth"]


def claims(path: Path) -> None:
    torch.save({"position": torch.zeros(1).expand(1, 10**10, 24)}, path)


def bomb(path: Path) -> None:
    numpy.savez_compressed(path, table=numpy.zeros(1 << 25, numpy.uint8))


@pytest.mark.parametrize(("write", "name"), [(claims, "w.pth"), (bomb, "w.npz")])
def test_few_bytes_that_stand_for_many_are_refused_unread(write, name, tmp_path) -> None:
    write(tmp_path / name)
    with pytest.raises(UserError, match=r"its .* stand for .* of weights"):
        read_weights(tmp_path / name)


def test_our_models_and_timms_take_the_same_weights_from_one_file(tmp_path) -> None:
    own = vitrail.create("vit_tiny", image=32, classes=3, depth=1, patch=16)
    state = own.state_dict()
    both = {"model": state, "model_ema": prefixed("module.", {n: t + 1 for n, t in state.items()})}
    file = saved(tmp_path / "own.pth", both)
    from vitrail.hub import build

    theirs = build("timm:resnet10t", classes=3, image=64).state_dict()
    ema = {n: t + 1 for n, t in theirs.items()}
    other = saved(tmp_path / "timm.pth", {"model": theirs, "model_ema": ema})
    with pytest.warns(UserWarning, match="averaged ones are taken"):
        ours = vitrail.create("vit_tiny", image=32, classes=3, depth=1, patch=16, weights=file)
    with pytest.warns(UserWarning, match="averaged ones are taken"):
        timms = build("timm:resnet10t", classes=3, image=64, weights=other)
    assert torch.equal(ours.state_dict()["head.bias"], state["head.bias"] + 1)
    assert torch.equal(timms.state_dict()["fc.bias"], theirs["fc.bias"] + 1)
    with pytest.warns(UserWarning, match="trained ones are taken"):
        timms = build("timm:resnet10t", classes=3, image=64, weights=f"{other}#raw")
    assert torch.equal(timms.state_dict()["fc.bias"], theirs["fc.bias"])


def test_one_name_of_two_tensors_that_differ_is_refused() -> None:
    two = {"a.b": torch.zeros(2), "a._orig_mod.b": torch.zeros(2)}
    assert list(bare_names(two)) == ["a.b"]
    with pytest.raises(UserError, match="hold 'a.b' twice"):
        bare_names(two | {"_orig_mod.a.b": torch.ones(2)})


def test_nested_tensors_are_no_weights() -> None:
    assert not is_plain(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]))
