"""Progress bars, on stderr and on a terminal only."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


def bar(title: str, things: Sequence[T]) -> Iterator[T]:
    """``things`` one by one, with a bar that says how far we are."""
    with _progress(counted=True) as progress:
        yield from progress.track(things, description=title)


@contextmanager
def ticker(title: str) -> Iterator[Callable[[str], None]]:
    """A bar without an end, which shows the words it is told."""
    with _progress(counted=False) as progress:
        task = progress.add_task(title, total=None)
        yield lambda what: progress.update(task, description=f"{title} {what}")


@contextmanager
def gauge(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told how many are done, of how many."""
    with _progress(counted=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _progress(*, counted: bool) -> Any:
    from rich.progress import MofNCompleteColumn, TimeElapsedColumn

    from vitrail.console import make_progress

    return make_progress(*((MofNCompleteColumn(),) if counted else ()), TimeElapsedColumn())
