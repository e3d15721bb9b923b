"""Where a training starts: the word for its weights, what it means, and how images follow it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitrail.data import Preprocess
from vitrail.hub.origin import Weights
from vitrail.hub.weights import AUTO, NO_WEIGHTS
from vitrail.specs import parse_call

BUILT_IN = ("fashion", "scenes")
"""Sets that come with Vitrail, to try architectures on: trained from scratch unless asked."""


def default_word(data: str) -> str:
    """``none`` for a set that comes with Vitrail, else ``auto``."""
    if Path(data).exists() or data.partition("(")[0] not in BUILT_IN:
        return AUTO
    return NO_WEIGHTS if parse_call(data)[0] in BUILT_IN else AUTO


def choose_word(data: str, said: Mapping[str, Any]) -> str:
    """The word of a recipe's values; where they do not say, what is usual for the data.

    A recipe that says ``weights: null``, as older runs wrote it, starts from scratch.
    """
    return str(said["weights"] or NO_WEIGHTS) if "weights" in said else default_word(data)


def follow_weights(weights: Weights | None, kept: Mapping[str, Any], image: int) -> Preprocess:
    """How images are prepared: as for the weights, but for what is kept from a run.

    Raises:
        UserError: values that cannot be.
    """
    said = weights.preprocess if weights is not None else {}
    return Preprocess.from_dict({**said, **kept, "image": image})
