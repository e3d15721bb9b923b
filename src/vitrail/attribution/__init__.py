"""Where a model's answer lies; people call ``vitrail.explain(model, images, method=...)``.

image -> guarded model -> method (masks, CAM, rollout, gradients, relevance, perturbation) -> map

The package itself can be called, so ``vitrail.explain(...)`` and ``from vitrail.attribution import
Explanation`` both do what they say.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitrail.attribution.base import (
        Explanation,
        LayerRecord,
        Method,
        MethodResult,
        explain,
        find_method,
        methods,
    )
    from vitrail.attribution.cam_layers import CamLayer, layers_of
    from vitrail.attribution.detector import BoxLogits
    from vitrail.attribution.preserve import ExplainError, preserve_state
    from vitrail.attribution.scale import normalise
    from vitrail.attribution.targets import box_score, class_in_region, contrast

__all__ = [
    "BoxLogits",
    "CamLayer",
    "ExplainError",
    "Explanation",
    "LayerRecord",
    "Method",
    "MethodResult",
    "box_score",
    "class_in_region",
    "contrast",
    "explain",
    "find_method",
    "layers_of",
    "methods",
    "normalise",
    "preserve_state",
]

_HOMES = {
    "BoxLogits": "detector",
    **dict.fromkeys(("CamLayer", "layers_of"), "cam_layers"),
    **dict.fromkeys(("ExplainError", "preserve_state"), "preserve"),
    "normalise": "scale",
    **dict.fromkeys(("box_score", "class_in_region", "contrast"), "targets"),
}


def __getattr__(name: str) -> Any:
    """PEP 562: import what is asked for, when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'vitrail.attribution' has no attribute {name!r}")
    home = import_module(f"vitrail.attribution.{_HOMES.get(name, 'base')}")
    return getattr(home, name)
