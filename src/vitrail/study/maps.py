"""Where a model looked when it was wrong: small overlays for a report.

pictures, the classes they were taken for -> map of each -> over what the model saw -> JPEG

Each job makes them while its weights are at hand, so that a report needs neither data nor model.
"""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vitrail.attribution.base import explain, methods
from vitrail.attribution.preserve import ExplainError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from vitrail.attribution import Explanation
    from vitrail.data import Preprocess

#: Tried in turn: the second where the first finds nothing that the answer hangs on.
METHODS = ("occlusion", "saliency")
SIDE = 112


def overlays(
    model: "nn.Module",
    images: "Sequence[Image.Image]",
    classes: Sequence[int],
    preprocess: "Preprocess",
) -> list[tuple[str, str]]:
    """For each picture its overlay as base64 JPEG and the method; two empty texts if none serves.

    ``classes`` are what is explained: what each picture was taken for.
    """
    import torch

    if not images:
        return []
    transform = preprocess.transform()
    inputs = torch.stack([transform(image) for image in images])
    pairs = zip(images, inputs.split(1), classes, strict=True)
    return [_one(model, image, one, label, preprocess) for image, one, label in pairs]


def _one(
    model: "nn.Module",
    image: "Image.Image",
    one: "Tensor",
    label: int,
    preprocess: "Preprocess",
) -> tuple[str, str]:
    for name in METHODS:
        if name not in methods():
            continue
        try:
            found = explain(model, one, name, label)
        except ExplainError:
            continue  # no layer to look at, or a map that is empty: the next method
        return _jpeg(image, found, preprocess), name
    return "", ""


def _jpeg(image: "Image.Image", found: "Explanation", preprocess: "Preprocess") -> str:
    """The map over the picture as the model saw it, ``SIDE`` px."""
    import numpy as np
    from PIL import Image

    from vitrail.attribution.draw import as_array, overlay

    pixels = preprocess.transform().prepare(image)
    seen = np.repeat(pixels, 3, -1) if pixels.shape[-1] == 1 else pixels
    drawn = Image.fromarray(overlay(seen, as_array(found.map[0]), found.signed))
    held = io.BytesIO()
    drawn.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(held, "JPEG", quality=85)
    return base64.b64encode(held.getvalue()).decode("ascii")
