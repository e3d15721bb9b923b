"""Progress bars, on stderr and on a terminal only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def bar(title: str, steps: int | None) -> Iterator[Callable[[str], None]]:
    """A bar of ``steps`` steps (None: nobody knows); call the given function after each."""
    with _progress(counted=bool(steps)) as progress:
        task = progress.add_task(title, total=steps)
        yield lambda what: progress.update(task, advance=1, description=f"{title} {what}")


@contextmanager
def gauge(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told how many are done, of how many."""
    with _progress(counted=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _progress(*, counted: bool) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    counter = (MofNCompleteColumn(),) if counted else ()
    columns = (TextColumn("{task.description}"), BarColumn(), *counter, TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
