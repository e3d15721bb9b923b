"""The recorder: what it hears, in which order, and that it leaves."""

import pytest
import torch
from tests.attribution.models import TEXTS, build, pictures

import vitrail
from vitrail.attribution.record import mixer_calls, parts_of, projection, recording
from vitrail.models.reading import mixers_of
from vitrail.tokens.plans import GridPooling
from vitrail.tokens.selection import Selection


@pytest.mark.parametrize("text", TEXTS)
def test_every_mixer_is_heard_once_on_its_grid(text: str) -> None:
    model = build(text).eval()
    with torch.no_grad(), recording(model, parts_of(model)) as calls:
        model(pictures())
    steps = mixer_calls(calls)
    assert [step.name for step in steps] == list(mixers_of(model)) or text == "coat_tiny"
    assert {step.name for step in steps} == set(mixers_of(model))
    for step in steps:
        working = step.tokens.shape[1]
        if step.plan is None:
            assert working == step.extra + step.grid[0] * step.grid[1]
        assert step.output.shape[:2] == step.tokens.shape[:2]
        assert step.stream.shape[:2] == step.output.shape[:2]
    assert not any(m._forward_hooks for m in model.modules())


def test_plans_of_reducers_are_told() -> None:
    with torch.no_grad():
        model = build("filtervit_v2_xxs").eval()
        with recording(model, parts_of(model)) as calls:
            model(pictures())
    plans = {step.name: step.block_plan for step in mixer_calls(calls)}
    assert isinstance(plans["stages.0.pooled.mixer"], GridPooling)
    assert isinstance(plans["stages.0.blocks.0.mixer"], Selection)
    assert plans["stages.2.blocks.0.mixer"] is None


def test_the_projection_behind_heads() -> None:
    assert projection(torch.nn.ReLU()) is None
    assert projection(vitrail.create("vit_tiny(depth=1)").blocks[0].mixer).out_features == 192
