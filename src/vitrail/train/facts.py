"""What a run folder says of how the run came about: model, data, machine, versions, command."""

import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from vitrail.files import resolve_path
from vitrail.train import folder
from vitrail.train.job import TrainingJob


def run_facts(job: TrainingJob, digest: str) -> dict[str, Any]:
    """What ``run.json`` says of a new run; ``digest`` is its manifest's."""
    card = job.card
    return {
        "format": folder.FORMAT,
        "model": card.model,
        "classes": list(card.classes),
        "image": card.image,
        "in_chans": card.in_chans,
        "preprocess": card.preprocess,
        "data": absolute_source(job.dataset.name),
        "pictures": {name: len(items) for name, items in job.parts.items()},
        "manifest": digest,
        "plugins": card.extra.get("plugins", []),
        "seed": job.recipe.seed,
        "teacher": teacher_facts(job),
        "weights": card.extra.get("weights"),
        "versions": _versions(),
        "machine": _machine(),
        "command": sys.argv,
    }


def teacher_facts(job: TrainingJob) -> dict[str, Any] | None:
    """The teacher's name and digest, if there is one."""
    return None if job.teacher is None else job.teacher.facts()


def absolute_source(source: str) -> str:
    """A path made absolute, so that a run can be resumed from any folder; other names unchanged."""
    return str(resolve_path(source)) if Path(source).exists() else source


def _versions() -> dict[str, str]:
    found = {}
    for name in ("vitrail", "torch", "torchvision", "timm", "accelerate"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "from source"
    return found | {"python": platform.python_version()}


def _machine() -> dict[str, Any]:
    from vitrail import cost

    return cost.machine()
