"""Parameter groups hold every parameter once; the schedule is a function of progress."""

import math

import pytest
import torch
from torch import nn

import vitrail
from vitrail.errors import UserError
from vitrail.train import Recipe
from vitrail.train.optim import Schedule, create_optimizer, parameter_groups


def models() -> dict[str, nn.Module]:
    import timm

    return {
        "vit": vitrail.create("vit_tiny(depth=3, dim=32, heads=2)", classes=3, image=32),
        "coat": vitrail.create("coat_lite_tiny", classes=3, image=64),
        "parallel coat": vitrail.create("coat_tiny", classes=3, image=64),
        "timm coat, shared names": timm.create_model("coat_lite_tiny", num_classes=3, img_size=64),
        "resnet": timm.create_model("resnet10t", num_classes=3),
    }


@pytest.mark.parametrize("decay", [1.0, 0.7])
def test_every_parameter_is_in_one_group(decay: float) -> None:
    for name, model in models().items():
        groups = parameter_groups(model, Recipe(layer_decay=decay))
        placed = [id(p) for group in groups for p in group["params"]]
        assert sorted(placed) == sorted(id(p) for p in model.parameters()), name


def test_no_decay_for_biases_norms_and_exempt_ones() -> None:
    model = models()["vit"]
    names = {id(p): name for name, p in model.named_parameters()}
    for decay in (1.0, 0.7):
        groups = parameter_groups(model, Recipe(layer_decay=decay, weight_decay=0.3))
        for group in groups:
            for p in group["params"]:
                name = names[id(p)]
                free = p.ndim <= 1 or name in model.no_weight_decay()  # type: ignore[operator]
                assert group["weight_decay"] == (0.0 if free else 0.3), name
    assert model.no_weight_decay()  # type: ignore[operator]


def test_lower_layers_learn_slower() -> None:
    model = models()["vit"]
    groups = parameter_groups(model, Recipe(layer_decay=0.5))
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    rates = [scale[id(block.norm1.weight)] for block in model.blocks]  # type: ignore[union-attr]
    assert rates == sorted(rates)
    assert rates[0] < rates[1] < rates[2] <= scale[id(model.head.weight)] == 1.0  # type: ignore[union-attr]


def test_unknown_optimizers_are_named() -> None:
    with pytest.raises(UserError, match="no optimizer 'adamv'; close: .*adam"):
        create_optimizer(nn.Linear(2, 2), Recipe(optimizer="adamv"))


def test_warm_up_then_cosine_in_any_order_of_asking() -> None:
    made = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    recipe = Recipe(lr=0.1, min_lr=0.001, warmup=0.1)
    schedule = Schedule(made, recipe, 100)

    def rate(step: int) -> float:
        schedule.set(step / 100)
        return float(made.param_groups[0]["lr"])

    rates = [rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[50] == pytest.approx(0.001 + 0.5 * 0.099 * (1 + math.cos(math.pi * 0.5)))
    assert [rate(step) for step in (70, 3, 99)] == [rates[70], rates[3], rates[99]]
