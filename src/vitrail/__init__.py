"""Vitrail: vision backbones that marry convolution and attention.

picture -> tokens -> stages of blocks (local, reducer, mixer) -> head -> loss -> report
"""

from vitrail.errors import UserError
from vitrail.mixers import MixerSpec
from vitrail.models import Backbone, create, models
from vitrail.reducers import ReducerSpec
from vitrail.specs import Place

__version__ = "0.1.0"

__all__ = [
    "Backbone",
    "MixerSpec",
    "Place",
    "ReducerSpec",
    "UserError",
    "__version__",
    "create",
    "models",
]
