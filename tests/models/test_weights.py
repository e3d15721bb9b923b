"""What strict loading lets pass, and what not; layouts stand in ``tests/parity``."""

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
