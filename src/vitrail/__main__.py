"""``python -m vitrail`` (and ``torchrun -m vitrail``): the command line."""

import sys

from vitrail.cli import main

if __name__ == "__main__":
    sys.exit(main())
