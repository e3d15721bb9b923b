"""Overlays of mistakes: made where a method serves, empty where none does."""

import base64
import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.attribution import ExplainError, base
from vitrail.attribution.base import Case, Method, MethodResult, method
from vitrail.data import Preprocess
from vitrail.study.maps import SIDE, overlays

PICTURES = [
    Image.fromarray(np.random.default_rng(i).integers(0, 255, (30, 40, 3), dtype=np.uint8))
    for i in range(2)
]
PREPROCESS = Preprocess(image=16)


@pytest.fixture(autouse=True)
def toys(own_methods: dict[str, Method], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    own_methods.clear()
    monkeypatch.setattr(base, "MODULES", ())

    @method("occlusion", class_specific=True)
    def occlusion(case: Case) -> MethodResult:
        """Serves class 1 alone."""
        if case.goal.classes != (1,):
            raise ExplainError("no layer")
        return MethodResult(native=torch.arange(16.0).view(1, 4, 4))

    yield


def model(images: torch.Tensor) -> torch.Tensor:
    return images.mean((2, 3))


def test_each_picture_gets_the_first_method_that_serves() -> None:
    drawn = overlays(model, PICTURES, [1, 2], PREPROCESS)  # type: ignore[arg-type]
    assert drawn[1] == ("", "")
    jpeg, name = drawn[0]
    assert name == "occlusion"
    with Image.open(io.BytesIO(base64.b64decode(jpeg))) as found:
        assert found.size == (SIDE, SIDE) and found.format == "JPEG"


def test_the_second_method_steps_in() -> None:
    @method("saliency", class_specific=True)
    def saliency(case: Case) -> MethodResult:
        """Anything."""
        return MethodResult(native=case.images.abs().amax(1))

    names = [name for _, name in overlays(model, PICTURES, [1, 2], PREPROCESS)]  # type: ignore[arg-type]
    assert names == ["occlusion", "saliency"]


def test_no_mistakes_no_maps() -> None:
    assert overlays(model, [], [], PREPROCESS) == []  # type: ignore[arg-type]
