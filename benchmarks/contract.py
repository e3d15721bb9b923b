"""The shape of a result file: what a benchmark ran, where, and every row of it.

``{"format", "benchmark", "command", "date", "machine", "settings", "bars", "rows"}``; a file that
``benchmarks.combine`` made has ``runs`` too, and each row says which of them it comes from.
"""

import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vitrail.cost import Ratio, Timing, machine
from vitrail.files import sweep_dead, write_text

FORMAT = 1
RESULTS = Path(__file__).parent / "results"
TOP = {
    "format": int,
    "benchmark": str,
    "command": str,
    "date": str,
    "machine": dict,
    "settings": dict,
    "bars": list,
    "rows": list,
}
MACHINE = ("cpu", "cores", "threads", "versions", "float32_matmul", "load_average", "date")
ROW = {"arm": str, "threads": int, "against": list}
MEASURED = {"time": dict, "memory_bytes": int | None}
"""A row holds one of these."""
TIME = ("median_ms", "low_ms", "high_ms", "best_ms", "windows_ms", "quiet", "settled")
RUN = ("command", "date", "machine", "settings")
"""What a combined file says of each run that its rows come from."""
AGAINST = ("arm", "ratio", "low", "high", "rounds", "quiet")


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A promise: ``arm`` is at least ``at_least`` times as fast (or small) as ``against``.

    It speaks to rows of its arm and graph whose facts are among those of ``where``, such as
    ``{"image": (224,), "model": ("cmt_ti", "cmt_s")}``.
    """

    arm: str
    against: str
    at_least: float
    graph: str = "eager"
    where: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        facts = "".join(f"; {', '.join(map(str, some))}" for some in self.where.values())
        return f"{self.arm} >= {self.at_least} x {self.against}, {self.graph}{facts}"

    def of(self, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What the row says of the bar: its entry against the yardstick, if it has one."""
        asked = {"arm": (self.arm,), "graph": (self.graph,), **self.where}
        if any(row.get(fact, "eager") not in some for fact, some in asked.items()):
            return None
        return next((o for o in row["against"] if o["arm"] == self.against), None)

    def judge(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """How many rows hold it, the lowest ratio among them, and whether all were quiet."""
        found = [other for row in rows if (other := self.of(row)) is not None]
        return {
            "bar": str(self),
            "held": sum(other["ratio"] >= self.at_least for other in found),
            "of": len(found),
            "lowest": min((other["ratio"] for other in found), default=None),
            "quiet": all(other["quiet"] for other in found),
        }


def against(arm: str, ratio: Ratio) -> dict[str, Any]:
    """One entry of a row's ``against``: how many times faster the row is than ``arm``."""
    return {
        "arm": arm,
        "ratio": ratio.median,
        "low": ratio.low,
        "high": ratio.high,
        "rounds": ratio.rounds,
        "quiet": ratio.quiet,
    }


def row(arm: str, timing: Timing, ratios: Mapping[str, Ratio], **facts: Any) -> dict[str, Any]:
    """A row: what was timed, under which conditions, and how it stands against others."""
    return {
        "arm": arm,
        **facts,
        "threads": timing.threads,
        "time": timing.to_dict(),
        "against": [against(other, ratio) for other, ratio in ratios.items()],
    }


def stamp() -> str:
    """The time to a microsecond, and a chance part: two runs have met in one microsecond."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"


class Record:
    """A run's result file, written anew after each setting so that a broken run leaves its rows."""

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any],
        folder: Path,
        bars: Sequence[Bar] = (),
        command: str | None = None,
    ) -> None:
        self.name, self.settings, self.bars = name, dict(settings), tuple(bars)
        self.command = command or f"python -m benchmarks.{name}"
        self.machine = machine()
        self.date = str(self.machine["date"])
        self.rows: list[dict[str, Any]] = []
        self.path = folder / f"{name}-{stamp()}.json"

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows and write the file."""
        self.rows.extend(rows)
        write(self.path, self.to_dict())

    def judge_rows(self) -> list[dict[str, Any]]:
        """The bars that some row speaks to."""
        return [found for bar in self.bars if (found := bar.judge(self.rows))["of"]]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "format": FORMAT,
            "benchmark": self.name,
            "command": " ".join([self.command, *sys.argv[1:]]),
            "date": self.date,
            "machine": self.machine,
            "settings": self.settings,
            "bars": self.judge_rows(),
            "rows": self.rows,
        }

    def verdicts(self) -> list[str]:
        """How the bars fared, a line each."""
        return [verdict(found) for found in self.judge_rows()]

    def close(self) -> None:
        """Print how the bars fared and where the file is."""
        print(*self.verdicts(), f"written: {self.path}", sep="\n")


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result file whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_dead(path.parent)
    write_text(path, json.dumps(result, indent=1, default=str) + "\n")


def verdict(found: Mapping[str, Any]) -> str:
    """A judged bar for people."""
    word = "held" if found["held"] == found["of"] else "MISSED"
    noisy = "" if found["quiet"] else "; not all windows quiet, do not publish"
    return (
        f"bar {word}: {found['bar']}: in {found['held']} of {found['of']} settings, "
        f"lowest {found['lowest']:.2f}{noisy}"
    )


def faults(result: Mapping[str, Any]) -> list[str]:
    """What a result file lacks or has wrong; empty if it keeps the contract."""
    wrong = [
        f"{key} is not {kind.__name__}"
        for key, kind in TOP.items()
        if not isinstance(result.get(key), kind)
    ]
    if wrong:
        return wrong
    wrong += [f"machine lacks {key}" for key in MACHINE if key not in result["machine"]]
    wrong += ["no rows"] if not result["rows"] else []
    for number, found in enumerate(result["rows"]):
        wrong += [f"row {number}: {fault}" for fault in _row_faults(found)]
    return wrong + _run_faults(result) if "runs" in result else wrong


def _run_faults(result: Mapping[str, Any]) -> list[str]:
    runs = result["runs"]
    wrong = [f"run {n} lacks {key}" for n, run in enumerate(runs) for key in RUN if key not in run]
    used = {row.get("run") for row in result["rows"]}
    return wrong if used == set(range(len(runs))) else [*wrong, "rows name runs that are not there"]


def _row_faults(found: Mapping[str, Any]) -> list[str]:
    kinds: dict[str, Any] = ROW | {key: kind for key, kind in MEASURED.items() if key in found}
    if len(kinds) == len(ROW):
        return [f"holds none of {', '.join(MEASURED)}"]
    wrong = [
        f"{key} is not {getattr(kind, '__name__', kind)}"
        for key, kind in kinds.items()
        if key not in found or not isinstance(found[key], kind)
    ]
    if wrong:
        return wrong
    wrong += [f"time lacks {key}" for key in TIME if key not in found.get("time", TIME)]
    wrong += [
        f"against lacks {key}" for other in found["against"] for key in AGAINST if key not in other
    ]
    return wrong
