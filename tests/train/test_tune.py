"""Tuning a part: what is frozen gets no gradient, keeps its statistics, and resumes to the bit."""

import copy
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.train import small
from tests.train.same import assert_same_to_the_bit
from torch import nn

import vitrail
from vitrail import train
from vitrail.errors import UserError
from vitrail.tasks import load_weights
from vitrail.train import Recipe
from vitrail.train.folder import read_run
from vitrail.train.optim import create_optimizer
from vitrail.train.tune import freeze_parts, has_new_head


def trained_names(model: nn.Module, tune: str) -> set[str]:
    freeze_parts(model, Recipe(tune=tune))
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_the_head_and_the_last_layers_of_our_models_and_timms() -> None:
    import timm

    ours = vitrail.create("coat_lite_tiny", classes=3, image=64)
    assert trained_names(ours, "head") == {"head.weight", "head.bias"}
    last = trained_names(ours, "last:1") - {"head.weight", "head.bias"}
    assert "stages.3.blocks.1.mixer.qkv.weight" in last
    assert not any(name.startswith(("stages.2", "stages.3.blocks.0")) for name in last)

    convnext = timm.create_model("convnext_atto", num_classes=3)
    assert trained_names(convnext, "head") == {"head.fc.weight", "head.fc.bias"}
    tuned = trained_names(convnext, "last:1")
    assert {"head.norm.weight", "stages.3.blocks.1.gamma"} <= tuned
    assert trained_names(convnext, "last:2") > tuned


def test_frozen_norms_stay_still_through_train() -> None:
    import timm

    model = timm.create_model("resnet10t", num_classes=3, drop_rate=0.5)
    freeze_parts(model, Recipe(tune="last:1"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = create_optimizer(model, Recipe())
    placed = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert placed == {id(p) for p in model.parameters() if p.requires_grad}
    model.eval()
    model.train()
    model(torch.randn(4, 3, 64, 64)).sum().backward()
    optimizer.step()
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert {"layer4.0.bn1.running_mean", "layer4.0.conv1.weight", "fc.weight"} <= changed
    assert all(name.startswith(("layer4", "fc")) for name in changed)
    assert model.training


def test_norms_keep_their_statistics_where_the_recipe_says_so() -> None:
    import timm

    model = timm.create_model("resnet10t", num_classes=3)
    freeze_parts(model, Recipe(freeze_norms=True))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = create_optimizer(model, Recipe())
    model.train()
    images = torch.randn(4, 3, 64, 64)
    logits = model(images)
    torch.testing.assert_close(logits, copy.deepcopy(model).eval()(images))
    logits.sum().backward()
    optimizer.step()
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert {"bn1.bias", "conv1.0.weight", "fc.weight"} <= changed
    assert not any("running" in name or "num_batches" in name for name in changed)


def test_a_head_is_new_unless_it_came_with_the_weights(tmp_path: Path) -> None:
    model = vitrail.create("vit_tiny(depth=1, dim=32, heads=2)", classes=10, image=32)
    assert has_new_head(model)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    for classes, new in ((10, False), (4, True)):
        made = vitrail.create(
            "vit_tiny(depth=1, dim=32, heads=2)", classes=classes, image=32,
            weights=tmp_path / "w.safetensors",
        )  # fmt: skip
        assert has_new_head(made) is new


def test_the_head_alone_is_fitted_on_all_pictures_and_scored(tmp_path: Path) -> None:
    pictures, parts = small.clothes()
    torch.manual_seed(0)
    model = vitrail.create(small.TEXT, classes=10, image=small.IMAGE)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    recipe = small.recipe(head_first=True, tune="head", epochs=0)
    result = train.fit(model, pictures, recipe, tmp_path / "run", card=small.card(), parts=parts,
                       progress=False)  # fmt: skip
    assert (result.step, result.best["train_loss"]) == (0, None)
    assert result.best["accuracy"] >= 0.2
    end = load_weights(tmp_path / "run" / "best.safetensors")
    assert {n for n in start if not torch.equal(start[n], end[n])} == {"head.weight", "head.bias"}
    assert read_run(tmp_path / "run").facts["head_first"]["pictures"] == len(parts["train"])


def test_what_cannot_be_tuned_is_named() -> None:
    model = vitrail.create("vit_tiny(depth=2, dim=32, heads=2)", classes=3, image=32)
    with pytest.raises(UserError, match=r"last:9 asks for more layers than the \d of this model"):
        freeze_parts(model, Recipe(tune="last:9"))
    with pytest.raises(UserError, match="no head of its own"):
        freeze_parts(vitrail.create("vit_tiny", classes=0, image=32), Recipe(tune="head"))
    with pytest.raises(UserError, match="say all or head"):
        bare = nn.Linear(2, 2)
        bare.get_classifier = lambda: bare  # type: ignore[assignment]
        freeze_parts(bare, Recipe(tune="last:1"))
    for wrong in ("last", "last:0", "body"):
        with pytest.raises(UserError, match="tune must be all, head or last:N"):
            Recipe(tune=wrong)


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    pictures, parts = small.clothes()
    recipe = small.recipe(tune="last:1")

    def fit(out: Path, stop_at: int | None = None) -> train.Result:
        torch.manual_seed(0)
        model = vitrail.create(small.TEXT, classes=10, image=small.IMAGE, drop_path=0.3)

        def listen(event: dict[str, object]) -> None:
            if event["kind"] == "step" and event["step"] == stop_at:
                signal.raise_signal(signal.SIGTERM)

        return train.fit(
            model, pictures, recipe, out, card=small.card(), parts=parts,
            progress=False, on_event=listen, resume=out.exists(),
        )  # fmt: skip

    fit(tmp_path / "whole")
    with pytest.raises(train.Interrupted):
        fit(tmp_path / "cut", stop_at=4)
    fit(tmp_path / "cut")
    assert_same_to_the_bit(tmp_path / "whole", tmp_path / "cut")
    torch.manual_seed(0)
    start = vitrail.create(small.TEXT, classes=10, image=small.IMAGE).state_dict()
    end = load_weights(tmp_path / "whole" / "last.safetensors")
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert changed and all(name.startswith(("blocks.1.", "norm.", "head.")) for name in changed)


def test_the_head_is_fitted_before_training_and_not_again(tmp_path: Path) -> None:
    pictures, parts = small.clothes()
    recipe = small.recipe(head_first=True, lr=1e-9, min_lr=0.0, epochs=1, ema=0.0)
    heads = []
    for name in ("one", "two"):
        torch.manual_seed(0)
        model = vitrail.create(small.TEXT, classes=10, image=small.IMAGE)
        blank = model.state_dict()["head.weight"].clone()
        result = train.fit(model, pictures, recipe, tmp_path / name, card=small.card(),
                           parts=parts, progress=False)  # fmt: skip
        heads.append(load_weights(tmp_path / name / "last.safetensors")["head.weight"])
        assert not torch.allclose(heads[-1], blank, atol=1e-3)
        assert result.best["accuracy"] >= 0.2  # twice what a head by chance has
    assert torch.equal(*heads)
    with pytest.raises(UserError, match="head of one linear layer"):
        small.fit(tmp_path / "three", recipe)
