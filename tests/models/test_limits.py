"""Options of models without sense: one sentence, before anything is built."""

import numpy as np
import pytest
import torch

from vitrail import create
from vitrail.errors import UserError
from vitrail.models import limits

TINY = "vit_tiny(dim=24,heads=3,depth=1"
WRONG = {
    "vit_tiny(patch=0)": "patch must lie between 1 and",
    "vit_tiny(dim=0)": "dim must lie between 1 and",
    "vit_tiny(heads=0)": "heads must lie between 1 and",
    "vit_tiny(heads=5)": "heads do not divide the channels",
    "vit_tiny(depth=-1)": "depth must lie between 1 and",
    "vit_tiny(depth=100000)": "depth must lie between 1 and",
    "vit_tiny(depth=9999)": "has 9999 blocks; at most 1000",
    "vit_tiny(dim=60000, depth=1)": "has 43.3 G parameters, 173 GB; this machine has 25 GB",
    "vit_tiny(dim='x')": "dim must be int, not str 'x'",
    "vit_tiny(dim=1.5)": "dim must be int, not float 1.5",
    "vit_tiny(dim=True)": "dim must be int, not bool True",
    "vit_tiny(dim=192, dim=3)": "gives 'dim' twice",
    "vit_tiny(mlp_ratio=0.0)": "mlp_ratio must lie between",
    "vit_tiny(mlp_ratio=1e999)": "mlp_ratio must lie between",
    "vit_tiny(drop_path=2.0)": "drop_path must lie between 0 and 0.99",
    "vit_tiny(image=0)": "image must lie between 1 and",
    "vit_tiny(image=(224, 224, 3))": "image must be 2 values",
    "vit_tiny(image=40000)": "1 pictures of 40000 x 40000 pixels at once take",
    "vit_tiny(in_chans=0)": "in_chans must lie between 1 and",
    "vit_tiny(classes=-1)": "classes must lie between 0 and",
    "vit_tiny(classes=1000000000)": "classes must lie between 0 and",
    "vit_tiny(pool='x')": "pool is 'token' or 'mean'",
    "coat_lite_tiny(dims=(64,))": "dims has 4 entries, one a stage, not 1",
    "coat_lite_tiny(dims=64)": "dims must be a list",
    "coat_lite_mini(parallel=1)": "must each be equal",
    "coat_lite_tiny(depths=(0, 0, 0, 0))": "depths must lie between 1 and",
    "vit_tiny(reducer='cluster(ratio=1000)')": "it joins 1000 tokens, the grid has 196",
    "coat_lite_tiny(reducer='pool(size=100)')": "it joins 10000 tokens, the grid has 3136",
    "vit_tiny(reducer='cluster(ratio=2.5)')": "ratio must be int, not float 2.5",
    "vit_tiny(reducer='cluster(ratio=1000000000)')": "ratio is at most 65,536",
    "vit_tiny(reducer='merge(keep=1e999)')": "keep is at most 65,536",
    "vit_tiny(mixer='conv(windows=3)')": "windows must be a list, not int 3",
    "vit_tiny(mixer='window(size=60000)')": "parameters",
    "vit_tiny(mixer='sliding(radius=60000)')": "the radius is larger than the grid",
    "vit_tiny(mixer=3)": "'3' is not of the form name",
    "vit_tiny(" + "(" * 400: "is not of the form name or name(option=value)",
    "vit_tiny(dim={[]})": "is not of the form name or name(option=value)",
    "x" * 20_000: "a text of 20000 characters names no model",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:40])
def test_refused_in_words(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitrail.limits.usable_memory", lambda: 25 * 10**9)
    monkeypatch.setattr("vitrail.models.limits.usable_memory", lambda: 25 * 10**9)
    with pytest.raises(UserError) as refused:
        create(text)
    assert WRONG[text] in str(refused.value)


def test_the_size_is_counted_without_memory_and_without_chance() -> None:
    model = create(f"{TINY})", image=32)
    before = torch.random.get_rng_state()
    counted = limits.exact_count(lambda: type(model)(model.config))
    assert counted == sum(p.numel() for p in model.parameters())
    assert torch.equal(before, torch.random.get_rng_state())


def test_whole_numbers_of_other_libraries_are_numbers() -> None:
    model = create(f"{TINY})", classes=np.int64(3), image=[np.int32(32), 32])
    assert model.config.classes == 3 and model.config.image == (32, 32)


def test_a_count_of_classes_in_a_text_cannot_hide_the_one_asked_for() -> None:
    assert create(f"{TINY}, classes=None)", classes=3, image=32).classes == 3
    assert create(f"{TINY}, classes=3)", classes=3, image=32).classes == 3
    with pytest.raises(UserError, match="says classes=5, and 3 are asked for"):
        create(f"{TINY}, classes=5)", classes=3, image=32)


def test_options_that_do_not_fit_each_other_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vitrail.models import vit

    def fail(*_: object) -> None:
        raise IndexError("tuple index out of range")

    monkeypatch.setattr(vit.ViT, "__init__", fail)
    with pytest.raises(UserError, match="options of .* do not fit each other: tuple index"):
        create(f"{TINY})")
    with pytest.raises(IndexError):
        create("vit_tiny", image=32)
