"""What a running study shows: a bar with the time left on a terminal, else a line a job."""

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from vitrail.study.plan import Job
from vitrail.study.verdict import duration, percent

if TYPE_CHECKING:
    from vitrail.study.setup import StudySetup


def error_line(error: BaseException) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    said = lines[-1] if lines else "no message"
    return said if isinstance(error, ValueError) else f"{type(error).__name__}: {said}"


class StudyProgress:
    """Shows the jobs of a study; the bar counts pictures to be seen, so that its ETA is fair."""

    def __init__(self, jobs: Sequence[Job], setup: "StudySetup", *, shown: bool) -> None:
        from rich.progress import TimeElapsedColumn, TimeRemainingColumn

        from vitrail.console import FieldColumn, make_console, make_progress

        self.console = make_console(stderr=True, quiet=not shown)
        self.weights = {job: setup.weight(job) for job in jobs}
        self.done: list[Job] = []
        self.now: Job | None = None
        self.bars = make_progress(
            FieldColumn("what"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            speed_estimate_period=24 * 3600,
        )
        total = sum(self.weights.values())
        self.all = self.bars.add_task("study", total=total, what=self._place)
        self.one = self.bars.add_task("", total=1, what="", visible=False)

    def __enter__(self) -> "StudyProgress":
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def note(self, text: str) -> None:
        """One line above the bars."""
        from vitrail.console import as_text

        self.console.print(as_text(text), soft_wrap=True)

    def begin(self, job: Job) -> None:
        """A job starts."""
        self.now = job
        self.bars.reset(self.one, total=None, description=str(job), what="", visible=True)

    def step(self, *, done: float, what: str) -> None:
        """The part ``done`` (0 to 1) of the current job is done."""
        self.bars.update(self.one, completed=done, total=1, what=what)
        before = sum(self.weights[job] for job in self.done)
        now = self.weights[self.now] if self.now else 0
        self.bars.update(self.all, completed=before + done * now)

    def end(self, job: Job, accuracy: float, seconds: float) -> None:
        """A job is finished."""
        self._count(job)
        self.note(f"{self._place} {job}: {percent(accuracy)} in {duration(seconds)}")

    def skip(self, job: Job) -> None:
        """A job was done by an earlier run."""
        self._count(job)
        self.note(f"{self._place} {job}: done before")

    def fail(self, job: Job, message: str) -> None:
        """A job ended in an error; the study goes on."""
        self._count(job)
        self.note(f"{self._place} {job}: FAILED: {message}")

    def _count(self, job: Job) -> None:
        self.done.append(job)
        completed = sum(self.weights[j] for j in self.done)
        self.bars.update(self.all, completed=completed, what=self._place)

    @property
    def _place(self) -> str:
        return f"[{len(self.done)}/{len(self.weights)}]"
