"""What ``import vitrail`` adds to ``import torch``: fresh processes, interleaved.

``python -m benchmarks.import_time``; the rules are in ``README.md`` beside this file.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import command, contract
from vitrail.cost import ratio, time_side_by_side
from vitrail.cost.timing import quartiles

STATEMENTS = {
    "python": "pass",
    "torch": "import torch",
    "vitrail": "import vitrail; vitrail.create",
    "timm": "import timm",
}
ALLOWED_S = 0.3
"""``import vitrail`` may take this much longer than ``import torch``."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run.

    Attributes:
        rounds: undisturbed imports wanted of each.
        warmup_s: least seconds of warm-up (fills the disk cache).
        out: folder for the result file.
    """

    rounds: int = 10
    warmup_s: float = 2.0
    out: Path = contract.RESULTS


def main(options: Options) -> Path:
    """Time the imports, print and write them, and give the file's path."""
    record = contract.Record("import_time", asdict(options), options.out)
    timings = time_side_by_side(
        {name: importing(statement) for name, statement in STATEMENTS.items()},
        rounds=options.rounds,
        window_s=0.01,  # one process a window
        warmup_s=options.warmup_s,
    )
    record.add(
        [
            contract.row(name, timing, {"torch": ratio(timing, timings["torch"])})
            for name, timing in timings.items()
        ]
    )
    for name, timing in timings.items():
        low, median, high = timing.quartiles
        print(f"{name:8} {median:6.2f} s ({low:.2f} to {high:.2f})")
    ours, torchs = timings["vitrail"].by_round, timings["torch"].by_round
    shared = sorted(ours.keys() & torchs.keys())
    low, extra, high = quartiles([ours[r] - torchs[r] for r in shared])
    verdict = "held" if extra <= ALLOWED_S else "MISSED"
    print(f"bar {verdict}: vitrail adds {extra:.2f} s ({low:.2f} to {high:.2f}) to torch,", end=" ")
    print(f"{ALLOWED_S} s allowed")
    record.close()
    return record.path


def importing(statement: str) -> Callable[[], object]:
    """A call that runs one statement in a fresh Python."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}

    def call() -> object:
        return subprocess.run([sys.executable, "-c", statement], check=True, env=environment)

    return call


if __name__ == "__main__":
    command.run(main, Options, __doc__)
