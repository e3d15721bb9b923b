"""Run a study: one job after the other, in one process, so that it can stop anywhere and go on.

plan -> setup (data, recipe) -> arms built once (a bad one is refused) -> costs -> jobs -> report

A job is done when its folder holds an ``evaluation.json`` with the job's digest. One that was
stopped goes on from its checkpoint; one that failed leaves ``error.json`` and is tried again by
the next run.
"""

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from vitrail.errors import UserError, shell_word
from vitrail.files import (
    DiskError,
    draft_folder,
    is_occupied,
    lock_folder,
    refuse_non_utf8_name,
    refuse_occupied,
    sweep,
    write_error,
    write_text,
)
from vitrail.schema import convert
from vitrail.study import costs as costing
from vitrail.study.plan import Job, StudyPlan
from vitrail.study.progress import StudyProgress, error_line
from vitrail.study.record import JobRecord, StudyFile, write_json
from vitrail.study.report import Failure, StudyResults, report
from vitrail.study.setup import StudySetup, prepare
from vitrail.study.table import Row, rows_of, write_tables

OUTPUTS = (
    "plan.yaml", "study.json", "costs.json", "results.csv", "results.json", "results.parquet",
    "report.html", "evaluation.json", "error.json",
)  # fmt: skip
"""Files that a study writes, in its folder or a job's."""


class JobTrainer(Protocol):
    """Trains and evaluates one job in its folder, going on from what is there."""

    def __call__(
        self, job: Job, setup: StudySetup, at: Path, tell: Callable[..., None]
    ) -> JobRecord:
        """The finished job's record, not yet saved; ``tell(epoch=, epochs=)`` shows progress."""
        ...


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What a study works with; the tests put stand-ins here."""

    prepare: Callable[[StudyPlan], StudySetup]
    check: Callable[[str, StudySetup], None]
    measure: costing.Measure
    train: JobTrainer


@dataclass(frozen=True, kw_only=True)
class StudyOutcome:
    """How a study ended: a row a finished job, and the jobs that failed."""

    out: Path
    rows: tuple[Row, ...]
    failures: tuple[Failure, ...]
    report: Path

    @property
    def status(self) -> int:
        """Exit status for a shell: 0, or 1 if a job failed."""
        return 1 if self.failures else 0


def default_tools() -> Tools:
    """The real ones."""
    from vitrail.study.job import check, train

    return Tools(prepare=prepare, check=check, measure=costing.measure, train=train)


def run(
    plan: StudyPlan,
    out: str | Path,
    *,
    progress: bool = True,
    use: Tools | None = None,
    command: str | None = None,
) -> StudyOutcome:
    """Run what is not done yet, write table and report, and say how it ended.

    The same plan, or one with more arms, shares or seeds, goes on in the same folder.

    Raises:
        UserError: a bad arm, recipe or data set, or a folder that holds something else.
        Interrupted: stopped by Ctrl-C, SIGTERM or SIGHUP (a KeyboardInterrupt whose message says
            how to go on).
        DiskError: the folder cannot be written; what is done is kept.
    """
    use, out = use or default_tools(), Path(out)
    setup = use.prepare(plan)
    _refuse_others(out, setup)
    for arm in plan.arms:
        use.check(arm, setup)
    _create(out, setup, command)
    with lock_folder(out, f"another process is working on the study in {str(out)!r}; wait for it"):
        _refuse_others(out, setup)  # again, as now nobody else can change it
        _sweep(out, plan.jobs)
        _write_plan(out, setup, command)
        with (
            StudyProgress(plan.jobs, setup, shown=progress) as shown,
            _explain_resume(out, plan.jobs),
        ):
            if setup.warning:
                shown.note(setup.warning)
            costing.write_missing_costs(out / "costs.json", setup, use.measure, shown.note)
            for job in plan.jobs:
                _run_job(job, setup, out / job.folder, use.train, shown)
                if _round_ends(job, plan.jobs):
                    finish(out)
        return finish(out)


def resume(out: str | Path, *, progress: bool = True, use: Tools | None = None) -> StudyOutcome:
    """Go on with the study in a folder, by the plan that lies there.

    Raises:
        UserError: the folder holds no study, or its data have changed since.
    """
    if not (Path(out) / "plan.yaml").is_file():
        raise UserError(f"{str(out)!r} holds no study to go on with (no plan.yaml)")
    return run(StudyPlan.from_yaml(Path(out) / "plan.yaml"), out, progress=progress, use=use)


def finish(out: str | Path) -> StudyOutcome:
    """Write tables and report of what a study folder holds."""
    results = StudyResults.load(out)
    write_tables(results, Path(out))
    return StudyOutcome(
        out=Path(out),
        rows=tuple(rows_of(results)),
        failures=results.failures,
        report=report(out),
    )


@contextmanager
def _explain_resume(out: Path, jobs: Sequence[Job]) -> Iterator[None]:
    from vitrail.train import Interrupted

    try:
        yield
    except (KeyboardInterrupt, DiskError) as stop:
        done = sum((out / job.folder / "evaluation.json").is_file() for job in jobs)
        here = f"{done} of {len(jobs)} runs done; nothing is lost: give the same command again"
        if isinstance(stop, DiskError):
            line = f"{stop}; stopped with {here}"
            raise DiskError(line, stop.path, stop.cause) from stop
        raise Interrupted(f"stopped with {here} to go on in {out}") from stop


def _refuse_others(out: Path, setup: StudySetup) -> None:
    """Refuse a folder with anything in it but this study or a smaller one on the same ground."""
    refuse_non_utf8_name(out)
    path = out / "study.json"
    if not path.is_file():
        if out.is_dir() and is_occupied(out):
            raise UserError(f"{str(out)!r} is there already and is no study; choose another folder")
        refuse_occupied(out)
        return
    before = StudyFile.load(path)
    if before.ground != setup.setup_digest:
        raise UserError(
            f"{str(out)!r} holds another study ({_differences(before, setup)}); choose another "
            "folder, or give the same data and settings to go on with it"
        )
    planned = {job.folder for job in setup.plan.jobs}
    gone = [job.folder for job in before.jobs if job.folder not in planned]
    if gone:
        raise UserError(
            f"{str(out)!r} holds a study with more in it ({', '.join(gone[:3])}); a study may grow "
            "but not shrink: name its arms, fractions and seeds too, or choose another folder"
        )


def _differences(before: StudyFile, setup: StudySetup) -> str:
    """In which words of plan or recipe an earlier study differs, or that its pictures do."""
    facts, plan = setup.facts(), setup.plan.to_dict()
    same = ("data", "budget", "seconds", "image", "val", "split_seed")
    found = [
        f"{k} was {before.plan.get(k)}, is {plan[k]}" for k in same if before.plan.get(k) != plan[k]
    ]
    recipe = convert(dict[str, Any], before.facts.get("recipe", {}), "study.json: recipe")
    found += [
        f"{k} was {recipe.get(k)}, is {v}" for k, v in facts["recipe"].items() if recipe.get(k) != v
    ]
    return "; ".join(found) or "its pictures or their preparation have changed"


def _create(out: Path, setup: StudySetup, command: str | None) -> None:
    """Make a new study's folder, with plan and facts in it from the first moment."""
    if (out / "study.json").is_file():
        return
    with draft_folder(out) as draft:
        _write_plan(draft.path, setup, command)
        draft.claim(out)  # if another process was faster, the folder is its study


def _sweep(out: Path, jobs: Sequence[Job]) -> None:
    """Remove what kills left, also of versions that called it ``*.part``."""
    for folder in (out, *(out / job.folder for job in jobs)):
        sweep(folder)
        for name in OUTPUTS:
            with suppress(OSError):
                (folder / f"{name}.part").unlink(missing_ok=True)


def _write_plan(out: Path, setup: StudySetup, command: str | None) -> None:
    """Write plan and facts; the date of the first start stays.

    The plan goes first: after a kill in between, it may say more than ``study.json``, not less.
    """
    from vitrail.cost import machine
    from vitrail.study.job import starts_of

    path, started = out / "study.json", datetime.now().astimezone().isoformat(timespec="seconds")
    if path.is_file():
        started = str(StudyFile.load(path).facts.get("started", started))
    plan = setup.plan
    facts = setup.facts() | {
        "machine": machine(),
        "command": command or " ".join(["vitrail", *map(shell_word, sys.argv[1:])]),
        "started": started,
        "jobs": len(plan.jobs),
        "budget": plan.describe(),
    }
    if starts := starts_of(plan):
        facts |= {"starts": starts, "fine_tuning": setup.fine_tuning_changes}
    write_text(out / "plan.yaml", plan.to_yaml())
    write_json(
        path,
        {
            "digest": setup.digest_of(plan.jobs[0]),
            "ground": setup.setup_digest,
            "plan": plan.to_dict(),
            "facts": facts,
            "jobs": [{"folder": job.folder, "digest": setup.digest_of(job)} for job in plan.jobs],
        },
    )


def _run_job(
    job: Job, setup: StudySetup, at: Path, train: JobTrainer, shown: StudyProgress
) -> None:
    """One job: skip, train or note its failure."""
    if is_done(at, setup.digest_of(job)):
        shown.skip(job)
        return
    try:
        at.mkdir(parents=True, exist_ok=True)
        (at / "error.json").unlink(missing_ok=True)
    except OSError as error:
        raise write_error(at, error) from error
    shown.begin(job)
    start = time.perf_counter()
    try:
        record = train(job, setup, at, shown.step)
    except DiskError:  # the other jobs could not be written either
        raise
    except Exception as error:  # one arm's failure must not cost the others; the report names it
        _note_failure(job, at, error)
        shown.fail(job, error_line(error))
        return
    record.save(at / "evaluation.json")
    shown.end(job, getattr(record, setup.metric), time.perf_counter() - start)


def is_done(at: Path, digest: str) -> bool:
    """Whether a folder holds the finished job with this digest."""
    path = at / "evaluation.json"
    return path.is_file() and JobRecord.load(path).digest == digest


def _note_failure(job: Job, at: Path, error: Exception) -> None:
    trace = "".join(traceback.format_exception(error))
    write_json(
        at / "error.json",
        {
            "arm": job.arm,
            "share": job.share,
            "seed": job.seed,
            "message": error_line(error),
            "traceback": trace,
        },
    )


def _round_ends(job: Job, jobs: Sequence[Job]) -> bool:
    """Whether the next job starts another share or seed: time for a report in between."""
    after = jobs.index(job) + 1
    return after < len(jobs) and (jobs[after].share, jobs[after].seed) != (job.share, job.seed)
