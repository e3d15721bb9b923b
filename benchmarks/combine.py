"""One result file for each benchmark and kind of machine: the newest row of every question.

``python -m benchmarks.combine`` reads ``benchmarks/results``, writes the combined files there and
removes those that went into them. ``--dry`` only says what it would do.

files of one benchmark, one instruction set -> rows, oldest first -> the last row of each question
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import command, contract

Result = Mapping[str, Any]
QUESTION = (
    "part", "arm", "model", "family", "backbone", "mixer", "reducer", "implementation", "image",
    "batch", "threads", "graph", "device", "precision", "way", "step", "checkpointing", "height",
    "width", "data", "seeds",
)  # fmt: skip
"""What a row is about; everything else in it was measured."""
ASKED = ("model", "data", "seeds")
"""Settings of a run that its rows may not repeat."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to combine.

    Attributes:
        folder: where the result files are.
        dry: only say what would be written and removed.
    """

    folder: Path = contract.RESULTS
    dry: bool = False


def main(options: Options) -> None:
    """Combine every group that has more than one file."""
    for paths in groups(sorted(options.folder.glob("*.json"))):
        results = [json.loads(path.read_text()) for path in paths]
        whole = combine(results)
        target = paths[-1]
        print(f"{target.name}: {len(whole['rows'])} rows of {len(paths)} files")
        if options.dry or len(paths) == 1:
            continue
        contract.write(target, whole)
        for path in paths[:-1]:
            path.unlink()


def groups(paths: Iterable[Path]) -> list[list[Path]]:
    """Files of one benchmark and one instruction set, oldest first."""
    found: dict[tuple[str, str], list[tuple[str, Path]]] = {}
    for path in paths:
        result = json.loads(path.read_text())
        kind = result["benchmark"], str(result["machine"].get("instructions"))
        found.setdefault(kind, []).append((result["date"], path))
    return [[path for _, path in sorted(some)] for _, some in sorted(found.items())]


def combine(results: Sequence[Result]) -> dict[str, Any]:
    """One result of several: ``runs`` says where each row comes from (its ``run``).

    Of two rows that answer one question the later one stays; a run without a row left is dropped.
    """
    single = sorted((one for result in results for one in by_run(result)), key=lambda r: r["date"])
    newest: dict[str, tuple[int, Mapping[str, Any]]] = {}
    for number, result in enumerate(single):
        for row in result["rows"]:
            newest[question(row, result["settings"])] = (number, row)
    used = sorted({number for number, _ in newest.values()})
    kept = sorted(newest.values(), key=lambda entry: entry[0])
    rows = [dict(row) | {"run": used.index(number)} for number, row in kept]
    last = dict(single[-1])
    runs = [{key: single[number][key] for key in contract.RUN} for number in used]
    return last | {"bars": [], "runs": runs, "rows": rows}


def by_run(result: Result) -> Iterator[dict[str, Any]]:
    """A combined result as the single runs it came from; a single run as it is."""
    if "runs" not in result:
        yield dict(result)
        return
    for number, run in enumerate(result["runs"]):
        rows = [row for row in result["rows"] if row["run"] == number]
        single = [{key: value for key, value in row.items() if key != "run"} for row in rows]
        yield (
            {key: value for key, value in result.items() if key != "runs"} | run | {"rows": single}
        )


def question(row: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """What a row answers, as text: its facts, and what its run was about."""
    facts = {key: row[key] for key in QUESTION if key in row}
    asked = {key: settings[key] for key in ASKED if key in settings and key not in facts}
    if asked.get("data"):
        asked["data"] = Path(asked["data"]).stem  # moved pictures are the same pictures
    return json.dumps([facts, asked], sort_keys=True, default=str)


if __name__ == "__main__":
    command.run(main, Options, __doc__)
