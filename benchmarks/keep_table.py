"""What ``benchmarks.keep`` found, as tables for a page: one for each picture set, model and size.

``python -m benchmarks.keep_table FILES``: of two files that tell of the same reducer and way, the
one with more seeds is shown.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.matrix_table import markdown

Row = Mapping[str, Any]
WAYS = ("as it is", "tuned", "from scratch")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to show.

    Attributes:
        files: results of ``benchmarks.keep``.
    """

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]


def main(options: Options) -> str:
    """Print the tables and give them."""
    text = "\n\n".join(tables([json.loads(path.read_text()) for path in options.files]))
    print(text)
    return text


def tables(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A title and a table for each picture set, model and size, in the order of the files."""
    found: dict[tuple[str, str, int], list[Row]] = {}
    for result in results:
        settings = result["settings"]
        about = Path(settings["data"]).stem, settings["model"], settings["image"]
        found.setdefault(about, []).extend(result["rows"])
    for (data, model, image), rows in found.items():
        yield f"### {data}, {model}, {image} px"
        yield table(rows)


def table(rows: Sequence[Row]) -> str:
    """Reducers down, ways across, plain first; of one cell the row with most seeds, or the last."""
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        at = row["arm"], row["way"]
        if at not in best or row["seeds"] >= best[at]["seeds"]:
            best[at] = row
    body = [
        [f"`{arm}`", speed(rows, arm), *(cell(best.get((arm, way))) for way in WAYS)]
        for arm in dict.fromkeys(row["arm"] for row in rows)
    ]
    return markdown(["reducer", "throughput", *WAYS], body)


def speed(rows: Sequence[Row], arm: str) -> str:
    """Times plain's, as last measured."""
    ratios = [o["ratio"] for row in rows if row["arm"] == arm for o in row["against"]]
    return f"{ratios[-1]:.2f}" if ratios else ""


def cell(row: Row | None) -> str:
    """Accuracy, and the difference to plain done alike with its interval."""
    if row is None:
        return ""
    seeds = f", {row['seeds']} seeds" if row["seeds"] > 1 else ""
    apart = row["to_plain"]
    low, middle, high = (100 * apart[k] for k in ("low", "value", "high")) if apart else (0, 0, 0)
    said = f" ({middle:+.1f}: {low:+.1f} to {high:+.1f}{seeds})" if apart else seeds
    return f"{100 * row['accuracy']['value']:.1f} %{said}"


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
