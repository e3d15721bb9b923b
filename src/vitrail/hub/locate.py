"""Where the weights lie in what Vitrail saved: a run, a job of a study, a saved folder, a file."""

from pathlib import Path

from vitrail.errors import UserError, printable, shell_path

WEIGHTS = ("best.safetensors", "last.safetensors")
SAVED = "model.safetensors"
"""What a folder of :func:`vitrail.hub.save_timm` calls its weights."""
JOB = "run"
"""Where a job of a study keeps its run."""
EXPORTED = (".onnx", ".pt2")
BARE = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".npz")
FOR_PREDICT = (
    "is an exported model: 'vitrail predict' takes it, everything else needs the run it was made of"
)


def is_there(path: Path) -> bool:
    """Whether something is at ``path``; nothing can be at a name that no system takes."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def weights_of(path: Path) -> Path:
    """The weights file in a folder that Vitrail saved: best, else last, else a saved model's.

    A run, a job of a study, a folder of :func:`vitrail.hub.save_timm`; a file is itself.

    Raises:
        UserError: nothing there, or something else; the message says what it is.
    """
    if is_there(path) and path.is_file():
        return refuse_other_files(path)
    if not is_there(path) or not path.is_dir():
        raise UserError(f"no run {str(path)!r}; 'vitrail train' makes one in runs/")
    run = run_of(path)
    for name in (*WEIGHTS, SAVED):
        if (run / name).is_file():
            return run / name
    raise UserError(f"{str(path)!r} holds no {' or '.join(WEIGHTS)}; {advice(path)}")


def run_of(path: Path) -> Path:
    """The run that a path names: a job of a study keeps its own, its only one, a folder deeper."""
    return path / JOB if not runs_at(path, ".") and runs_at(path, "*") == [path / JOB] else path


def runs_at(folder: Path, pattern: str) -> list[Path]:
    """Folders below ``folder`` that hold a run's weights."""
    return sorted({path.parent for name in WEIGHTS for path in folder.glob(f"{pattern}/{name}")})


def refuse_other_files(path: Path) -> Path:
    """A file that may be weights with a card.

    Raises:
        UserError: its ending says that it is something else.
    """
    if path.suffix in EXPORTED:
        raise UserError(f"{str(path)!r} {FOR_PREDICT}")
    if path.suffix in BARE:
        raise UserError(
            f"{str(path)!r} holds weights but no Vitrail card (classes, preprocessing); train from "
            f"them with: vitrail train DATA --model MODEL --weights {shell_path(path)}"
        )
    return path


def advice(folder: Path) -> str:
    """What a folder without weights is, and what to give instead."""
    if (folder / "card.json").is_file() or any((folder / f"model{e}").is_file() for e in EXPORTED):
        return f"it {FOR_PREDICT}"
    if (folder / "run.json").is_file():
        return "the run has not come to its first validation yet"
    if (folder / "config.json").is_file():
        return "nor a model.safetensors with Vitrail's card: it was saved by something else"
    inside = runs_at(folder, "*") or runs_at(folder, f"runs/*/*/*/{JOB}")
    if inside:
        return f"name one of its runs ({len(inside)} in all), such as {printable(inside[0])}"
    return "is it a run folder?"
