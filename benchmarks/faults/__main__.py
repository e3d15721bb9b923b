"""``python -m benchmarks.faults --minutes 60``: tried, held, faults.

Exit status 1 after a fault.
"""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import contract
from benchmarks.faults import stage as stages
from benchmarks.faults.crew import Crew
from benchmarks.faults.kinds import KINDS
from benchmarks.faults.tally import Tally, emptied
from benchmarks.faults.trial import Kind
from vitrail.errors import UserError, unknown


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run.

    Attributes:
        minutes: how long; setting the stage comes on top (seconds, a minute with studies).
        seed: of all chance; a run with the same seed tries the same inputs.
        only: kinds (default: all that can be tried on this machine).
        index: one trial again, the number that a fault was shown with.
        most: trials of each kind at most.
        jobs: processes beside each other.
        work: folder for trials (default: a temporary one, kept if faults were found).
        out: folder for the result file; none without it for ``--index``.
        list: only say which kinds there are.
    """

    minutes: float = 60.0
    seed: int = 0
    only: tuple[str, ...] = ()
    index: int | None = None
    most: int | None = None
    jobs: int = 2
    work: Path | None = None
    out: Path = contract.RESULTS
    list: bool = False


def main(options: Options) -> int:
    """Try, show the table, write the result file."""
    kinds = chosen(options.only)
    if options.list:
        print("\n".join(f"{kind.name:<18}{kind.about}" for kind in kinds))
        return 0
    root = Path(options.work or tempfile.mkdtemp(prefix="vitrail-faults-")).resolve()
    stages.use_home(root / "home")
    stages.warm_up()
    stage = stages.Stage(root)
    print(f"setting the stage in {root}", flush=True)
    stage.set(need for kind in kinds for need in kind.needs)
    for kind in kinds:
        kind.warm_up()
    tally = Tally(options.seed, say=lambda line: print(line, flush=True))
    once = options.index is not None
    crew = Crew(
        kinds, stage, options.seed, options.jobs, 1 if once else options.most, options.index or 0
    )
    try:
        crew.run(options.minutes * 60, tally.add)
    except KeyboardInterrupt:
        print("stopped")
    print(tally.table())
    if not once:
        written(tally, kinds, options)
    finish(stage, tally)
    return 1 if tally.faults else 0


def chosen(names: Sequence[str]) -> Sequence[Kind]:
    """The kinds to try; those that this machine cannot try are named.

    Raises:
        UserError: no such kind.
    """
    for name in names:
        if name not in KINDS:
            raise unknown("kind", name, KINDS)
    kinds = [KINDS[name] for name in names or KINDS]
    for kind in kinds:
        if why := kind.ready():
            print(f"{kind.name} cannot be tried here: {why}")
    return [kind for kind in kinds if not kind.ready()]


def written(tally: Tally, kinds: Sequence[Kind], options: Options) -> None:
    """The result file."""
    settings: dict[str, Any] = asdict(options)
    record = contract.Record("faults", settings, options.out)
    record.add(tally.rows(kinds))
    record.close()


def finish(stage: stages.Stage, tally: Tally) -> None:
    """Leave only what shows a fault."""
    if emptied(stage.trials) or not tally.faults:
        shutil.rmtree(stage.root, ignore_errors=True)
    else:
        print(f"inputs of the faults: {stage.trials}")


if __name__ == "__main__":
    import tyro

    try:
        sys.exit(main(tyro.cli(Options, description=__doc__)))
    except UserError as error:
        sys.exit(f"faults: {error}")
