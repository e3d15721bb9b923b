"""CCT against outputs of the official code, and the published sizes."""

import math

import pytest
import torch
from tests.parity import golden
from tests.parity.measured import assert_equal, parameters_and_macs

import vitrail
from vitrail.errors import UserError
from vitrail.models import load_into

# reference page "ViT", 2.7: parameters, multiply-adds (G)
PUBLISHED = {
    "cct_2_3x2": (283_723, 0.035),
    "cct_4_3x2": (482_123, 0.050),
    "cct_6_3x1": (3_233_803, 1.014),
    "cct_7_3x1": (3_760_139, 1.182),
    "cct_7_3x2": (3_853_259, 0.289),
    "cct_14_7x2": (22_367_273, 5.522),
}


@pytest.mark.parametrize(("name", "image"), [("cct_7_3x1", 32), ("cct_7_7x2", 64)])
def test_official_names_load_and_give_the_official_outputs(name, image):
    state, x, wanted = golden.load(name)
    model = vitrail.create(f"{name}(depth=2)", classes=7, image=image).eval()
    load_into(model, state)
    with torch.no_grad():
        assert_equal(model(x), wanted)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds(name):
    parameters, macs = parameters_and_macs(name)
    assert parameters == PUBLISHED[name][0]
    assert macs / 1e9 == pytest.approx(PUBLISHED[name][1], abs=0.0006)


def test_position_is_learned_fixed_or_absent():
    none = vitrail.create("cct_6_3x1(table='none')")
    assert sum(p.numel() for p in none.parameters()) == 3_233_803 - 256 * 256  # 3.168 M
    assert none(torch.randn(1, 3, 32, 32)).shape == (1, 10)
    sine = vitrail.create("cct_2_3x2(table='sine')")
    assert "position" not in dict(sine.named_parameters()) and not sine.no_weight_decay()
    for token, channel in ((0, 0), (3, 0), (3, 1), (17, 60), (17, 61)):
        angle = token / 10000 ** (2 * (channel // 2) / 128)
        wanted = math.cos(angle) if channel % 2 else math.sin(angle)
        assert sine.position[0, token, channel].item() == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(UserError, match="table is 'learned' or 'sine' or 'none'"):
        vitrail.create("cct_2_3x2(table='cosine')")


def test_the_second_residual_starts_from_the_normalised_tokens():
    block = vitrail.create("cct_2_3x2").blocks[0].eval()
    x = 3 + torch.randn(1, 64, 128)
    y = block.norm2(x + block.mixer(block.norm1(x), (8, 8)))
    torch.testing.assert_close(block(x, (8, 8)), y + block.mlp(y), rtol=1e-4, atol=1e-5)


def test_sequence_pooling_is_a_weighted_mean():
    model = vitrail.create("cct_2_3x2")
    x = torch.randn(2, 64, 128)
    weights = model.weigh(x).softmax(1)
    torch.testing.assert_close(model.pool(x), (weights * x).sum(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 48)])
@pytest.mark.parametrize("name", ["cct_2_3x2", "cct_6_3x1", "cct_7_7x2"])
def test_the_grid_is_known_before_a_picture_comes(name, size):
    model = vitrail.create(f"{name}(depth=1)", image=size)
    assert tuple(model.tokenizer(torch.zeros(1, 3, *size)).shape[2:]) == model.grid
