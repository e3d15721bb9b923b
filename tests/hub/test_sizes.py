"""A card that asks for more than its weights hold is refused before memory is taken."""

import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vitrail.errors import UserError
from vitrail.hub import build, open_run, sizes
from vitrail.mixers import MixerSpec
from vitrail.mixers.softmax import Softmax
from vitrail.models.weights import check_finite
from vitrail.tasks import Card, save_weights

TINY = "vit_tiny(patch=8, dim=24, heads=3, depth=1)"
SEEN = {"image": 32}


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return build(TINY, classes=2, image=32).state_dict()


def run(folder: Path, state: dict[str, torch.Tensor], **changes: object) -> Path:
    card = Card(**{"model": TINY, "classes": ("a", "b"), "image": 32, "preprocess": SEEN} | changes)
    save_weights(folder / "best.safetensors", state, card)
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"model": TINY.replace("depth=1", "depth=100000")},
        {"model": TINY.replace("depth=1", "depth=10000000000")},
        {"model": TINY.replace("dim=24", "dim=3000000")},
        {"model": TINY.replace("dim=24", "dim=48")},
        {"model": TINY.replace("depth=1", "depth=0")},
        {"model": TINY.replace("patch=8", "patch=0")},
        {"model": TINY.replace("heads=3", "heads=0")},
        {"model": "vit_tiny(mixer='window(size=99999999999)')"},
        {"model": "vit_tiny(" * 2000},
        {"model": "timm:vit_giant_patch14_224"},
        {"model": "timm:resnet18"},
        {"model": "no_such_model"},
        {"classes": tuple(map(str, range(100_000)))},
        {"classes": ()},
        {"image": 10**9},
        {"image": 0},
        {"in_chans": 512},
        {"in_chans": -1},
    ],
    ids=lambda changes: f"{next(iter(changes))}-{str(next(iter(changes.values())))[:40]}",
)
def test_what_does_not_fit_is_not_built(changes, state, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError):
        open_run(run(tmp_path, state, **changes), device="cpu")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400_000  # KiB; timm itself is imported here


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(value, state, tmp_path: Path) -> None:
    broken = {n: t.clone() for n, t in state.items()}
    broken["blocks.0.norm1.weight"][3] = value
    with pytest.raises(UserError, match="not finite: 1 tensors .* such as blocks.0.norm1.weight"):
        open_run(run(tmp_path, broken), device="cpu")
    with pytest.raises(UserError, match="not finite"):
        build(TINY, classes=2, image=32, weights=tmp_path / "best.safetensors")
    norm = torch.nn.BatchNorm2d(2)
    norm.running_var[0] = value
    with pytest.raises(UserError, match="running_var"):
        check_finite(norm, "here")


def test_the_same_model_is_opened(state, tmp_path: Path) -> None:
    opened = open_run(run(tmp_path, state), device="cpu")
    assert all(torch.equal(t, state[n]) for n, t in opened.model.state_dict().items())


def test_only_a_model_that_uses_a_plugin_may_fail_without_memory(monkeypatch) -> None:
    """A record in the card is not enough: the size check would be passed by writing one."""

    def needs_values(*_: object) -> None:
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    monkeypatch.setattr(sizes, "build_on_meta", needs_values)
    monkeypatch.setattr(MixerSpec, "known", dict(MixerSpec.known))

    class Swirl(Softmax, name="swirl_of_sizes"):
        """A mixer whose class is not Vitrail's."""

    record = {"file": "my.py", "sha256": "0" * 64, "names": ["mixer swirl_of_sizes"]}
    card = Card(model=TINY, classes=("a", "b"), image=32, extra={"plugins": [record]})
    with pytest.raises(UserError, match="cannot be built"):
        sizes.check_fits(card, {}, "here")
    sizes.check_fits(
        replace(card, model=TINY.replace("dim=24", "dim=24, mixer='swirl_of_sizes'")), {}, "x"
    )
