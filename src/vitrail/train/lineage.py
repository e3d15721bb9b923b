"""What a run, and the runs that it started from, trained and validated on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitrail.data import History, ImageDataset, Manifest, Problem, read_manifest
from vitrail.errors import UserError
from vitrail.files import resolve_path
from vitrail.train.folder import is_run, read_facts

_LONGEST = 100  # runs that start from each other


def read_history(path: str | Path, extra: Mapping[str, Any] | None = None) -> History | None:
    """The history behind a run folder, or a file of weights in one; None where nothing is known.

    ``extra`` is what the weights' own card says, for files that lie in no run.

    Raises:
        UserError: the run's manifest is there and cannot be read.
    """
    run = folder_of(Path(path))
    if not is_run(run):
        origin = _origin(extra or {})
        return read_history(origin) if origin is not None and is_run(folder_of(origin)) else None
    facts = read_facts(run)
    manifests = [read_manifest(run / "manifest.json")]
    older, gaps = _earlier(facts, run)
    share = facts.get("fraction") if isinstance(facts, dict) else None
    return History.of(
        str(path),
        [*manifests, *older],
        share=float(share) if isinstance(share, int | float) else 1.0,
        gaps=gaps,
    )


def check_teacher_overlap(word: str, dataset: ImageDataset) -> Problem | None:
    """A line, where a teacher trained on images that its student is validated or tested on."""
    history = read_history(word) if Path(word).exists() else None
    held = [item for item in dataset.items if item.split != "train"]
    seen = history.overlap(held, dataset.name) if history else 0
    if not seen:
        return None
    line = (
        f"the teacher {word} trained on {seen:,} of the {len(held):,} pictures to validate or test "
        "with: the student's scores there are too good"
    )
    return Problem("seen-before", word, line)


def folder_of(path: Path) -> Path:
    """The folder of a run, named by itself or by a file in it."""
    return path if path.is_dir() else path.parent


def _origin(facts: Any) -> Path | None:
    """The run that a run started from."""
    found = facts.get("from") if isinstance(facts, Mapping) else None
    run = found.get("run") if isinstance(found, Mapping) else None
    return Path(run) if isinstance(run, str) and run else None


def _earlier(facts: Any, run: Path) -> tuple[list[Manifest], list[str]]:
    """Manifests of the runs before, the latest first, and the first that cannot be read."""
    manifests: list[Manifest] = []
    seen = {resolve_path(run)}
    while (origin := _origin(facts)) is not None and len(seen) < _LONGEST:
        folder = folder_of(origin)
        if resolve_path(folder) in seen:
            break
        seen.add(resolve_path(folder))
        try:
            manifests.append(read_manifest(folder / "manifest.json"))
            facts = read_facts(folder)
        except UserError:
            return manifests, [str(origin)]
    return manifests, []
