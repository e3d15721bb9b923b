"""Commands: words in, one answer out.

``app`` reads the words, runs one command and prints its answer; every other file is a command or
two. Nothing here imports torch before a command runs, so that help answers at once.
"""

import sys
from collections.abc import Sequence

from vitrail.signals import Stopped, raise_on_termination


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and give its exit status.

    Ctrl-C, SIGTERM and SIGHUP are one line from the first moment, while the commands are still
    being read, too, to the last.
    """
    stopped = Stopped()
    try:
        with raise_on_termination() as stopped:
            from vitrail.cli.app import main as run

            status = run(argv)
            return 130 if status and stopped.line else status
    except KeyboardInterrupt as stop:
        line = str(stop) or "stopped"
    except Exception:  # a library may raise an error of its own for the interruption
        if not stopped.line:
            raise
        line = stopped.line
    print(f"vitrail: {line}", file=sys.stderr)
    return 130
