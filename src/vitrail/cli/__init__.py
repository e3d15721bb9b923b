"""Commands: words in, one answer out.

``app`` reads the words, runs one command and prints its answer; every other file is a command or
two. Nothing here imports torch before a command runs, so that help answers at once.
"""

import sys
from collections.abc import Sequence

from vitrail.signals import raise_on_termination


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and give its exit status.

    Ctrl-C, SIGTERM and SIGHUP are one line from the first moment, while the commands are still
    being read, too, to the last.
    """
    try:
        with raise_on_termination():
            from vitrail.cli.app import main as run

            return run(argv)
    except KeyboardInterrupt as stop:
        print(f"vitrail: {str(stop) or 'stopped'}", file=sys.stderr)
        return 130
