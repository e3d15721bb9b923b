"""Rollout keeps its mass, is the matrix form where there is one, and reads the right tokens."""

import pytest
import torch
import torch.nn.functional as F
from tests.attribution.models import TEXTS, build, pictures
from tests.contracts.test_backbones import SHALLOW, family_of
from torch import nn

import vitrail
from vitrail.attribution import ExplainError
from vitrail.attribution.mixing import operator
from vitrail.attribution.record import mixer_calls, parts_of, recording
from vitrail.reducers import ReducerSpec
from vitrail.testing import case


@pytest.mark.parametrize("text", TEXTS)
def test_mass_is_one_at_every_layer(text: str) -> None:
    for residual in ("half", "norm"):
        with case(residual):
            mass_is_one_at_every_layer(build(text), residual)


def mass_is_one_at_every_layer(model: nn.Module, residual: str) -> None:
    found = vitrail.explain(model, pictures(), method="rollout", residual=residual)
    assert found.check["mass_error"].max() < 1e-5
    inside = [m for m in model.modules() if type(m).__name__.endswith(("Attention", "After"))]
    assert len(found.layers) >= min(2, len(inside))
    for layer in found.layers.values():
        maps = [t for k, t in layer.tensors.items() if k.startswith("map")]
        assert all((m > -1e-6).all() for m in maps)


@pytest.mark.parametrize("text", TEXTS)
def test_every_step_mixes_by_rows_that_sum_to_one(text: str) -> None:
    model = build(text).eval()
    with torch.no_grad(), recording(model, parts_of(model)) as calls:
        model(pictures())
    steps = mixer_calls(calls)
    assert steps
    for step in steps:
        ones = torch.ones(*step.tokens.shape[:2], 1)
        torch.testing.assert_close(operator(step)(ones), ones, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reducer", ReducerSpec.known)
def test_mass_is_one_through_every_reducer(reducer: str) -> None:
    torch.manual_seed(0)
    model = vitrail.create("vit_tiny", depth=2, dim=48, patch=8, image=64, reducer=reducer)
    found = vitrail.explain(model, pictures(), method="rollout")
    assert found.check["mass_error"].max() < 1e-5
    assert all((layer.tensors["map"] > -1e-6).all() for layer in found.layers.values())
    weighed = vitrail.explain(model, pictures(), method="grad_rollout", target=3)
    assert (weighed.map >= 0).all() and weighed.map.isfinite().all()


def attentions(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad(), recording(model, parts_of(model)) as calls:
        model(images)
    return [s.mixer.explain(s.tokens, s.grid)["attention"] for s in mixer_calls(calls)]


def test_vit_rollout_is_the_matrix_form() -> None:
    """Abnar and Zuidema's product of matrices, written out."""
    model, images = build("vit_tiny").eval(), pictures()
    whole = torch.eye(21)  # 5 x 4 patches and the class token
    for matrix in attentions(model, images):
        whole = (matrix.mean(1) + torch.eye(21)) / 2 @ whole
    wanted = whole[:, 0, 1:].unflatten(1, (5, 4))
    found = vitrail.explain(model, images, method="rollout")
    torch.testing.assert_close(found.native, wanted, rtol=1e-5, atol=1e-7)


def test_vit_grad_rollout_is_chefers_product() -> None:
    """R <- R + mean relu(A dA) R, with dA by autograd through spelled-out attention."""
    model, images = build("vit_tiny").eval(), pictures()
    kept: list[torch.Tensor] = []

    def spelled(block: nn.Module) -> None:
        mixer = block.mixer

        def forward(x, grid, shared=None, plan=None):  # type: ignore[no-untyped-def]
            parts = mixer.explain(x, grid)
            kept.append(parts["attention"])
            return mixer.proj((parts["attention"] @ parts["values"]).transpose(1, 2).flatten(2))

        mixer.forward = forward

    for block in model.blocks:
        spelled(block)
    try:
        score = model(images)[:, 2]
    finally:
        for block in model.blocks:
            del block.mixer.forward
    grads = torch.autograd.grad(score.sum(), kept)
    whole = torch.eye(21)
    for matrix, grad in zip(kept, grads, strict=True):
        whole = whole + (matrix * grad).clamp(min=0).mean(1) @ whole
    found = vitrail.explain(model, images, method="grad_rollout", target=2)
    wanted = whole[:, 0, 1:].unflatten(1, (5, 4)).detach()
    torch.testing.assert_close(found.native, wanted, rtol=1e-4, atol=1e-8)


def test_selection_leaves_resting_tokens_where_they_are() -> None:
    """One block with a filter, by the matrix of the reference: r - S'S r + S' A S r, and halves."""
    text = "vit_tiny(resize='corner')"
    model, images = build(text).eval(), pictures(1)
    with torch.no_grad(), recording(model, parts_of(model)) as calls:
        model(images)
    wanted = torch.eye(21)
    for step in mixer_calls(calls):
        index = torch.cat((torch.zeros(1, dtype=torch.long), step.plan.index[0] + 1))
        choose = F.one_hot(index, 21).float()
        matrix = step.mixer.explain(step.tokens, step.grid, None, step.plan)["attention"].mean(1)[0]
        mixed = (torch.eye(len(index)) + matrix) / 2
        wanted = (torch.eye(21) - choose.T @ choose + choose.T @ mixed @ choose) @ wanted
    found = vitrail.explain(model, images, method="rollout")
    torch.testing.assert_close(found.native[0].flatten(), wanted[0, 1:], rtol=1e-5, atol=1e-7)


def test_attention_of_one_layer_is_the_class_tokens_row() -> None:
    model, images = build("vit_tiny").eval(), pictures()
    wanted = attentions(model, images)[0].mean(1)[:, 0, 1:].unflatten(1, (5, 4))
    found = vitrail.explain(model, images, method="attention", layer=0)
    torch.testing.assert_close(found.native, wanted)
    named = vitrail.explain(model, images, method="attention", layer="blocks.0.mixer")
    assert torch.equal(named.native, found.native)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "attention", "layer": 9}, "the model has 2 mixers"),
        ({"method": "attention", "layer": "head"}, "no mixer 'head'; there are blocks.0.mixer"),
        ({"method": "rollout", "residual": "full"}, "it is 'half' or 'norm'"),
    ],
)
def test_what_cannot_be_is_refused(options: dict, said: str) -> None:
    with pytest.raises(ExplainError, match=said):
        vitrail.explain(build("vit_tiny"), pictures(), **options)


def test_models_without_mixers_are_refused() -> None:
    with pytest.raises(ExplainError, match="no mixer of Vitrail's"):
        vitrail.explain(
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            pictures(),
            method="rollout",
        )


@pytest.mark.parametrize("name", ["vit_rel_tiny", "sl_vit", "coatnet_6", "coatnet_cttt"])
def test_other_layouts_of_a_family(name: str) -> None:
    torch.manual_seed(0)
    model = vitrail.create(name, classes=5, image=64, **SHALLOW[family_of(name)])
    found = vitrail.explain(model, pictures(1), method="rollout")
    assert found.check["mass_error"].max() < 1e-5
    assert vitrail.explain(model, pictures(1), "gradcam", positive=False).map.any()


def test_a_layout_of_convolutions_alone_has_no_attention() -> None:
    model = vitrail.create("coatnet_cccc", classes=5, image=64, **SHALLOW["coatnet"])
    with pytest.raises(ExplainError, match="no mixer"):
        vitrail.explain(model, pictures(1), method="rollout")
    assert vitrail.explain(model, pictures(1), "gradcam", positive=False).map.any()


def test_a_mixer_that_says_nothing_is_named() -> None:
    model = vitrail.create("vit_tiny(depth=1, dim=48)", classes=3, image=32)
    model.blocks[0].mixer.explain = lambda *_: {"whatever": torch.zeros(1)}
    with pytest.raises(ExplainError, match=r"blocks\.0\.mixer .* explains whatever"):
        vitrail.explain(model, torch.randn(1, 3, 32, 32), method="rollout")
