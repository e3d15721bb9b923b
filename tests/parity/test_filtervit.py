"""FilterViT is the authors' network: names, outputs, sizes, costs, and the facts of its paper."""

import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import vitrail
from vitrail.errors import UserError
from vitrail.models import load_into

# reference page 2.2: parameters with 100 and with 1000 classes, multiply-adds at 224 px (G)
PUBLISHED = {
    "filtervit_xxs": (946_608, 1_293_108, 1.013),
    "filtervit_xs": (1_894_381, 2_240_881, 1.379),
    "dropoutvit_xs": (1_875_556, 2_222_056, 1.350),
    "filtervit_s": (4_989_040, 5_450_740, 3.190),
}


def macs(model, image=224):
    counter = FlopCounterMode(display=False)
    math = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with counter, math, torch.no_grad():
        model(torch.empty(1, 3, image, image, device="meta"))
    return counter.get_total_flops() / 2


def on_meta(name, **options):
    with torch.device("meta"):
        return vitrail.create(name, **options).eval()


def test_golden_outputs_of_the_authors_code(shared, monkeypatch):
    monkeypatch.syspath_prepend(str(shared / "reference"))
    from golden_fill import golden_input, load_golden

    golden = load_golden(str(shared / "reference" / "golden" / "filtervit_xs.npz"))
    ours = vitrail.create("filtervit_xs", classes=100).eval()
    assert sum(p.numel() for p in ours.parameters()) == golden["params"]
    load_into(ours, {k: torch.from_numpy(v) for k, v in golden["state"].items()})
    with torch.no_grad():
        got = ours(torch.from_numpy(golden_input(2, golden["size"], golden["size"])))
    wanted = torch.from_numpy(golden["logits"])
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    sys.modules.pop("golden_fill")


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds(name):
    few, many, gmacs = PUBLISHED[name]
    model = on_meta(name, classes=100)
    assert sum(p.numel() for p in model.parameters()) == few
    model = on_meta(name)
    assert sum(p.numel() for p in model.parameters()) == many
    assert macs(model) / 1e9 == pytest.approx(gmacs, rel=0.001)


def test_sides_and_places_are_the_published_ones():
    model, seen, kept = on_meta("filtervit_xs"), [], []
    for module in model.modules():
        if type(module).__name__ in ("Stem", "Pooled", "FilterBlock", "Full"):
            module.register_forward_hook(lambda _m, _i, out: seen.append(out.shape[-1]))
        if type(module).__name__ == "EncoderLayer":
            module.register_forward_hook(lambda _m, i, _o: kept.append(i[0].shape[1]))
    model(torch.empty(1, 3, 224, 224, device="meta"))
    assert seen == [110, 55, 55, 28, 28, 28, 14, 7, 4]
    assert kept == [121, 256, 121, 128, 128, 49, 196, 49]


def block(kind, **options):
    from vitrail.mixers import MixerSpec
    from vitrail.models.filtervit import CONFIGS, KINDS, Row

    row = Row(kind, 16, 2, 1, **options)
    config = CONFIGS["filtervit_xs"]
    return KINDS[kind](16, row, (8, 8), MixerSpec.parse("softmax"), config, 0.0)


def reference_layer(layer):
    """PyTorch's own encoder layer with our weights."""
    theirs = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    names = {
        "self_attn.in_proj_": "mixer.qkv.",
        "self_attn.out_proj.": "mixer.proj.",
        "linear1.": "fc1.",
        "linear2.": "fc2.",
    }
    state = layer.state_dict()
    for old in theirs.state_dict():
        new = old
        for theirs_part, ours_part in names.items():
            new = new.replace(theirs_part, ours_part)
        theirs.state_dict()[old].copy_(state[new])
    return theirs


@torch.no_grad()
def test_filter_block_is_a_mask_and_nonzero():
    """The boolean way of the original, spelled out, gives the same map."""
    ours = block("filter", keep=0.3).eval()
    x = torch.randn(2, 16, 8, 8)
    gate = ours.explain_selection(x)["gate"]
    assert (gate >= 0.4576).all() and (gate < 1).all()
    best = gate.flatten(1).topk(20).indices
    layer, code = reference_layer(ours.layers[0]), torch.zeros(64, 16)
    for i in range(8):
        angle = torch.arange(64) * 10000 ** (-2 * i / 16)
        code[:, 2 * i], code[:, 2 * i + 1] = angle.sin(), angle.cos()
    wanted = (gate.unsqueeze(1) * x).flatten(2).mT.clone()
    for tokens, places in zip(wanted, best, strict=True):
        tokens[places] = layer((tokens[places] + code[places]).unsqueeze(0))[0]
    got = ours.attend(x).flatten(2).mT
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_all_places_kept_is_attention_over_the_gated_map():
    ours, full = block("filter", keep=1.0).eval(), block("full").eval()
    full.layers.load_state_dict(ours.layers.state_dict())
    x = torch.randn(2, 16, 8, 8)
    from vitrail.layers.position import sinusoid

    gated = ours.gate(ours.score(x)) * x
    placed = gated + sinusoid(torch.arange(64), 16).T.view(1, 16, 8, 8)
    torch.testing.assert_close(ours.attend(x), full.attend(placed) - placed, rtol=1e-4, atol=1e-5)


def test_gradient_reaches_the_score_through_the_gate():
    ours = block("filter", keep=0.3)
    ours(torch.randn(2, 16, 8, 8)).square().sum().backward()
    assert ours.score[0].weight.grad.abs().max() > 0


def test_dropout_answers_by_its_rule():
    x = torch.randn(2, 3, 64, 64)
    small = {"classes": 5, "image": 64, "resample": 0}
    fixed = vitrail.create("dropoutvit_xs", **small).eval()
    chancy = vitrail.create("dropoutvit_xs(chance='random')", **small).eval()
    everywhere = vitrail.create("dropoutvit_xs(chance='all')", **small).eval()
    for other in (chancy, everywhere):
        other.load_state_dict(fixed.state_dict())
    with torch.no_grad():
        assert torch.equal(fixed(x), fixed(x))
        assert not torch.equal(chancy(x), chancy(x))
        assert not torch.equal(everywhere(x), fixed(x))
        torch.testing.assert_close(everywhere(x)[1:], everywhere(x[1:]))
    with pytest.raises(UserError, match="it is one of lattice, random, all"):
        vitrail.create("dropoutvit_xs(chance='maybe')")


def test_what_it_cannot_take_is_refused_with_the_way_out():
    with pytest.raises(UserError, match="cannot serve filtervit's blocks .*; use filtervit_v2"):
        vitrail.create("filtervit_xs", reducer="pool")


# ours, not published: a change of widths should be meant
@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    [
        ("filtervit_v2_xxs", 1_179_242, 0.2274),
        ("filtervit_v2_xs", 2_274_955, 0.3353),
        ("filtervit_v2_s", 4_916_395, 0.8760),
        ("dropoutvit_v2_xs", 2_274_792, 0.3351),
    ],
)
def test_corrected_sizes(name, parameters, gmacs):
    model = on_meta(name)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert macs(model) / 1e9 == pytest.approx(gmacs, abs=0.0001)


def test_corrected_costs_a_third_of_the_published():
    for size in ("xxs", "xs", "s"):
        ours, published = on_meta(f"filtervit_v2_{size}"), on_meta(f"filtervit_{size}")
        assert 3 * macs(ours) < macs(published)


def test_corrected_maps_are_a_pyramid_and_read_one_field_of_positions():
    from vitrail.models.filtervit_v2 import position

    maps = on_meta("filtervit_v2_xs").features(torch.empty(1, 3, 224, 288, device="meta"))
    assert [tuple(m.shape[2:]) for m in maps] == [(56, 72), (28, 36), (14, 18), (7, 9)]
    built = position((8, 8), (8, 8), 16, torch.device("cpu"))
    finer = position((24, 24), (8, 8), 16, torch.device("cpu"))
    torch.testing.assert_close(finer[:, :, 1::3, 1::3], built)  # the same centres


def test_corrected_model_with_all_tokens_is_attention_everywhere():
    small = {"image": 64, "classes": 5, "depths": (1, 1, 1, 1)}
    every = vitrail.create("filtervit_v2_xxs", reducer="all", **small).eval()
    kept = vitrail.create(
        "filtervit_v2_xxs", reducer=("filter(keep=1.0)",) * 2 + ("all",) * 2, **small
    ).eval()
    kept.load_state_dict(every.state_dict(), strict=False)
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(every(x), kept(x), rtol=1e-4, atol=1e-5)
