"""What strict loading lets pass, and what not; layouts stand in ``tests/parity``."""

import contextlib
import warnings

import pytest
import torch

import vitrail
from vitrail.errors import UserError
from vitrail.models import load_into

SMALL = {"depths": (1, 1, 1, 1), "image": 64, "classes": 3}


def test_statistics_of_batch_norms_must_be_there():
    model = vitrail.create("cmt_ti", **SMALL)
    state = {n: t for n, t in model.state_dict().items() if not n.endswith("running_var")}
    with pytest.raises(UserError, match="tensors missing, such as .*running_var"):
        load_into(model, state)


def test_planes_drawn_at_building_may_be_missing():
    plain = vitrail.create("coat_lite_tiny", **SMALL)
    hashed = vitrail.create("coat_lite_tiny", mixer="prototype_conv", **SMALL)
    load_into(hashed, plain.state_dict())
    assert "stages.0.blocks.0.mixer.find.planes" in hashed.state_dict()


def test_a_fresh_head_stands_where_the_model_stands():
    model = vitrail.create("coat_lite_tiny", **SMALL).to(torch.float64)
    model.reset_classifier(7)
    assert model(torch.randn(1, 3, 64, 64, dtype=torch.float64)).shape == (1, 7)


ODD_SHAPES = ((), (0,), (7,), (1, 0, 24), (1, 18, 24), (1, 17, 24, 1), (1, 17, 25), (1,) * 9)


@pytest.mark.parametrize("name", ["position", "head", "patch"])
def test_tensors_of_any_form_are_fitted_or_refused(name: str) -> None:
    model = vitrail.create("vit_tiny(dim=24,heads=3,depth=1,patch=8)", image=32, classes=3)
    keys = [n for n in model.state_dict() if n.startswith(name)]
    assert keys
    for key in keys:
        for shape in ODD_SHAPES:
            for dtype in (torch.float32, torch.int32):
                state = dict(model.state_dict()) | {key: torch.zeros(shape, dtype=dtype)}
                with contextlib.suppress(UserError), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    load_into(model, state)


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.complex64])
def test_numbers_that_are_not_real_are_no_weights(kind: torch.dtype) -> None:
    model = vitrail.create("coat_lite_tiny", **SMALL)
    state = {n: t.to(kind) for n, t in model.state_dict().items()}
    name = str(kind).removeprefix("torch.")
    with pytest.raises(UserError, match=rf"no real numbers: .* tensors, such as .* \({name}\)"):
        load_into(model, state)
