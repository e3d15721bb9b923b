"""Accuracy kept: three ways, every training kept and not done twice."""

import json

from benchmarks import contract, keep, keep_table
from vitrail.cost import Settings


def test_small_run_keeps_the_contract_and_trains_nothing_twice(tmp_path, monkeypatch):
    short = {"window_s": 0.005, "warmup_s": 0.005}
    monkeypatch.setattr(keep, "Settings", lambda **options: Settings(**{**options, **short}))
    options = keep.Options(
        data="scenes(size=32, count=48, classes=2)",
        model="vit_tiny(depth=1, dim=24, patch=8)",
        reducers=("cluster",),
        image=32,
        epochs=1,
        tune=1,
        batch=8,
        tested=8,
        rounds=2,
        threads=1,
        work=tmp_path / "work",
        out=tmp_path,
    )
    found = json.loads(keep.main(options).read_text())
    assert contract.faults(found) == []
    ways = {(row["way"], row["arm"]) for row in found["rows"]}
    assert ways == {(way, arm) for way in options.ways for arm in ("all", "cluster")}
    assert {row["tested"] for row in found["rows"]} == {8}
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "work").rglob("last.safetensors")}
    assert len(before) == 4  # plain, plain tuned, cluster tuned, cluster from scratch
    again = json.loads(keep.main(options).read_text())
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert [r["accuracy"] for r in again["rows"]] == [r["accuracy"] for r in found["rows"]]


def test_plain_is_the_same_whatever_is_asked_of_it(tmp_path):
    table = keep.Table(keep.Options(data="scenes(size=32, count=24, classes=2)", image=32))
    plain, pooled = table.build(keep.PLAIN, 3), table.build("pool", 3)
    assert pooled.config.reducer == ("pool", "pool", "pool", "all")
    assert all((pooled.state_dict()[k] == v).all() for k, v in plain.state_dict().items())


def row(arm: str, way: str, value: float, seeds: int, apart: float | None = None) -> dict:
    between = {"value": apart, "low": -0.05, "high": 0.01}
    return {
        "arm": arm,
        "way": way,
        "seeds": seeds,
        "accuracy": {"value": value, "low": 0.1, "high": 0.9},
        "to_plain": None if apart is None else between,
        "against": [] if apart is None else [{"arm": "all", "ratio": 2.114}],
    }


def test_the_table_shows_the_file_with_more_seeds():
    settings = {"data": "/some/flowers.zip", "model": "vit_tiny", "image": 128, "seeds": [0]}
    one = [row("all", "tuned", 0.5, 1), row("pool", "tuned", 0.4, 1, -0.1)]
    three = [row("all", "tuned", 0.52, 3), row("all", "as it is", 0.53, 3)]
    results = [{"settings": settings, "rows": rows} for rows in (three, one)]
    results.append({"settings": {**settings, "image": 160}, "rows": three[:1]})
    title, table, other, _ = keep_table.tables(results, keep_table.table)
    assert (title, other) == ("### flowers, vit_tiny, 128 px", "### flowers, vit_tiny, 160 px")
    assert table.splitlines()[2:] == [
        "| `all` |  | 53.0 %, 3 seeds | 52.0 %, 3 seeds |  |",
        "| `pool` | 2.11 |  | 40.0 % (-10.0: -5.0 to +1.0) |  |",
    ]


def test_seeds_stand_beside_each_other_and_their_mean():
    def file(seed: int, plain: float, apart: float) -> dict:
        settings = {"data": "flowers.zip", "model": "vit_tiny", "image": 128, "seeds": [seed]}
        rows = [row("all", "tuned", plain, 1), row("pool", "tuned", 0.4, 1, apart)]
        return {"settings": settings, "rows": rows}

    results = [file(1, 0.5, -0.02), file(0, 0.6, 0.01)]
    _, table = keep_table.tables(results, keep_table.apart)
    assert table.splitlines()[0] == "| reducer | tuned |"
    assert table.splitlines()[2:] == [
        "| `all` | 55.0 (60.0, 50.0) |",
        "| `pool` | -0.5 (+1.0, -2.0) |",
    ]
    assert keep_table.cell_apart({}) == ""


def test_what_is_asked_is_whole_parts_or_what_is_tested():
    options = keep.Options(data="scenes(size=32, count=40, classes=2)", image=32, tested=4)
    table = keep.Table(options)
    assert table.final_items == table.test_items and len(table.final_items) == 4
    both = keep.Table(keep.replace(options, parts=("val", "test")))
    split = both.pictures.split
    assert both.final_items == split("val") + split("test") and len(both.final_items) > 4


def test_a_reducer_for_each_stage():
    table = keep.Table(keep.Options(data="scenes(size=32, count=24, classes=2)", image=32))
    each = table.build("cluster(ratio=9); cluster; all; all", 0).config.reducer
    assert each == ("cluster(ratio=9)", "cluster", "all", "all")
