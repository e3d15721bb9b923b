"""What every command shares."""

import json
from pathlib import Path

import pytest

from vitrail.cli.command import as_json, table


def test_json_that_every_reader_accepts() -> None:
    data = {"a": float("inf"), "b": [Path("x"), True, None, 1, "ü"], 3: (0.5,)}
    text = as_json(data)
    assert json.loads(text) == {"a": None, "b": ["x", True, None, 1, "ü"], "3": [0.5]}
    assert "ü" in text


def test_table_cells_are_texts() -> None:
    made = table(("name", "count"), [("a", 1), ("b", None)])
    assert [column.justify for column in made.columns] == ["left", "right"]
    assert [str(cell) for cell in made.columns[1].cells] == ["1", ""]


@pytest.mark.parametrize(
    "name", ["\u202ex", "a\x9bb", "z\u200bw", "line\nbreak", "\x1b[31m", "\udcff"]
)
def test_json_shows_nothing_that_a_terminal_obeys_and_loses_nothing(name: str) -> None:
    text = as_json({name: [name]})
    assert json.loads(text) == {name: [name]}
    assert all(c.isprintable() or c == "\n" for c in text)
