"""A finished (or half finished) study as one page that needs nothing but a browser.

study folder -> :class:`StudyResults` -> tables, figures, words -> ``report.html``
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitrail.errors import UserError, printable
from vitrail.files import write_text
from vitrail.schema import read_json
from vitrail.study import figures, stats, verdict
from vitrail.study.analyse import Analysis, Metric, analyse, costs_of
from vitrail.study.banner import draw_banner
from vitrail.study.record import ArmCost, JobRecord, Mistake, StudyFile

if TYPE_CHECKING:
    from jinja2 import Environment

MOST_CLASSES = 20


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A job that ended in an error, and the error's last line."""

    arm: str
    share: float
    seed: int
    message: str


@dataclass(frozen=True, kw_only=True)
class StudyResults:
    """All that a report shows. ``facts`` holds data, machine, command and dates."""

    digest: str
    plan: Mapping[str, Any]
    facts: Mapping[str, Any]
    records: tuple[JobRecord, ...]
    costs: Mapping[str, ArmCost] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    missing: int = 0

    @property
    def analysis(self) -> Analysis:
        """The records weighed, arms in the plan's order."""
        best = self.facts.get("recipe", {}).get("best", "accuracy")
        metric: Metric = "balanced_accuracy" if best == "balanced_accuracy" else "accuracy"
        return analyse(self.records, tuple(self.plan["arms"]), metric=metric)

    @property
    def quiet(self) -> bool:
        """Whether no other program disturbed the timings."""
        return all(cost.quiet for cost in self.costs.values())

    @classmethod
    def load(cls, out: str | Path) -> "StudyResults":
        """Read a study folder.

        Raises:
            UserError: the folder holds no study.
        """
        out = Path(out)
        path = out / "study.json"
        if not path.is_file():
            raise UserError(f"{out} holds no study (no study.json); run vitrail study first")
        study = StudyFile.load(path)
        jobs = [(job, out / job.folder) for job in study.jobs]
        done = [(job, at / "evaluation.json") for job, at in jobs]
        records = [JobRecord.load(at) for job, at in done if _fits(at, job.digest)]
        _check_records(records, study)
        failures = [_failure(at) for _, at in jobs if (at / "error.json").is_file()]
        costs_at = out / "costs.json"
        costs = read_json(costs_at, dict[str, ArmCost]) if costs_at.is_file() else {}
        return cls(
            digest=study.digest,
            plan=study.plan,
            facts=study.facts,
            records=tuple(records),
            costs={a: c for a, c in costs.items() if a in study.plan["arms"]},
            failures=tuple(failures),
            missing=len(jobs) - len(records) - len(failures),
        )


def report(out: str | Path) -> Path:
    """Write ``report.html`` into a study folder from what is there, and return its path."""
    at = Path(out) / "report.html"
    write_text(at, render(StudyResults.load(out)))
    return at


def render(results: StudyResults) -> str:
    """The page as text: no script, no address outside, styles and pictures inside."""
    analysis = results.analysis
    return (
        templates()
        .get_template("report.html")
        .render(
            d=results,
            a=analysis,
            headline=verdict.headline(analysis),
            details=verdict.details(analysis, results.costs),
            banner=draw_banner(results.digest),
            figures=_figures(results, analysis),
            winner=_winner(results, analysis),
            styles={arm: i % len(figures.SERIES) for i, arm in enumerate(analysis.arms)},
            fronts=_fronts(results, analysis),
        )
    )


def templates() -> "Environment":
    """The pages of studies and choices, which show what comes from outside as it is, made harmless.

    They fail where a value is missing.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("vitrail.study"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {
        "percent": verdict.percent,
        "share": verdict.share_text,
        "amount": verdict.amount,
        "duration": verdict.duration,
    }
    return pages


def harmless(value: Any) -> Any:
    """A text from outside without characters that hide or turn it; drawings of ours as they are."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _fits(evaluation: Path, digest: str) -> bool:
    return evaluation.is_file() and JobRecord.load(evaluation).digest == digest


def _check_records(records: Sequence[JobRecord], study: StudyFile) -> None:
    """All jobs of a study answered the same pictures, in its classes.

    Raises:
        UserError: one did not, or is of an arm that the plan lacks.
    """
    classes = len(study.facts["data"]["classes"])
    for r in records:
        where = f"the record of {printable(r.arm)[:40]!r}, share {r.share}, seed {r.seed}"
        if r.arm not in study.plan["arms"]:
            raise UserError(f"{where} is of an arm that the plan lacks; delete it to run it anew")
        if r.labels != records[0].labels:
            raise UserError(f"{where} is of other test pictures; delete it to run it anew")
        if max((*r.labels, *r.predictions), default=0) >= classes:
            raise UserError(f"{where} names a class beyond the {classes} of the study")


def _failure(job: Path) -> Failure:
    found: Failure = read_json(job / "error.json", Failure)
    return found


def _figures(results: StudyResults, analysis: Analysis) -> dict[str, str]:
    if not analysis.cells:
        return {}
    drawn = {
        "share": figures.over_share(analysis),
        "curves": figures.curves(analysis, results.records),
    }
    if any(c.arm in results.costs for c in analysis.ranking(analysis.shares[-1])):
        macs, latency = (costs_of(results.costs, what) for what in ("macs", "latency"))
        milliseconds = {arm: 1000 * value for arm, value in latency.items()}
        drawn["macs"] = figures.over_cost(
            analysis, macs, axis="multiply-adds a picture", name="macs"
        )
        drawn["latency"] = figures.over_cost(
            analysis, milliseconds, axis="latency of one picture, ms", name="latency"
        )
    return drawn


def _fronts(results: StudyResults, analysis: Analysis) -> dict[str, list[str]]:
    if not analysis.cells:
        return {"macs": [], "latency": []}
    share = analysis.shares[-1]
    return {
        what: analysis.front(share, costs_of(results.costs, what)) for what in ("macs", "latency")
    }


def _winner(results: StudyResults, analysis: Analysis) -> dict[str, Any] | None:
    """The best arm with the most data: its confusion matrix over all seeds, its worst mistakes."""
    if not analysis.cells:
        return None
    best = analysis.ranking(analysis.shares[-1])[0]
    records = [r for r in results.records if (r.arm, r.share) == (best.arm, best.share)]
    classes = list(results.facts["data"]["classes"])
    counts = sum(
        stats.confusion(np.asarray(r.labels), np.asarray(r.predictions), len(classes))
        for r in records
    )
    shown = _most_confused(np.asarray(counts))
    return {
        "arm": best.arm,
        "seeds": len(records),
        "classes": [classes[k] for k in shown],
        "left_out": len(classes) - len(shown),
        "rows": [_row(np.asarray(counts), classes, k, shown) for k in shown],
        "mistakes": _worst(records),
    }


def _most_confused(counts: np.ndarray) -> list[int]:
    """All classes, or the ``MOST_CLASSES`` with the most errors to or from them, in order."""
    if len(counts) <= MOST_CLASSES:
        return list(range(len(counts)))
    wrong = counts.sum(0) + counts.sum(1) - 2 * np.diag(counts)
    return sorted(int(k) for k in np.argsort(-wrong, kind="stable")[:MOST_CLASSES])


def _row(counts: np.ndarray, classes: list[str], k: int, shown: list[int]) -> dict[str, Any]:
    total = int(counts[k].sum())
    shares = counts[k] / max(1, total)
    return {
        "name": classes[k],
        "cells": [(int(counts[k, j]), float(shares[j]), j == k) for j in shown],
        "recall": float(shares[k]) if total else None,
    }


def _worst(records: list[JobRecord], most: int = 8) -> list[Mistake]:
    """The most confident wrong answers over the seeds, each picture once."""
    found: dict[str, Mistake] = {}
    for m in sorted((m for r in records for m in r.mistakes), key=lambda m: -m.probability):
        found.setdefault(m.key, m)
    return list(found.values())[:most]
