"""Cases of one test that say the same of many, and tests that a suite leaves out."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def case(*names: object) -> Iterator[None]:
    """Add the names to whatever is raised inside; pytest prints them below the failure.

    ::

        for grid in ((8, 8), (7, 5)):
            with case(grid):
                assert build(grid).shape == grid
    """
    try:
        yield
    except Exception as failure:
        failure.add_note("in the case " + ", ".join(map(str, names)))
        raise


def leave_out(suite: type, test: str) -> None:
    """Take an inherited test from a suite and what inherits from it; pytest then finds none."""
    setattr(suite, test, None)
