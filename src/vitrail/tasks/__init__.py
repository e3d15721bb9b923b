"""A backbone put to use: what it answers, how that is scored, how it is kept."""

from vitrail.tasks.card import Card, load_weights, read_card, save_weights
from vitrail.tasks.classify import Scores, evaluate, probabilities
from vitrail.tasks.distill import Distillation, distill
from vitrail.tasks.teacher import Teacher

__all__ = [
    "Card",
    "Distillation",
    "Scores",
    "Teacher",
    "distill",
    "evaluate",
    "load_weights",
    "probabilities",
    "read_card",
    "save_weights",
]
