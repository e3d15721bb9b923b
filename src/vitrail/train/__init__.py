"""Training: a recipe, a run folder that can always go on, exact resume."""

from vitrail.train.fit import fit, fit_job, resume
from vitrail.train.folder import Run, read_run
from vitrail.train.job import TrainingJob
from vitrail.train.recipe import Recipe
from vitrail.train.result import Result
from vitrail.train.stop import Interrupted

__all__ = [
    "Interrupted",
    "Recipe",
    "Result",
    "Run",
    "TrainingJob",
    "fit",
    "fit_job",
    "read_run",
    "resume",
]
