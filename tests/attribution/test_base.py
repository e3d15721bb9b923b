"""The common question: what is refused, what an answer holds, how a method joins."""

import pytest
import torch
from torch import nn

import vitrail
from vitrail.attribution import ExplainError
from vitrail.attribution.base import Case, Method, MethodResult, Need, method

IMAGES = torch.randn(2, 3, 6, 8)


@pytest.fixture
def net(own_methods: dict[str, Method]) -> nn.Module:
    """A model, and methods of this test's own."""

    @method("plain", class_specific=True, needs={Need.GRADIENT})
    def plain(case: Case, *, times: float = 1.0) -> MethodResult:
        """A coarse map of ones."""
        return MethodResult(native=times * case.images.new_ones(case.images.shape[0], 3, 4))

    return nn.Sequential(nn.Flatten(), nn.Linear(144, 5))


def test_a_call_gives_map_target_and_score(net: nn.Module) -> None:
    found = vitrail.explain(net, IMAGES, method="plain", target=[1, 2], seed=3)
    assert found.map.shape == (2, 6, 8) and found.native.shape == (2, 3, 4)
    assert found.target == (1, 2) and found.class_specific and not found.signed
    assert torch.equal(found.score, net(IMAGES)[[0, 1], [1, 2]].detach())
    assert found.params == {"method": "plain", "seed": 3, "times": 1.0}
    assert found.seconds > 0


def test_one_image_is_a_batch_of_one(net: nn.Module) -> None:
    assert vitrail.explain(net, IMAGES[0], method="plain").map.shape == (1, 6, 8)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "plane"}, "no method 'plane'; close: plain"),
        ({"method": "plain", "twice": 1}, "no option 'twice'; it has times"),
        ({"method": "plain", "target": 5}, "classes 0 to 4"),
        ({"method": "plain", "times": 0.0}, "zero everywhere"),
        ({"method": "plain", "times": float("nan")}, "NaN"),
    ],
)
def test_what_cannot_be_is_refused(net: nn.Module, options: dict, said: str) -> None:
    with pytest.raises(vitrail.UserError, match=said):
        vitrail.explain(net, IMAGES, **options)


def test_compiled_models_are_refused_in_words(net: nn.Module) -> None:
    with pytest.raises(ExplainError, match="compiled; explain the eager model"):
        vitrail.explain(torch.compile(net), IMAGES, method="plain")


def test_images_must_be_float_batches(net: nn.Module) -> None:
    for images in (torch.zeros(6, 8), torch.zeros(1, 3, 6, 8, dtype=torch.uint8)):
        with pytest.raises(ExplainError, match="normalised float images"):
            vitrail.explain(net, images, method="plain")
