"""What ``benchmarks.keep`` found, as tables for a page: one for each picture set, model and size.

``python -m benchmarks.keep_table FILES``: of two files that tell of the same reducer and way, the
one with more seeds is shown. Combined files are read as the runs they
came from. ``--apart``: runs of one seed each, every seed's difference to plain
done alike, and their mean.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks import command
from benchmarks.combine import by_run
from benchmarks.matrix_table import markdown

Row = Mapping[str, Any]
WAYS = ("as it is", "tuned", "from scratch")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to show.

    Attributes:
        files: results of ``benchmarks.keep``.
        apart: seeds beside each other.
    """

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    apart: tyro.conf.FlagCreatePairsOff[bool] = False


def main(options: Options) -> str:
    """Print the tables and give them."""
    results = [one for path in options.files for one in by_run(json.loads(path.read_text()))]
    results.sort(key=lambda result: str(result["date"]))
    text = "\n\n".join(tables(results, apart if options.apart else table))
    print(text)
    return text


def tables(results: Sequence[Mapping[str, Any]], draw: Callable[[list[Row]], str]) -> Iterator[str]:
    """A title and a table for each picture set, model and size, in the order of the files."""
    found: dict[tuple[str, str, int], list[Row]] = {}
    for result in results:
        settings = result["settings"]
        about = Path(settings["data"]).stem, settings["model"], settings["image"]
        first = settings["seeds"][0]
        found.setdefault(about, []).extend(row | {"seed": first} for row in result["rows"])
    for (data, model, image), rows in found.items():
        yield f"### {data}, {model}, {image} px"
        yield draw(rows)


def apart(rows: list[Row]) -> str:
    """Reducers down, ways across: every seed's difference to plain, in points, and their mean."""
    single = [row for row in rows if row["seeds"] == 1]
    found: dict[tuple[str, str], dict[int, Row]] = {}
    for row in single:
        found.setdefault((row["arm"], row["way"]), {})[row["seed"]] = row
    ways = [way for way in WAYS if any(way == known for _, known in found)]
    body = [
        [f"`{arm}`", *(cell_apart(found.get((arm, way), {})) for way in ways)]
        for arm in dict.fromkeys(row["arm"] for row in single)
    ]
    return markdown(["reducer", *ways], body)


def cell_apart(seeds: Mapping[int, Row]) -> str:
    """Accuracy of plain; or the mean difference to it, and each seed's."""
    known = [row for _, row in sorted(seeds.items())]
    if not known:
        return ""
    said = [100 * (row["to_plain"] or row["accuracy"])["value"] for row in known]
    sign = "+" if known[0]["to_plain"] else ""
    each = ", ".join(f"{value:{sign}.1f}" for value in said)
    return f"{sum(said) / len(said):{sign}.1f} ({each})"


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
    command.run(main, Options, __doc__)
