"""Commands: words in, one answer out.

``app`` reads the words, runs one command and prints its answer; every other file is a command or
two. Nothing here imports torch before a command runs, so that help answers at once.
"""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and give its exit status.

    Ctrl-C is one line from the first moment, while the commands are still being read, too.
    """
    try:
        from vitrail.cli.app import main as run
    except KeyboardInterrupt:
        print("vitrail: stopped", file=sys.stderr)
        return 130
    return run(argv)
