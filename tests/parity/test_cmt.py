"""CMT against the outputs, names and sizes of its released code (ggjy/CMT.pytorch 07e72b7)."""

import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import vitrail
from vitrail.errors import UserError
from vitrail.mixers.reduced import resize_bias
from vitrail.models import load_into

# parameters of the released code; published parameters (M) and multiply-adds (G), at its own size
SIZES = {
    "cmt_ti": (9_492_426, 9.5, 0.6),
    "cmt_xs": (15_247_208, 15.2, 1.5),
    "cmt_s": (26_256_160, 25.1, 4.0),
    "cmt_b": (45_715_076, 45.7, 9.3),
}


@pytest.fixture
def golden(shared, monkeypatch):
    """Reads one file of golden outputs."""
    monkeypatch.syspath_prepend(str(shared / "reference"))
    from golden_fill import golden_input, load_golden

    def read(name):
        file = load_golden(str(shared / "reference" / "golden" / f"{name}.npz"))
        state = {k: torch.from_numpy(v) for k, v in file["state"].items()}
        x = torch.from_numpy(golden_input(2, file["size"], file["size"]))
        return state, x, torch.from_numpy(file["logits"])

    yield read
    sys.modules.pop("golden_fill")


@pytest.mark.parametrize("name", ["cmt_ti", "cmt_s"])
def test_golden_outputs_of_the_official_code(name, golden):
    state, x, wanted = golden(name)
    ours = vitrail.create(name).eval()
    load_into(ours, state)
    with torch.no_grad():
        assert (ours(x) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("name", SIZES)
def test_parameters_and_multiply_adds(name):
    with torch.device("meta"):
        model = vitrail.create(name).eval()
    exact, millions, gmacs = SIZES[name]
    counted = sum(p.numel() for p in model.parameters())
    assert counted == exact
    assert counted / 1e6 == pytest.approx(millions, rel=0.05 if name == "cmt_s" else 0.005)
    counter = FlopCounterMode(display=False)
    side = model.config.image
    with counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(torch.empty(1, 3, side, side, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, abs=0.051)


def test_official_names_are_taken_strictly(golden):
    state, _, _ = golden("cmt_ti")
    with pytest.raises(UserError, match="of another shape"):
        load_into(vitrail.create("cmt_ti(mlp_ratio=4.0)"), state)
    state["blocks_a.0.attn.extra"] = torch.zeros(1)
    with pytest.raises(UserError, match="1 tensors unknown"):
        load_into(vitrail.create("cmt_ti"), state)
    del state["blocks_a.0.attn.extra"], state["relative_pos_c"]
    with pytest.raises(UserError, match="1 tensors missing, such as stages.2.shared.table"):
        load_into(vitrail.create("cmt_ti"), state)


def test_tables_resize_when_loading_as_they_do_at_a_call(golden):
    state, _, _ = golden("cmt_ti")
    ours, large = vitrail.create("cmt_ti"), vitrail.create("cmt_ti", image=(96, 75), classes=3)
    load_into(ours, dict(state))
    load_into(large, dict(state))
    assert large.stages[0].shared.table.shape == (1, 24 * 19, 3 * 3)
    x = torch.randn(1, 3, 96, 75)
    with torch.no_grad():
        torch.testing.assert_close(
            large.eval().forward_features(x),
            ours.eval().forward_features(x),
            rtol=1e-4,
            atol=1e-4,
        )


def test_a_table_without_a_square_is_refused(golden):
    state, _, _ = golden("cmt_ti")
    state["relative_pos_c"] = torch.zeros(4, 10 * 12, 5 * 6)
    with pytest.raises(UserError, match="for 120 places is no square"):
        load_into(vitrail.create("cmt_ti"), state)


def test_bias_is_resized_along_queries_then_keys():
    rows, columns = torch.arange(4.0).view(4, 1), torch.arange(4.0)
    queries = (rows + 10 * columns).reshape(16, 1)  # linear in the place of the query
    keys = torch.tensor([0.0, 100.0, 200.0, 300.0])  # and of the key, on 2 x 2
    grown = resize_bias((queries + keys).unsqueeze(0), (4, 4), (8, 8), 2)
    assert grown.shape == (1, 64, 16)
    inner = grown[0].view(8, 8, 4, 4)[2:6, 2:6]  # where bilinear does not meet an edge
    steps = inner[1:] - inner[:-1], inner[:, 1:] - inner[:, :-1]
    torch.testing.assert_close(steps[0], torch.full_like(steps[0], 0.5))
    torch.testing.assert_close(steps[1], torch.full_like(steps[1], 5.0))
    torch.testing.assert_close(grown.mean(), (queries + keys).mean())
    assert resize_bias(grown, (8, 8), (8, 8), 2) is grown


def test_blocks_of_a_stage_share_one_bias():
    model = vitrail.create("cmt_ti", image=64)
    tables = [n for n, _ in model.named_parameters() if n.endswith("table")]
    assert tables == [f"stages.{i}.shared.table" for i in range(4)]
    assert set(tables) == model.no_weight_decay()


def test_reducers_need_a_grid():
    with pytest.raises(UserError, match="'cluster' cannot serve cmt's stage 1 .*; use reducer"):
        vitrail.create("cmt_ti", mixer="softmax", reducer="cluster")
    model = vitrail.create("cmt_ti", image=64, reducer="pool(size=1)").eval()
    plain = vitrail.create("cmt_ti", image=64).eval()
    plain.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), plain(x), rtol=1e-4, atol=1e-5)
