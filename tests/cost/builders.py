"""A builder that a fresh process can import: small models by name."""

from torch import nn

from vitrail.errors import UserError


def build(arm: str, *, classes: int, image: int, in_chans: int = 3) -> nn.Module:
    """``narrow`` and ``wide``: convolution, pooling, head, of 8 and 64 channels."""
    widths = {"narrow": 8, "wide": 64}
    if arm not in widths:
        raise UserError(f"no model {arm!r}; there are narrow, wide")
    width = widths[arm]
    return nn.Sequential(
        nn.Conv2d(in_chans, width, 3, padding=1),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )
