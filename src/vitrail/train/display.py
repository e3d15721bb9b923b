"""Progress of a training: a bar on a terminal, one line per epoch elsewhere."""

import contextlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

#: Events are plain dictionaries with a "kind": folder, start, step, epoch, note, end.
OnEvent = Callable[[dict[str, Any]], None]


def ignore_event(event: dict[str, Any]) -> None:
    """Show nothing."""


def describe_scores(row: Mapping[str, Any], by: str = "accuracy") -> str:
    """The validation scores of an epoch as text, first the one that ``best`` is chosen by."""
    accuracy, balanced = (f"{row.get(k) or 0:.1%}" for k in ("accuracy", "balanced_accuracy"))
    if by == "balanced_accuracy":
        return f"balanced accuracy {balanced} (accuracy {accuracy})"
    loss = f"loss {row['val_loss']:.3f}, " if by == "loss" else ""
    return f"{loss}accuracy {accuracy} (balanced {balanced})"


class Display:
    """Shows events on stderr."""

    def __init__(self) -> None:
        from vitrail.console import make_console

        self.console = make_console(stderr=True)
        self.bar: Any = None
        self.task: Any = None

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event; where the terminal is gone, training goes on without."""
        with contextlib.suppress(OSError):
            getattr(self, f"_{event['kind']}")(event)

    def close(self) -> None:
        """Leave the terminal as it was."""
        bar, self.bar = self.bar, None
        if bar is not None:
            with contextlib.suppress(OSError):
                bar.stop()

    def _folder(self, event: dict[str, Any]) -> None:
        self._line(f"run folder: {event['out']}")

    def _start(self, event: dict[str, Any]) -> None:
        self._line(event["line"])
        if not (self.console.is_terminal and sys.stderr.isatty()):
            return
        from rich import progress

        from vitrail.console import FieldColumn, make_progress

        self.bar = make_progress(
            progress.TaskProgressColumn(),
            FieldColumn("facts"),
            progress.TimeElapsedColumn(),
            FieldColumn("left"),
            progress.TimeRemainingColumn(),
            console=self.console,
        )
        self.task = self.bar.add_task(
            "training", total=1.0, completed=event["done"], facts="", left="left"
        )
        self.bar.start()

    def _step(self, event: dict[str, Any]) -> None:
        if self.bar is None:
            return
        facts = (
            f"loss {event['loss']:.3f}  lr {event['lr']:.2g}  {event['images_per_s']:.0f} images/s"
        )
        self.bar.update(
            self.task,
            completed=event["done"],
            description=f"epoch {event['epoch'] + 1}",
            facts=facts,
        )

    def _epoch(self, event: dict[str, Any]) -> None:
        row = event["row"]
        score = ""
        if row.get("accuracy") is not None:
            best = "  best so far" if event["best"] else ""
            score = f"  val loss {row['val_loss']:.3f}  {describe_scores(row)}{best}"
        if row["train_loss"] is None:
            self._line(f"the head, fitted{score}")
            return
        self._line(
            f"epoch {row['epoch']:>3}  loss {row['train_loss']:.3f}{score}"
            f"  lr {row['lr']:.2g}  {row['images_per_s']:.0f} images/s"
        )

    def _note(self, event: dict[str, Any]) -> None:
        self._line(event["line"])

    def _end(self, event: dict[str, Any]) -> None:
        self.close()
        self._line(event["line"])

    def _line(self, text: str) -> None:
        from vitrail.console import as_text

        for line in text.split("\n"):
            self.console.print(as_text(line), soft_wrap=True)
