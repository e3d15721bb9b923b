"""What every command shares."""

import json
from pathlib import Path

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
