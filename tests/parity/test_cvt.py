"""CvT against outputs of the official code, and the published sizes."""

import pytest
import torch
from tests.parity import golden
from tests.parity.measured import assert_equal, parameters_and_macs

import vitrail
from vitrail.models import load_into

# reference page "ViT", 2.5: parameters, multiply-adds at 224 px (G)
PUBLISHED = {
    "cvt_13": (19_997_480, 4.566),
    "cvt_21": (31_622_696, 7.178),
    "cvt_w24": (277_196_392, 60.917),
}


def test_official_names_load_and_give_the_official_outputs():
    state, x, wanted = golden.load("cvt_13")
    model = vitrail.create("cvt_13(depths=(1, 1, 2))", classes=7).eval()
    load_into(model, state)
    with torch.no_grad():
        assert_equal(model(x), wanted)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds(name):
    parameters, macs = parameters_and_macs(name)
    assert parameters == PUBLISHED[name][0]
    assert macs / 1e9 == pytest.approx(PUBLISHED[name][1], abs=0.0006)


def test_multiply_adds_at_384():
    assert parameters_and_macs("cvt_13", 384)[1] / 1e9 == pytest.approx(16.27, abs=0.006)


def test_paths_drop_in_the_last_stage_only():
    model = vitrail.create("cvt_13", drop_path=0.1)
    rates = [[block.drop_path.rate for block in stage.blocks] for stage in model.stages]
    assert rates[0] == [0.0] and rates[1] == [0.0, 0.0]
    assert rates[2][0] == 0.0 and rates[2][-1] == pytest.approx(0.1)
