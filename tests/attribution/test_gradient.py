"""Gradients at the image: the formulas, completeness, and captum's figures."""

import captum.attr
import pytest
import torch
from tests.attribution.models import build, pictures
from torch import nn

import vitrail
from vitrail.attribution import ExplainError
from vitrail.attribution.gradient import legendre


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, 3),
        nn.GELU(),
        nn.Conv2d(8, 4, 3, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(3),
    )


def test_saliency_and_input_x_gradient_equal_captums() -> None:
    model, images = net(), pictures()
    model(images)
    wanted = captum.attr.Saliency(model).attribute(images.clone(), target=1).amax(1)
    found = vitrail.explain(model, images, method="saliency", target=1)
    torch.testing.assert_close(found.map, wanted)
    wanted = captum.attr.InputXGradient(model).attribute(images.clone(), target=1).sum(1)
    found = vitrail.explain(model, images, method="input_x_gradient", target=1)
    torch.testing.assert_close(found.map, wanted.detach())


def test_integrated_gradients_equal_captums() -> None:
    model, images = net(), pictures()
    model(images)
    way = captum.attr.IntegratedGradients(model)
    wanted = way.attribute(images.clone(), target=1, n_steps=20, method="gausslegendre").sum(1)
    found = vitrail.explain(
        model, images, method="integrated_gradients", target=1, steps=20, most=20
    )
    torch.testing.assert_close(found.map, wanted.float(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "text",
    ["vit_tiny", "coat_lite_tiny", "coatnet_0", "cmt_ti", "mobilevit_xxs", "convit_tiny", "cvt_13"],
)
def test_integrated_gradients_are_complete(text: str) -> None:
    found = vitrail.explain(build(text), pictures(), method="integrated_gradients", target=1)
    torch.testing.assert_close(found.map.sum((1, 2)), found.check["sum"], rtol=1e-3, atol=1e-4)
    assert (found.check["residual"].abs() <= 0.01 * found.check["gain"].abs()).all()


def test_a_baseline_may_be_a_picture() -> None:
    model, images = build("vit_tiny"), pictures(1)
    found = vitrail.explain(
        model, images, method="integrated_gradients", target=0, baseline=images[0] * 0.5
    )
    with torch.no_grad():
        gain = model.eval()(images)[0, 0] - model(images * 0.5)[0, 0]
    torch.testing.assert_close(found.check["gain"][0], gain)


def test_legendre_is_exact_for_polynomials() -> None:
    places, weights = (torch.tensor(t) for t in legendre(4))
    for power in range(8):
        assert (weights * places**power).sum() == pytest.approx(1 / (power + 1), abs=1e-6)


def test_smoothgrad_without_noise_is_saliency_and_seeds_matter() -> None:
    model, images = build("vit_tiny"), pictures()
    still = vitrail.explain(model, images, method="smoothgrad", samples=1, noise=0.0)
    plain = vitrail.explain(model, images, method="saliency")
    torch.testing.assert_close(still.map, plain.map)
    one, two = (
        vitrail.explain(model, images, method="smoothgrad", samples=2, seed=s).map for s in (0, 1)
    )
    assert not torch.allclose(one, two)


@pytest.mark.parametrize("options", [{"samples": 0}, {"noise": -1.0}])
def test_senseless_options_are_refused(options: dict) -> None:
    with pytest.raises(ExplainError, match="at least one sample"):
        vitrail.explain(build("vit_tiny"), pictures(), method="smoothgrad", **options)


def test_a_score_that_does_not_see_the_image_is_refused() -> None:
    class Deaf(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 0 * x.mean((2, 3))

    with pytest.raises(ExplainError, match="zero everywhere"):
        vitrail.explain(Deaf(), pictures(), method="saliency")
