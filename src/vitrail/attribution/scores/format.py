"""Scores as lines of a CSV, cells of a table, Markdown; each compared with the centre Gaussian.

A mark says how a mean stands against the centre Gaussian's, by the paired bootstrap over pictures:
``+`` better, ``-`` worse, nothing where neither is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vitrail.attribution.scores.table import SCORES, MethodScores, versus

#: What a table shows, and how it heads its columns; the arrow says which way is better.
COLUMNS: Mapping[str, str] = {
    "insertion": "insertion ↑",
    "deletion": "deletion ↓",
    "difference": "ins - del ↑",
    "pointing": "pointing ↑",
    "energy": "energy ↑",
    "iou": "IoU ↑",
    "ap": "AP ↑",
    "auc": "AUC ↑",
    "sensitivity": "sensitivity ↓",
    "contrast": "contrast ↑",
    "head_randomised": "head random",
    "all_randomised": "all random ↓",
    "completeness": "completeness ↓",
}
MARKS = {"better": " +", "worse": " -", "not distinguishable": ""}
CENTRE = "centre"
LEGEND = (
    "+ better, - worse than the centre Gaussian (95 % bootstrap over pictures), no mark: not told "
    "apart. head random, all random: how alike (Spearman) the maps stay when the head's, then all "
    "weights are random; a class-agnostic map cannot notice the head."
)


def header(rows: Sequence[MethodScores]) -> list[str]:
    """The columns that these rows fill."""
    return ["method", "class", *(COLUMNS[name] for name in filled_columns(rows)), "ms"]


def cells(rows: Sequence[MethodScores]) -> list[list[str]]:
    """A line a row, in the order given; a row without scores has its reason."""
    centre = next((row for row in rows if row.method == CENTRE), None)
    return [_cells(row, centre, filled_columns(rows)) for row in rows]


def filled_columns(rows: Sequence[MethodScores]) -> list[str]:
    """The scores that any row has."""
    return [name for name in COLUMNS if any(row.scores.get(name) for row in rows)]


def _cells(row: MethodScores, centre: MethodScores | None, names: Sequence[str]) -> list[str]:
    figures = [figure(row, centre, name) for name in names]
    name = f"{row.method} ({row.refused} without a map)" if row.refused else row.method
    milliseconds = "" if row.problem else f"{1000 * row.seconds:.3g}"
    return [name, row.problem and "cannot" or row.kind, *figures, milliseconds]


def figure(row: MethodScores, centre: MethodScores | None, score: str) -> str:
    """A mean with its mark, or nothing."""
    mean = row.mean(score)
    if mean is None:
        return ""
    ahead = versus(row, centre, score) if centre is not None and row is not centre else None
    text = f"{mean:.1e}" if score == "completeness" else f"{mean:.3f}"
    return text + (MARKS[ahead.verdict] if ahead else "")


def lines(rows: Sequence[MethodScores], **facts: Any) -> list[dict[str, Any]]:
    """For a CSV: a line for each method and score, with ``facts`` (the run) before it."""
    centre = next((row for row in rows if row.method == CENTRE), None)
    return [
        facts | _line(row, centre, name, better)
        for row in rows
        for name, better in SCORES.items()
        if row.scores.get(name)
    ]


def _line(row: MethodScores, centre: MethodScores | None, name: str, better: int) -> dict[str, Any]:
    values = row.scores[name]
    mean = sum(values) / len(values)
    ahead = versus(row, centre, name) if centre is not None else None
    return {
        "method": row.method,
        "kind": row.kind,
        "score": name,
        "better": "higher" if better > 0 else "lower",
        "mean": mean,
        "sd": (sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1)) ** 0.5,
        "pictures": len(values),
        "ahead_of_centre": None if ahead is None else ahead.value,
        "low": None if ahead is None else ahead.low,
        "high": None if ahead is None else ahead.high,
    }


def markdown(rows: Sequence[MethodScores]) -> str:
    """A Markdown table; methods that cannot serve are listed below it with their reason."""
    good = [row for row in rows if not row.problem]
    top = header(good)
    rule = ["---", "---", *("---:" for _ in top[2:])]
    table = [f"| {' | '.join(line)} |" for line in (top, rule, *cells(good))]
    reasons = [f"- `{row.method}` cannot: {row.problem}" for row in rows if row.problem]
    return "\n".join([*table, *([""] if reasons else []), *reasons])
