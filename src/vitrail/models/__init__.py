"""One paper, one file: a table of variants, the model, and the names of its released weights."""

import sys
from types import ModuleType

from vitrail.models.backbone import Backbone
from vitrail.models.zoo import configure, create, load_into, models

__all__ = ["Backbone", "configure", "create", "load_into", "models"]


class _Callable(ModuleType):
    """``vitrail.models`` is this package and also the function that lists the zoo."""

    def __call__(self) -> list[str]:
        return models()


sys.modules[__name__].__class__ = _Callable
