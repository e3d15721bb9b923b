"""Images to tensors, in two steps: ``prepare`` (always the same) and ``finish``.

::

    PIL RGB -> prepare: shrink [, centre crop] -> uint8 (H, W, C)   what the loader's cache keeps
            -> finish:  [random choices,] to float, normalise -> float (C, H, W)

``Preprocess`` (evaluation, prediction, export) and ``Augment`` (training) are plain records that
travel with a run; the operations themselves are torchvision's (``transforms.v2``). Mixup and
CutMix act on batches and belong to the training room.
"""

import math
import re
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitrail.errors import UserError
from vitrail.schema import build

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MOST_PIXELS = 2**13
"""No model is given a larger edge; Pillow takes squares of a larger one for an attack."""


#: Before a centre crop, images are cut to this long side over short side.
_THINNEST = 50
_LEAST_STD, _LARGEST = 1e-4, 10.0
_SCALE = "; pixels go to 0..1 first, so values of 0..255 are divided by 255"
_MOST_OPERATIONS = 20


class Transform(Protocol):
    """What an image set applies: ``finish(prepare(image))``."""

    #: Whether ``finish`` makes random choices (drawn from torch's global generator).
    random: bool

    @property
    def short_side(self) -> int | None:
        """JPEGs may be decoded small, if the short side stays at least this; None: never."""
        ...

    def prepare(self, image: Image.Image) -> np.ndarray:
        """The part without choices: uint8 ``(H, W, C)``, may be kept and used again."""
        ...

    def prepared_bytes(self, size: tuple[int, int]) -> int:
        """Bytes that ``prepare`` makes of an image of (width, height); (0, 0) is unknown."""
        ...

    def finish(self, prepared: np.ndarray) -> Tensor:
        """To a float tensor ``(C, H, W)``."""
        ...

    def __call__(self, image: Image.Image) -> Tensor:
        """Both."""
        ...


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes the input of a model in evaluation.

    The short side is resized to ``image / crop``, the middle ``image`` x ``image`` is cut out,
    values go to 0..1, then ``(value - mean) / std``. With ``in_chans=1`` images become grey,
    and three means (or deviations) are averaged into one.
    """

    image: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bicubic"
    crop: float = 0.9
    in_chans: int = 3

    def __post_init__(self) -> None:
        if self.image < 1:
            raise UserError(f"the image size must be 1 or more, not {self.image}")
        if not 0 < self.crop <= 1:
            raise UserError(f"crop must be above 0 and at most 1, not {self.crop}")
        if self.image / self.crop > MOST_PIXELS:
            raise UserError(
                f"pictures of {self.image} px (crop {self.crop:g}) are larger than {MOST_PIXELS} px"
            )
        if self.in_chans not in (1, 3):
            raise UserError(f"pictures have 1 or 3 channels (in_chans), not {self.in_chans}")
        if self.interpolation not in ("bicubic", "bilinear", "nearest", "lanczos"):
            raise UserError(
                f"no interpolation {self.interpolation!r}; there are bicubic, bilinear, nearest, "
                "lanczos"
            )
        object.__setattr__(self, "mean", self._channels("mean", self.mean))
        object.__setattr__(self, "std", self._channels("std", self.std))
        if not all(_LEAST_STD <= value <= _LARGEST for value in self.std):
            raise UserError(f"std must be {_LEAST_STD:g} to {_LARGEST:g}, not {self.std}{_SCALE}")
        if not all(abs(value) <= _LARGEST for value in self.mean):
            raise UserError(f"mean must be -{_LARGEST:g} to {_LARGEST:g}, not {self.mean}{_SCALE}")

    def _channels(self, name: str, values: tuple[float, ...]) -> tuple[float, ...]:
        values = tuple(float(value) for value in values)
        if not all(map(math.isfinite, values)):
            raise UserError(f"{name} must be finite numbers, not {values}")
        if len(values) == self.in_chans:
            return values
        if self.in_chans == 1 and len(values) == 3:
            return (round(sum(values) / 3, 6),)
        raise UserError(f"{name} has {len(values)} values for {self.in_chans} channels")

    @property
    def resize_side(self) -> int:
        """The short side before the crop, in pixels."""
        return max(self.image, round(self.image / self.crop))

    def transform(self) -> "EvalTransform":
        """PIL image -> float tensor ``(C, image, image)``."""
        return EvalTransform(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and texts, for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`.

        Raises:
            UserError: unknown names or values.
        """
        return build(cls, values, "preprocessing")

    def describe(self) -> str:
        """One line for people."""
        mean = " ".join(f"{value:.3g}" for value in self.mean)
        std = " ".join(f"{value:.3g}" for value in self.std)
        colour = "grey, " if self.in_chans == 1 else ""
        return (
            f"{colour}short side to {self.resize_side} ({self.interpolation}), "
            f"centre {self.image} x {self.image}, mean {mean}, std {std}"
        )


class EvalTransform:
    """``Preprocess`` at work. No random choices."""

    random = False
    # Full decoding always, so that validation and prediction see the same pixels.
    short_side: int | None = None

    def __init__(self, preprocess: Preprocess):
        from torchvision.transforms import v2

        self.preprocess = preprocess
        how = _interpolation(preprocess.interpolation)
        self._shape = v2.Compose(
            [v2.Resize(preprocess.resize_side, how), v2.CenterCrop(preprocess.image)]
        )
        self._values = _Normalize(preprocess)

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Grey if asked, resize, crop: ``(image, image, C)``."""
        return _to_array(self._shape(_convert_mode(crop_thin(image), self.preprocess)))

    def prepared_bytes(self, size: tuple[int, int]) -> int:
        """The same for every image."""
        return self.preprocess.image**2 * self.preprocess.in_chans

    def finish(self, prepared: np.ndarray) -> Tensor:
        """Float and normalised."""
        return self._values(_to_tensor(prepared))

    def __call__(self, image: Image.Image) -> Tensor:
        """``(image, image)`` of any PIL image in RGB or grey."""
        return self.finish(self.prepare(image))


@dataclass(frozen=True, kw_only=True)
class Augment:
    """The random choices of training, made anew for each image in each epoch.

    Every field is off at its zero (None, 0.0, or (1, 1)).

    ``scale``, ``ratio``: area share and aspect of the random resized crop. ``flip``: chance to be
    mirrored. ``rand_augment``: ``"m9-n2"`` is magnitude 9 of 30, 2 operations (Cubuk et al. 2020,
    arXiv:1909.13719). ``color_jitter``: strength for brightness, contrast and saturation.
    ``erase``: chance that a rectangle becomes the mean colour (Zhong et al. 2020,
    arXiv:1708.04896).
    """

    scale: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    rand_augment: str | None = "m9-n2"
    color_jitter: float = 0.0
    erase: float = 0.1

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise UserError(f"scale must be 0 < low <= high <= 1, not {self.scale}")
        if not 1 / _THINNEST <= self.ratio[0] <= self.ratio[1] <= _THINNEST:
            raise UserError(
                f"ratio must be 1/{_THINNEST} <= low <= high <= {_THINNEST}, not {self.ratio}"
            )
        for name in ("flip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is a chance from 0 to 1, not {getattr(self, name)}")
        if not 0 <= self.color_jitter <= _LARGEST:
            raise UserError(f"color_jitter must be 0 to {_LARGEST:g}, not {self.color_jitter}")
        if self.rand_augment is not None:
            rand_augment_numbers(self.rand_augment)

    def transform(self, preprocess: Preprocess) -> "TrainTransform":
        """PIL image -> float tensor ``(C, image, image)``, using torch's generator."""
        return TrainTransform(self, preprocess)


class TrainTransform:
    """``Augment`` at work, ending in the values of ``preprocess``.

    ``prepare`` shrinks (never enlarges) the short side to ``image / sqrt(mean of scale)``: the
    size at which the average crop is exactly as large as the model's input. Larger originals would
    cost time and memory for detail that most crops throw away.
    """

    random = True

    def __init__(self, augment: Augment, preprocess: Preprocess):
        self.augment, self.preprocess = augment, preprocess
        self.short_side = math.ceil(preprocess.image / math.sqrt(sum(augment.scale) / 2))
        self._crop, self._colours, self._erase = _random_parts(augment, preprocess)
        self._values = _Normalize(preprocess)

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Grey if asked, shrunk to what the crops need."""
        image = _convert_mode(image, self.preprocess)
        size = self._shrink_size(image.size)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
        return _to_array(image)

    def prepared_bytes(self, size: tuple[int, int]) -> int:
        """After shrinking; a square where the size is unknown."""
        width, height = self._shrink_size(size) if min(size) else (self.short_side, self.short_side)
        return width * height * self.preprocess.in_chans

    def _shrink_size(self, size: tuple[int, int]) -> tuple[int, int]:
        short = min(size)
        if short <= self.short_side:
            return size
        width, height = (max(self.short_side, round(n * self.short_side / short)) for n in size)
        return width, height

    def finish(self, prepared: np.ndarray) -> Tensor:
        """Crop, mirror, colours on 8 bits; float and normalised; erase."""
        cropped = self._crop(_to_tensor(prepared))
        if self._colours is not None:
            # RandAugment and jitter are two to ten times faster on Pillow than on small tensors.
            cropped = _to_tensor(_to_array(self._colours(_to_picture(cropped))))
        return self._erase(self._values(cropped))

    def __call__(self, image: Image.Image) -> Tensor:
        """``(C, image, image)`` of any PIL image in RGB or grey."""
        return self.finish(self.prepare(image))


def crop_thin(image: Image.Image) -> Image.Image:
    """Of a very thin image the middle, which is all that a centre crop sees.

    Enlarging the whole of it first would take memory without bound.
    """
    width, height = image.size
    most = _THINNEST * min(width, height)
    if max(width, height) <= most:
        return image
    left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
    return image.crop((left, top, width - left, height - top))


def rand_augment_numbers(text: str) -> tuple[int, int]:
    """``"m9-n2"`` -> (magnitude 9, operations 2).

    Raises:
        UserError: another form, magnitude above 30, no operation or too many.
    """
    parts = re.fullmatch(r"m([0-9]{1,9})-n([0-9]{1,9})", "-".join(sorted(text.split("-"))))
    if parts is None:
        raise UserError(f"rand_augment {text!r} is not of the form m9-n2 (magnitude, operations)")
    magnitude, number = int(parts[1]), int(parts[2])
    if magnitude > 30 or not 1 <= number <= _MOST_OPERATIONS:
        raise UserError(
            f"rand_augment {text!r}: magnitude 0 to 30, 1 to {_MOST_OPERATIONS} operations"
        )
    return magnitude, number


class _Normalize:
    """uint8 ``(C, H, W)`` -> normalised float, as one multiply and one add."""

    def __init__(self, preprocess: Preprocess):
        std = torch.tensor(preprocess.std)[:, None, None]
        mean = torch.tensor(preprocess.mean)[:, None, None]
        self.scale, self.shift = 1 / (255 * std), -mean / std

    def __call__(self, image: Tensor) -> Tensor:
        return torch.addcmul(self.shift, image.float(), self.scale)


def _random_parts(augment: Augment, preprocess: Preprocess) -> tuple[Any, Any, Any]:
    from torchvision.transforms import v2

    how = _interpolation(preprocess.interpolation)
    crop: list[Any] = [v2.RandomResizedCrop(preprocess.image, augment.scale, augment.ratio, how)]
    crop += [v2.RandomHorizontalFlip(augment.flip)] if augment.flip else []
    colours: list[Any] = []
    if augment.color_jitter:
        colours.append(v2.ColorJitter(*[augment.color_jitter] * 3))
    if augment.rand_augment:
        magnitude, number = rand_augment_numbers(augment.rand_augment)
        colours.append(v2.RandAugment(number, magnitude, fill=_fill(preprocess)))
    erase = v2.RandomErasing(augment.erase) if augment.erase else v2.Identity()
    return v2.Compose(crop), v2.Compose(colours) if colours else None, erase


def _fill(preprocess: Preprocess) -> list[float]:
    return [min(255, max(0, round(255 * value))) for value in preprocess.mean]


def _interpolation(name: str) -> Any:
    from torchvision.transforms import InterpolationMode

    return InterpolationMode(name)


def _convert_mode(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    mode = "L" if preprocess.in_chans == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _to_array(image: Image.Image) -> np.ndarray:
    """uint8 ``(H, W, C)``, writable."""
    array = np.array(image)
    return array if array.ndim == 3 else array[:, :, None]


def _to_tensor(array: np.ndarray) -> Tensor:
    """``(H, W, C)`` -> ``(C, H, W)``, a view."""
    return torch.from_numpy(array).permute(2, 0, 1)


def _to_picture(image: Tensor) -> Image.Image:
    array = image.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
