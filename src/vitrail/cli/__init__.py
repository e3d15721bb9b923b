"""Commands: words in, one answer out.

``app`` reads the words, runs one command and prints its answer; every other file is a command or
two. Nothing here imports torch before a command runs, so that help answers at once.
"""

from vitrail.cli.app import main

__all__ = ["main"]
