"""The command line of a benchmark: words to options, one line where they cannot be served."""

import sys
from collections.abc import Callable
from typing import TypeVar

from vitrail.errors import UserError, printable

Options = TypeVar("Options")


def run(main: Callable[[Options], object], options: type[Options], description: str | None) -> None:
    """Read the words and run; the exit status is what ``main`` gives, 2 for bad words, else 0."""
    import tyro

    try:
        status = main(tyro.cli(options, description=description))
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    sys.exit(status if isinstance(status, int) else 0)
