"""Progress bars, on stderr and on a terminal only."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from vitrail.console import gauge as gauge
from vitrail.console import make_bar

T = TypeVar("T")


def bar(title: str, things: Sequence[T]) -> Iterator[T]:
    """``things`` one by one, with a bar that says how far we are."""
    with make_bar(counted=True) as progress:
        yield from progress.track(things, description=title)


@contextmanager
def ticker(title: str) -> Iterator[Callable[[str], None]]:
    """A bar without an end, which shows the words it is told."""
    with make_bar(counted=False) as progress:
        task = progress.add_task(title, total=None)
        yield lambda what: progress.update(task, description=f"{title} {what}")
