"""Report of an optimisation: changes and speed of each step, and the outputs' difference."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vitrail.export.verify import OutputDifference, worst


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """One step: ``changed`` of ``what``; where timed, ms a call and how many times the original."""

    name: str
    changed: int
    what: str
    ms: float | None = None
    speedup: float | None = None
    low: float | None = None
    high: float | None = None
    kept: bool = True


@dataclass(frozen=True, kw_only=True)
class OptimizationReport:
    """The whole way from a model to its optimised form.

    ``quiet`` says whether timings were undisturbed (None: nothing was timed).
    """

    model: str
    precision: str
    example: tuple[int, ...]
    steps: tuple[StepResult, ...]
    differences: tuple[OutputDifference, ...]
    tolerance: float
    megabytes: float
    compiled: bool
    quiet: bool | None = None
    machine: Mapping[str, Any] | None = None

    @property
    def worst(self) -> OutputDifference:
        """The batch on which the outputs are furthest from the original's."""
        return worst(self.differences)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        plain = asdict(self)
        plain["differences"] = [d.to_dict() for d in self.differences]
        return plain

    def rows(self) -> list[tuple[str, ...]]:
        """One row a step, as printed."""
        return [
            (
                step.name + ("" if step.kept else " (not kept)"),
                f"{step.changed} {step.what}" if step.what else "",
                "" if step.ms is None else f"{step.ms:.2f}",
                "" if step.speedup is None else format_speedup(step),
            )
            for step in self.steps
        ]

    def table(self) -> Any:
        """A rich table of the steps."""
        from vitrail.console import make_table

        return make_table(("step", "changed", "ms", "times the original"), self.rows(), left=2)

    def verdict(self) -> str:
        """How far the outputs moved, in a line."""
        found = self.worst
        noisy = "" if self.quiet in (None, True) else "; timings disturbed, do not publish"
        return (
            f"{self.model}, {self.precision}: largest difference {found.largest:.1e} "
            f"({found.relative:.1e} of the largest output, {self.tolerance:.1e} allowed) over "
            f"{len(self.differences)} batches{noisy}"
        )

    def __str__(self) -> str:
        lines = ["  ".join(cell for cell in row if cell) for row in self.rows()]
        return "\n".join([*lines, self.verdict()])


def format_speedup(step: StepResult) -> str:
    """A speed-up with its quartiles."""
    return f"{step.speedup:.2f} ({step.low:.2f} to {step.high:.2f})"
