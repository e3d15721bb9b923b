"""Loggers beside ``metrics.jsonl``: a tiny protocol, and TensorBoard behind it."""

import re
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from vitrail.errors import UserError, printable


class Tracker(Protocol):
    """What a logger must do; steps count updates."""

    def log_config(self, config: dict[str, Any]) -> None:
        """Once, at the start."""
        ...

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        """After every epoch."""
        ...

    def close(self) -> None:
        """At the end, however the run ends."""
        ...


def check_tracking() -> None:
    """Refuse, before a run begins, what cannot be logged.

    Raises:
        UserError: TensorBoard is not installed.
    """
    if find_spec("tensorboard") is None:
        raise UserError(
            "the recipe asks for TensorBoard (track), which is not installed: "
            "pip install 'vitrail[track]', or set track: false"
        )


def markdown_cell(value: Any) -> str:
    """A value for a Markdown table: paths may hold what would end the cell or be markup."""
    line = escape(printable(value), quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", line)


class TensorBoard:
    """Event files in ``RUN/tensorboard``; after a resume what was lost is purged.

    Raises:
        UserError: TensorBoard is not installed.
    """

    def __init__(self, out: Path, step: int) -> None:
        check_tracking()
        from torch.utils.tensorboard import SummaryWriter

        # purge_step drops steps at or after it; an epoch's row stands at its last step.
        self.writer = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def log_config(self, config: dict[str, Any]) -> None:
        """As text."""
        rows = "".join(f"| {key} | {markdown_cell(value)} |\n" for key, value in config.items())
        self.writer.add_text("recipe", f"| key | value |\n|---|---|\n{rows}")

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        """One scalar a name."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        self.writer.close()


#: Row keys of metrics.jsonl and their names in a logger.
_NAMES = {
    "train_loss": "train/loss",
    "lr": "train/lr",
    "images_per_s": "train/images_per_s",
    "val_loss": "val/loss",
    "accuracy": "val/accuracy",
    "balanced_accuracy": "val/balanced_accuracy",
}


def log_row(tracker: Tracker, row: dict[str, Any]) -> None:
    """One epoch's row."""
    values = {name: row[key] for key, name in _NAMES.items() if row.get(key) is not None}
    tracker.log_metrics(values, row["step"])
