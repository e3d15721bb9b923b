"""One paper, one file: a table of variants, the model, and the names of its released weights."""

from vitrail.models.backbone import Backbone
from vitrail.models.zoo import configure, list_models, load_into

__all__ = ["Backbone", "configure", "list_models", "load_into"]
