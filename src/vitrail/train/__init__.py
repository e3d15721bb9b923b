"""Training: a recipe, a run folder that can always go on, exact resume."""

from vitrail.train.fit import Result, fit, resume
from vitrail.train.folder import Run, read_run
from vitrail.train.recipe import Recipe
from vitrail.train.stop import Interrupted

__all__ = ["Interrupted", "Recipe", "Result", "Run", "fit", "read_run", "resume"]
