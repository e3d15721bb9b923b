import io
import json

import pytest
from rich.console import Console
from tests.cost import builders

from vitrail import cost
from vitrail.errors import UserError

SHORT = cost.Settings(
    image=24, batch=2, classes=3, rounds=2, window_s=0.01, warmup_s=0.01, threads=1
)


@pytest.fixture(scope="module")
def report() -> cost.CostReport:
    return cost.cost(["narrow", "wide"], SHORT, build=builders.build, with_memory=False)


def test_rows_hold_counts_and_times(report: cost.CostReport) -> None:
    narrow, wide = report.rows
    assert narrow.count.params == 27 * 8 + 8 + 8 * 3 + 3
    assert narrow.latency.name == "narrow, batch 1"
    assert narrow.images_per_s == pytest.approx(2 / narrow.throughput.median)
    assert narrow.speed.median == 1.0
    assert wide.speed.median == cost.ratio(wide.throughput, narrow.throughput).median
    assert wide.memory_train is None


def test_json_and_table(report: cost.CostReport) -> None:
    data = json.loads(json.dumps(report.to_dict()))
    assert data["settings"]["batch"] == 2
    assert data["machine"]["versions"]["torch"]
    assert data["rows"][0]["latency"]["median_ms"] > 0
    out = io.StringIO()
    Console(file=out, width=160).print(report.table())
    assert "24 px, float32, eager, cpu" in out.getvalue()
    assert "wide" in out.getvalue()


def test_batch_one_is_timed_once() -> None:
    settings = cost.Settings(image=8, batch=1, rounds=1, window_s=0.01, warmup_s=0.01)
    row = cost.cost(["narrow"], settings, build=builders.build, with_memory=False).rows[0]
    assert row.latency is row.throughput


def test_memory_that_fails_leaves_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*args: object, **options: object) -> int:
        if args[3]:
            raise UserError("memory ran out")
        return 5 * 10**6

    monkeypatch.setattr("vitrail.cost.report.memory", no_room)
    settings = cost.Settings(image=8, batch=1, rounds=1, window_s=0.01, warmup_s=0.01)
    row = cost.cost(["narrow"], settings, build=builders.build).rows[0]
    assert (row.memory_forward, row.memory_train) == (5 * 10**6, None)
    assert row.notes == ("memory ran out",)


def test_wrong_models() -> None:
    with pytest.raises(UserError, match="at least one model"):
        cost.cost([])
    with pytest.raises(UserError, match="no model 'huge'"):
        cost.cost(["huge"], SHORT, build=builders.build)
