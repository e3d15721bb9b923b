"""Tables of the pages: cells, and that a stale page is found."""

from pathlib import Path

import pytest

from benchmarks import pages


def row(**facts: object) -> dict[str, object]:
    entry = {"arm": "peer eager", "ratio": 1.2, "low": 1.1, "high": 1.3, "rounds": 2, "quiet": True}
    base = {"arm": "vitrail", "graph": "eager", "family": "coat", "image": 224}
    return {**base, "against": [entry], **facts}


def test_what_misses_its_bar_is_bold() -> None:
    assert pages.speed_cell(row(), "eager") == "**1.20**"
    assert pages.speed_cell(row(image=384), "eager") == "1.20"
    assert pages.speed_cell(row(), "compiled") == ""
    assert pages.speed_cell(None, "eager") == ""


def test_a_peer_that_did_not_fit_stands_as_a_limit() -> None:
    rows = {
        ("vitrail", "m", 64): {"memory_bytes": 2 * pages.MB, "against": [{"ratio": 3.0}]},
        ("peer", "m", 64): {"memory_bytes": None, "against": []},
    }
    assert pages.memory_cells(rows, "m", 64) == ["2", "too large", "at least 3.00"]
    assert pages.memory_cells(rows, "other", 64) == ["", "", ""]


def test_a_stale_table_is_named_and_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pages.TABLES, "three", lambda: "| 3 |")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- benchmarks.pages: three -->\n| 2 |\n<!-- end -->\nafter\n")
    assert pages.write(page, check=True) == ["three"]
    assert "| 2 |" in page.read_text()
    assert pages.write(page) == ["three"]
    assert pages.write(page, check=True) == []
    assert page.read_text().splitlines()[0::4] == ["before", "after"]


def test_the_same_points_draw_the_same_picture(tmp_path: Path) -> None:
    points = {"a": [("x", 1.0), ("y", -0.5)], "b": [("y", 2.0)]}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        pages.draw_dots(tmp_path / name / "p.svg", "what", points)
    one, two = ((tmp_path / name / "p.svg").read_bytes() for name in ("one", "two"))
    assert one == two
    assert pages.one_or_zero(points) == 0
    assert pages.one_or_zero({"a": [("x", 1.0)]}) == 1
