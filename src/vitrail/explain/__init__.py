"""Where a model's answer lies: ``vitrail.explain(model, images, method=..., target=...)``.

image -> guarded model -> method (masks, CAM, rollout, gradients, relevance, perturbation) -> map

The package itself can be called, so ``vitrail.explain(...)`` and ``from vitrail.explain import
Explanation`` both do what they say.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitrail.explain.base import (
        Explanation,
        Finding,
        Layer,
        Method,
        explain,
        find_method,
        methods,
    )
    from vitrail.explain.cam_layers import CamLayer, layers_of
    from vitrail.explain.detector import BoxLogits
    from vitrail.explain.guard import ExplainError, untouched
    from vitrail.explain.scale import normalise
    from vitrail.explain.targets import box_score, class_in_region, contrast

__all__ = [
    "BoxLogits",
    "CamLayer",
    "ExplainError",
    "Explanation",
    "Finding",
    "Layer",
    "Method",
    "box_score",
    "class_in_region",
    "contrast",
    "explain",
    "find_method",
    "layers_of",
    "methods",
    "normalise",
    "untouched",
]

_HOMES = {
    "BoxLogits": "detector",
    **dict.fromkeys(("CamLayer", "layers_of"), "cam_layers"),
    **dict.fromkeys(("ExplainError", "untouched"), "guard"),
    "normalise": "scale",
    **dict.fromkeys(("box_score", "class_in_region", "contrast"), "targets"),
}


def __getattr__(name: str) -> Any:
    """PEP 562: import what is asked for, when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'vitrail.explain' has no attribute {name!r}")
    home = import_module(f"vitrail.explain.{_HOMES.get(name, 'base')}")
    return getattr(home, name)


class _Callable(ModuleType):
    """A module that answers to a call with its function of the same name."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return import_module("vitrail.explain.base").explain(*args, **options)


sys.modules[__name__].__class__ = _Callable
