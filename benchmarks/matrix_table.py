"""The matrix as a page: who serves whom in a grid, refusals as notes, figures in tables."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
NATIVE = "native"


def page(result: Mapping[str, Any]) -> str:
    """The whole page, from one result file."""
    cells = result["settings"]["cells"]
    parts = [head(result)]
    for backbone in dict.fromkeys(c["backbone"] for c in cells):
        own = [c for c in cells if c["backbone"] == backbone]
        rows = [r for r in result["rows"] if r["backbone"] == backbone]
        parts += [f"## {backbone}", grid(own), *figures(rows)]
    large = result["settings"]["too_large"]
    if large:
        limits = f"{result['settings']['limit_gb']:g} GB or {result['settings']['limit_s']:g} s"
        names = "\n".join(f"- {cell_name(cell)}" for cell in large)
        parts.append(f"Not timed, for one call takes more than {limits}:\n\n{names}")
    return "\n\n".join(parts) + "\n"


def cell_name(cell: Row) -> str:
    """A cell that was too large, and what it takes."""
    changed = [f"{k} `{cell[k]}`" for k in ("mixer", "reducer") if cell[k] != NATIVE]
    which = ", ".join(changed) or "as it is"
    return f"{cell['backbone']} at {cell['image']} px, {which}: {cell['takes']}"


def head(result: Mapping[str, Any]) -> str:
    """What this is, and the run that made it."""
    machine, settings = result["machine"], result["settings"]
    quiet = sum(r["time"]["quiet"] for r in result["rows"])
    return (
        "# Backbone x mixer x reducer\n\n"
        f"{found(result)}\n\n"
        "`x` in a grid serves, a number is refused when the model is built, for the reason below "
        "the grid. Every time was measured in one run with the plain model; `speed` is how many "
        "times faster than that. Memory is the peak of a forward of one picture in a fresh "
        "process, weights included. A command makes this page; do not edit it.\n\n"
        "```text\n"
        f"{result['command']}\n"
        f"{result['date']}, {machine['cpu']}, {settings['threads']} thread(s), "
        f"torch {machine['versions']['torch']}, batch 1, float32, eager\n"
        "```\n\n"
        f"In {len(result['rows']) - quiet} of {len(result['rows'])} measurements other work ran on "
        "the machine: trust `speed`, the median over rounds of windows next to each other, before "
        "milliseconds, of which `plain ms` are the plain model's in the same run."
    )


def found(result: Mapping[str, Any]) -> str:
    """What the page says, in two sentences and a table of what saves most."""
    cells = [cell for cell in result["settings"]["cells"] if cell["refused"] != ""]
    served = sum(cell["refused"] is None for cell in cells)
    largest = max((row["image"] for row in result["rows"]), default=0)
    rows = [row for row in result["rows"] if row["image"] == largest and row["against"]]
    others = [row for row in rows if row["reducer"] == NATIVE]
    faster = sum(speed(row) > 1 for row in others)
    said = (
        f"Of {len(cells)} combinations of a backbone, a mixer and a reducer {served} serve; the "
        "others are refused when the model is built, each for one of a few reasons. At "
        f"{largest} px {faster} of {len(others)} other mixers were faster than the backbone's own."
    )
    best = [most_saved(some) for some in by_backbone(rows)]
    return f"{said}\n\n{markdown(['backbone', 'saves most', 'speed'], best)}"


def by_backbone(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of each backbone."""
    names = dict.fromkeys(row["backbone"] for row in rows)
    return [[row for row in rows if row["backbone"] == name] for name in names]


def most_saved(rows: Sequence[Row]) -> list[str]:
    """Backbone, change and speed of the fastest row."""
    best = max(rows, key=speed)
    changed = [f"`{best[k]}`" for k in ("mixer", "reducer") if best[k] != NATIVE]
    return [best["backbone"], " with ".join(changed), f"{speed(best):.2f}"]


def grid(cells: Sequence[Row]) -> str:
    """Mixers down, reducers across: x, the number of a reason, or nothing for a namesake."""
    reducers = list(dict.fromkeys(c["reducer"] for c in cells))
    reasons: dict[str, int] = {}
    body = []
    for mixer in dict.fromkeys(c["mixer"] for c in cells):
        row = {c["reducer"]: c["refused"] for c in cells if c["mixer"] == mixer}
        marks = [mark(row.get(reducer, ""), reasons) for reducer in reducers]
        body.append([f"`{mixer}`", *marks])
    notes = "\n".join(f"{number}. {reason}" for reason, number in reasons.items())
    table = markdown(["mixer \\ reducer", *(f"`{r}`" for r in reducers)], body)
    return f"{table}\n\n{notes}" if notes else table


def mark(refused: str | None, reasons: dict[str, int]) -> str:
    """One field of the grid."""
    if refused is None:
        return "x"
    if not refused:
        return ""
    return str(reasons.setdefault(reason(refused), len(reasons) + 1))


def reason(refusal: str) -> str:
    """Why, and the remedy, without spec and place."""
    return re.sub(r"^.*?\(dim .*?\): ", "", refusal)


def figures(rows: Sequence[Row]) -> Iterator[str]:
    """One table for each size: what was measured, the plain model first, then by speed."""
    for image in sorted({r["image"] for r in rows}):
        latest = {r["arm"]: (r, plain) for r, plain in beside(rows) if r["image"] == image}
        ordered = sorted(latest.values(), key=lambda p: (bool(p[0]["against"]), -speed(p[0])))
        body = [
            [
                f"`{r['mixer']}`",
                f"`{r['reducer']}`",
                f"{r['params'] / 1e6:.2f}",
                f"{r['macs'] / 1e9:.3f}",
                f"{r['time']['median_ms']:.1f}",
                f"{plain['time']['median_ms']:.1f}",
                f"{speed(r):.2f}" if r["against"] else "1",
                "" if r["memory_bytes"] is None else f"{r['memory_bytes'] / 2**20:.0f}",
            ]
            for r, plain in ordered
        ]
        columns = ["mixer", "reducer", "M params", "GMAC", "ms", "plain ms", "speed", "peak MB"]
        yield f"At {image} px:\n\n" + markdown(columns, body)


def beside(rows: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """Each row with the plain model's of the same run, which was written before it."""
    for row in rows:
        if not row["against"]:
            plain = row
        yield row, plain


def speed(row: Row) -> float:
    """Times faster than the plain model."""
    return float(row["against"][0]["ratio"]) if row["against"] else 1.0


def markdown(columns: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
