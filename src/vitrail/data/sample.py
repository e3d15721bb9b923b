"""The built-in sample: 2,500 real images of clothes, 28 x 28, grey, 10 balanced classes.

A cut of Fashion-MNIST (MIT, Zalando SE; ``sample/NOTICE.md``). Train holds 2,000 and test 500
images; like for every set without one, the validation part is cut out of train (a fifth by
default: 1,600 / 400 / 500).
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from PIL import Image

from vitrail.data.dataset import ImageDataset
from vitrail.data.items import Item, content_digest


@dataclass(frozen=True)
class SampleStore:
    """Images out of the package's own file."""

    def image(self, key: str, short_side: int | None) -> Image.Image:
        """``train/0012`` -> image 12 of train."""
        split, _, number = key.partition("/")
        return Image.fromarray(_arrays()[f"{split}_images"][int(number)]).convert("RGB")


@cache
def _arrays() -> dict[str, np.ndarray]:
    place = files("vitrail.data").joinpath("sample/fashion-mnist-mini.npz")
    with place.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def fashion() -> ImageDataset:
    """The sample as a set, in its official class order, without a validation part."""
    arrays = _arrays()
    items = tuple(
        Item(f"{split}/{i:04d}", int(label), split, content_digest(image.tobytes()), (28, 28))
        for split in ("train", "test")
        for i, (image, label) in enumerate(
            zip(arrays[f"{split}_images"], arrays[f"{split}_labels"], strict=True)
        )
    )
    classes = tuple(str(name) for name in arrays["classes"])
    return ImageDataset("fashion", classes, items, (), SampleStore())
