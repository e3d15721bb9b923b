"""An optimised model says what its original says, refuses what it cannot, tells what it did."""

import json

import pytest
import torch
from tests.contracts.structures import WIRINGS
from tests.export.small import pictures, smallest
from tests.parity.measured import randomised
from torch import nn

import vitrail
from vitrail.export import ExportError, optimize, optimized
from vitrail.export.optimized import OptimizationStep

TINY = "vit_tiny(patch=16, dim=24, heads=3, depth=1)"


# All others: python -m benchmarks.export_parity
@pytest.mark.parametrize("name", WIRINGS)
def test_every_wiring_says_the_same(name: str) -> None:
    model = smallest(name)
    made = optimize(model, pictures(2), compile=False)
    assert made.report.worst.relative <= 1e-5
    x = pictures(5, seed=9)
    with torch.no_grad():
        torch.testing.assert_close(made(x), model(x), rtol=1e-3, atol=1e-4)
    done = {step.name: step.changed for step in made.report.steps}
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert done["batch norms"] <= len(norms) + 8
    assert not norms or done["batch norms"] >= len(norms) // 2 or name.startswith("cmt")


@pytest.fixture(scope="module")
def tiny():
    model = randomised(vitrail.create(TINY, classes=5, image=64))
    return model, optimize(model, pictures(2), compile=False)


def test_training_is_refused(tiny) -> None:
    _, made = tiny
    with pytest.raises(ExportError, match="train the original"):
        made.train()
    assert made.eval() is made and not made.training


def test_another_size_is_refused_in_words(tiny) -> None:
    _, made = tiny
    with pytest.raises(ExportError, match="optimised for pictures of 3 x 64 x 64.*resize"):
        made(pictures(1, (96, 64)))


def test_the_original_is_left_alone() -> None:
    model = randomised(vitrail.create(TINY, classes=5, image=64)).train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    made = optimize(model, pictures(2), compile=False)
    wanted = made(pictures(2))
    assert model.training
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert torch.equal(made(pictures(2)), wanted)


def test_bf16_is_near_and_says_how_near() -> None:
    model = smallest("cct_2_3x2")
    made = optimize(model, pictures(2), precision="bf16", compile=False)
    assert made(pictures(2)).dtype == torch.float32
    assert 1e-5 < made.report.worst.relative < 0.06
    assert all(t.dtype != torch.float32 or t.is_mkldnn for t in made.buffers())


def test_bf16_without_the_instructions_is_served_with_a_warning(monkeypatch) -> None:
    model = smallest("vit_tiny")
    monkeypatch.setattr(optimized, "has_bfloat16", lambda device: False)
    monkeypatch.setattr(optimized, "can_pack", lambda dtype: False)
    with pytest.warns(UserWarning, match="no bfloat16 in hardware here"):
        made = optimize(model, pictures(2), precision="bf16", compile=False)
    assert "slices" not in {step.name for step in made.report.steps}


def test_int8_does_not_overflow() -> None:
    """Weights and activations at their largest, all of one sign: sums in 16 bits would clip."""
    wide, head = nn.Linear(256, 256), nn.Linear(256, 2)
    for layer in (wide, head):
        nn.init.constant_(layer.weight, 0.01)
    model = nn.Sequential(nn.Flatten(), wide, head)
    x = torch.ones(2, 1, 16, 16)
    made = optimize(model, x, precision="int8")
    assert {s.name: s.changed for s in made.report.steps}["int8"] == 1
    torch.testing.assert_close(made(x), model(x), rtol=1e-3, atol=1e-3)


def test_int8_is_near_and_leaves_the_head_alone() -> None:
    wide = "vit_tiny(patch=16, dim=128, heads=4, depth=1)"
    model = randomised(vitrail.create(wide, classes=5, image=64))
    made = optimize(model, pictures(2), precision="int8")
    done = {step.name: step.changed for step in made.report.steps}
    assert done["int8"] == 4 and not made.report.compiled
    assert 1e-4 < made.report.worst.relative < 0.12


def test_outputs_that_do_not_agree_are_never_handed_out(monkeypatch) -> None:
    def spoil(graph) -> int:
        for name, value in list(graph._buffers.items()):
            if value.is_floating_point() and value.dim() == 2:
                graph._buffers[name] = value * 1.01
        return 1

    wrong = OptimizationStep("wrong", "weights spoilt", spoil)
    monkeypatch.setattr(optimized, "FOLDING", (*optimized.FOLDING, wrong))
    model = randomised(vitrail.create(TINY, classes=5, image=64))
    with pytest.raises(ExportError, match="differs from the original by .* at most 1.0e-04"):
        optimize(model, pictures(2), compile=False)
    assert optimize(model, pictures(2), compile=False, tolerance=0.5).report.tolerance == 0.5


def test_clusters_by_content_are_refused() -> None:
    model = vitrail.create(TINY, classes=5, image=64, reducer="cluster(by='e2lsh')").eval()
    with pytest.raises(ExportError, match="reducer.*by='window'"):
        optimize(model, pictures(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "no precision 'fp8'; there are float32"),
        ({"compile": "maybe"}, "it is True, False or 'auto'"),
    ],
)
def test_what_has_no_meaning(options, message, tiny) -> None:
    with pytest.raises(ExportError, match=message):
        optimize(tiny[0], pictures(2), **options)
    with pytest.raises(ExportError, match="not \\(B, C, H, W\\)"):
        optimize(tiny[0], torch.zeros(3, 64, 64))


def test_every_step_is_timed_when_asked(tiny, monkeypatch) -> None:
    for name, value in (("WINDOW_S", 0.01), ("WARMUP_S", 0.01), ("ROUNDS", 1)):
        monkeypatch.setattr(optimized, name, value)
    made = optimize(tiny[0], pictures(1), compile=False, measure=True)
    report = json.loads(json.dumps(made.report.to_dict()))
    assert [s["name"] for s in report["steps"]] == [s.name for s in made.report.steps]
    assert all(s["ms"] > 0 for s in report["steps"])
    assert report["steps"][0]["speedup"] is None and report["steps"][-1]["speedup"] > 0
    assert "cpu" in report["machine"]
    assert "largest difference" in str(made.report)
    assert len(made.report.table().rows) == len(report["steps"])


def test_models_of_other_libraries_too() -> None:
    timm = pytest.importorskip("timm")
    model = randomised(timm.create_model("mobilevit_xxs", num_classes=5))
    made = optimize(model, pictures(2), compile=False)
    done = {step.name: step.changed for step in made.report.steps}
    assert done["batch norms"] == sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def test_compiled_with_frozen_weights() -> None:
    import torch._inductor.config as config

    stem = nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.BatchNorm2d(8), nn.GELU())
    model = randomised(nn.Sequential(stem, nn.Flatten(), nn.Linear(128, 5)))
    before = config.freezing
    made = optimize(model, pictures(2), compile=True)
    assert config.freezing == before
    assert made.report.compiled and made.report.worst.relative <= 1e-4
