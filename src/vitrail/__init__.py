"""Vitrail: vision backbones that marry convolution and attention.

picture -> tokens -> stages of blocks (local, reducer, mixer) -> head -> loss -> report

Names are fetched at first use, so that ``vitrail --help`` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitrail.errors import UserError
    from vitrail.explain import explain
    from vitrail.hub.resolve import create
    from vitrail.hub.runs import load
    from vitrail.mixers import MixerSpec
    from vitrail.models import Backbone, list_models
    from vitrail.reducers import ReducerSpec
    from vitrail.specs import Place
    from vitrail.train.setup import fit

__version__ = "0.1.0"

__all__ = [
    "Backbone",
    "MixerSpec",
    "Place",
    "ReducerSpec",
    "UserError",
    "__version__",
    "create",
    "explain",
    "fit",
    "list_models",
    "load",
]

_HOMES = {
    "Backbone": "vitrail.models",
    "MixerSpec": "vitrail.mixers",
    "Place": "vitrail.specs",
    "ReducerSpec": "vitrail.reducers",
    "UserError": "vitrail.errors",
    "create": "vitrail.hub.resolve",
    "fit": "vitrail.train.setup",
    "list_models": "vitrail.models",
    "load": "vitrail.hub.runs",
}


def __getattr__(name: str) -> Any:
    """PEP 562: import what is asked for, when it is asked for."""
    if name == "explain":  # a package that can be called
        return import_module("vitrail.explain")
    if name not in _HOMES:
        raise AttributeError(f"module 'vitrail' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "explain"})
