"""The results as tables: a row a finished job (CSV, Parquet), all in JSON, one for a terminal."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vitrail.errors import cell_text
from vitrail.files import atomic_file, write_text
from vitrail.study import verdict
from vitrail.study.analyse import Analysis, Cell
from vitrail.study.record import write_json
from vitrail.study.report import StudyResults

Row = dict[str, Any]


def rows_of(results: StudyResults) -> list[Row]:
    """One flat row a finished job, the arm's costs in it."""
    return [
        {
            "arm": r.arm,
            "share": r.share,
            "seed": r.seed,
            "train_count": r.train_count,
            "test_count": len(r.labels),
            "accuracy": r.accuracy,
            "balanced_accuracy": r.balanced_accuracy,
            "loss": r.loss,
            "ece": r.ece,
            "epochs": r.epochs,
            "images_seen": r.images_seen,
            "train_seconds": r.seconds,
            **_cost(results, r.arm),
        }
        for r in results.records
    ]


def write_tables(results: StudyResults, out: Path) -> None:
    """Write ``results.csv``, ``results.json`` and, where pyarrow is there, ``results.parquet``."""
    rows = rows_of(results)
    if rows:
        _write_csv(out / "results.csv", rows)
        _write_parquet(out / "results.parquet", rows)
    analysis = results.analysis
    write_json(
        out / "results.json",
        {
            "headline": verdict.headline(analysis),
            "details": verdict.details(analysis, results.costs),
            "metric": analysis.metric,
            "runs": rows,
            "cells": [asdict(cell) for cell in analysis.cells],
            "comparisons": [asdict(comparison) for comparison in analysis.comparisons],
            "failures": [asdict(failure) for failure in results.failures],
            "missing": results.missing,
            "plan": results.plan,
            "facts": results.facts,
        },
    )


def terminal_table(results: StudyResults) -> Any:
    """A ``rich`` table: an arm a line, best first, then what it costs."""
    from vitrail.console import make_table

    analysis = results.analysis
    shares = [verdict.share_text(share) for share in analysis.shares]
    ranking = analysis.ranking(analysis.shares[-1]) if analysis.shares else []
    name, metric = results.facts["data"]["name"], analysis.metric_words
    return make_table(
        ("arm", *shares, "behind", "MACs", "latency"),
        [_line(analysis, results, cell.arm) for cell in ranking],
        title=f"Study of {name}: {metric} in %, 95 % intervals",
        caption="=  not distinguishable from the best",
    )


def _line(analysis: Analysis, results: StudyResults, arm: str) -> Sequence[str]:
    last = analysis.shares[-1]
    cells = [analysis.cell(arm, share) for share in analysis.shares]
    pair = analysis.versus(last, analysis.ranking(last)[0].arm, arm)
    behind = ""
    if pair is not None:
        same = "" if pair.verdict == "better" else " ="
        behind = f"{100 * pair.difference.value:.1f}{same}"
    cost = results.costs.get(arm)
    return [
        arm,
        *(_interval(cell) if cell else "" for cell in cells),
        behind,
        verdict.amount(cost.macs) if cost else "",
        verdict.duration(cost.latency) if cost else "",
    ]


def _interval(cell: Cell) -> str:
    a = cell.score
    return f"{100 * a.value:.1f} ({100 * a.low:.0f}-{100 * a.high:.0f})"


def _cost(results: StudyResults, arm: str) -> Row:
    cost = results.costs.get(arm)
    return {
        "params": cost.params if cost else None,
        "macs": cost.macs if cost else None,
        "latency_s": cost.latency if cost else None,
        "images_per_s": cost.throughput if cost else None,
        "train_memory_bytes": cost.memory if cost else None,
    }


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    held = io.StringIO()
    writer = csv.DictWriter(held, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows({k: cell_text(v) for k, v in row.items()} for row in rows)
    write_text(path, held.getvalue())


def _write_parquet(path: Path, rows: Sequence[Row]) -> None:
    if find_spec("pyarrow") is None:
        return
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(list(rows))
    with atomic_file(path) as draft:
        pyarrow.parquet.write_table(table, draft)
