"""One choice of working tokens for several blocks: ``hold``, in every reducer."""

from collections import Counter

import pytest
import torch
from tests.contracts.points import POINTS
from tests.contracts.structures import narrow

import vitrail
from vitrail.layers.blocks import HeldChoice
from vitrail.reducers import Reducer
from vitrail.specs import SpecError
from vitrail.testing import case

SCATTERED = (
    "cluster(hold={})",
    "merge(hold={})",
    "dpc_knn(hold={})",
    "budget(menu=(1, 4), hold={})",
    "paca(clusters=5, hold={})",
    "filter(keep=0.5, hold={})",
    "random(keep=0.5, hold={})",
)
COARSE = ("pool(hold={})",)
TWO = {
    "vit_tiny": {},
    "convit_tiny": {},
    "coat_lite_tiny": {"depths": (3, 1, 1, 1)},
    "mobilevit_xxs": {"depths": (2, 2, 1)},
    "cvt_13": {},
    "coatnet_0": {"depths": (1, 1, 3, 1)},
}


def calls(model, image=64):
    """How often each kind of chooser was asked in one picture."""
    seen = Counter()
    for module in model.modules():
        if isinstance(module, (Reducer, HeldChoice)):
            kind = "held" if isinstance(module, HeldChoice) else "chosen"
            module.register_forward_hook(lambda *_, kind=kind: seen.update([kind]))
    with torch.no_grad():
        model(torch.randn(1, 3, image, image))
    return seen


@pytest.mark.parametrize("name", TWO)
def test_working_tokens_that_go_on_are_what_carrying_back_and_reducing_gives(name):
    x = torch.randn(2, 3, 64, 64)
    for reducer in COARSE if name in ("cvt_13", "coatnet_0") else SCATTERED + COARSE:
        model = narrow(name, reducer=reducer.format(2), **TWO[name]).eval()
        with torch.no_grad():
            whole, (_, last) = model.forward_features(x), model.features_and_last(x)
        with case(reducer):
            torch.testing.assert_close(whole, last)


def test_a_choice_serves_as_many_blocks_as_it_is_held():
    for hold, chosen in ((1, 4), (2, 2), (3, 2), (4, 1), (9, 1)):
        model = narrow("vit_tiny", reducer=f"merge(hold={hold})").eval()
        seen = calls(model)
        assert (seen["chosen"], seen["held"]) == (chosen, 4 - chosen)


def test_only_who_chooses_learns_to():
    model = narrow("vit_tiny", reducer="filter(hold=2)")
    assert [n for n, _ in model.named_parameters() if n.endswith("score.weight")] == [
        "blocks.0.reducer.score.weight",
        "blocks.2.reducer.score.weight",
    ]


def test_weights_are_those_of_the_plain_model():
    plain, held = narrow("vit_tiny"), narrow("vit_tiny", reducer="merge(hold=4)")
    assert plain.state_dict().keys() == held.state_dict().keys()


HELD = {
    "vit_tiny": "merge(keep=0.5, hold=3)",
    "coat_lite_tiny": ("cluster(hold=2)", "all", "all", "all"),
}
AROUND = ("any_size", "checkpointing_changes_memory_only", "compiles")
"""What a local step between the blocks could break."""


@pytest.mark.parametrize(
    ("name", "point"),
    [("vit_tiny", point) for point in POINTS] + [("coat_lite_tiny", point) for point in AROUND],
)
def test_every_point_of_the_contract_holds(name, point):
    held = {**TWO[name], "reducer": HELD[name]}
    POINTS[point](lambda **options: narrow(name, **{**held, **options}))


@pytest.mark.parametrize("name", ["cmt_ti", "ceit_tiny", "cct_2_3x2", "filtervit_v2_xxs"])
def test_a_model_whose_blocks_all_choose_says_so(name):
    with pytest.raises(SpecError, match="leave hold out"):
        vitrail.create(name, reducer="pool(hold=2)")


def test_no_blocks_are_refused_with_a_remedy():
    with pytest.raises(SpecError, match="hold=1 chooses in every block"):
        vitrail.create("vit_tiny", reducer="cluster(hold=0)")


@pytest.mark.parametrize("method", ["rollout", "gradcam", "lrp", "cluster_map"])
def test_explanations_know_what_a_block_works_on(method):
    model = narrow("vit_tiny", reducer="cluster(hold=2)", classes=5).eval()
    found = vitrail.explain(model, torch.randn(1, 3, 64, 64), method=method)
    assert torch.isfinite(found.map).all()
