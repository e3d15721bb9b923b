"""Comparison of two models on several batches; outputs that differ are refused."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from vitrail.errors import UserError

Answer = Callable[[Tensor], Tensor]

SEED = 5
LEAST = 1e-3
"""Outputs smaller than this are not taken for a scale."""


class ExportError(UserError):
    """A model that cannot be optimised or exported, or whose outputs then differ."""


@dataclass(frozen=True, kw_only=True)
class OutputDifference:
    """How far apart two models are on one batch.

    ``largest`` is the largest difference of two outputs, ``scale`` the largest output of the
    original, ``agree`` the share of pictures whose best class is the same.
    """

    batch: int
    height: int
    width: int
    largest: float
    scale: float
    agree: float

    @property
    def relative(self) -> float:
        """The largest difference as a share of the largest output."""
        return self.largest / max(self.scale, LEAST)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "relative": self.relative}


def batches_like(example: Tensor, batches: Iterable[int], sizes: Iterable[tuple[int, int]]) -> Any:
    """The example, then for each size and batch one of noise and one of smooth pictures."""
    yield example
    draw = torch.Generator().manual_seed(SEED)
    for size in sizes:
        for batch in batches:
            noise = torch.randn(batch, example.shape[1], *size, generator=draw)
            coarse = torch.randn(batch, example.shape[1], 4, 4, generator=draw)
            smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
            yield noise.to(example)
            yield smooth.to(example)


def compare(
    original: Answer, other: Answer, pictures: Iterable[Tensor]
) -> tuple[OutputDifference, ...]:
    """The differences on each batch."""
    return tuple(difference(x, original(x).float(), other(x).float()) for x in pictures)


def difference(pictures: Tensor, wanted: Tensor, given: Tensor) -> OutputDifference:
    """How far ``given`` is from ``wanted``, ``(B, K)`` both.

    Raises:
        ExportError: another shape, or a number that is none.
    """
    if given.shape != wanted.shape:
        raise ExportError(
            f"for pictures {tuple(pictures.shape)} the outputs are {tuple(given.shape)}, "
            f"not {tuple(wanted.shape)}; nothing was kept"
        )
    if not given.isfinite().all():
        raise ExportError(
            f"for pictures {tuple(pictures.shape)} some outputs are not finite; use float32"
        )
    batch, _, height, width = pictures.shape
    return OutputDifference(
        batch=batch,
        height=height,
        width=width,
        largest=float((given - wanted).abs().max()),
        scale=float(wanted.abs().max()),
        agree=float((given.argmax(-1) == wanted.argmax(-1)).float().mean()),
    )


def worst(differences: Iterable[OutputDifference]) -> OutputDifference:
    """The batch on which two models are furthest apart."""
    return max(differences, key=lambda d: d.relative)


def require(
    differences: Iterable[OutputDifference], tolerance: float, what: str
) -> OutputDifference:
    """The worst batch, if it is near enough.

    Raises:
        ExportError: the outputs differ by more than ``tolerance`` of the largest output.
    """
    found = worst(differences)
    if found.relative > tolerance:
        raise ExportError(
            f"{what} differs from the original by {found.relative:.1e} of the largest output "
            f"({found.largest:.1e}, batch {found.batch} of {found.height} x {found.width}); at "
            f"most {tolerance:.1e} is allowed: choose precision float32, or a larger tolerance if "
            "that is good enough for you; a model that chooses tokens (filter, clusters, merging) "
            "may have chosen others where two scores are nearly equal: try other pictures"
        )
    return found
