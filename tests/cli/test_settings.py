"""``--set`` and YAML files."""

from pathlib import Path

import pytest

from vitrail.cli.settings import changes_of, merged, read_yaml
from vitrail.errors import UserError


def test_values_are_read_as_yaml_reads_them() -> None:
    said = changes_of(["lr=0.5", "batch=64", "compile=true", "weights=null", "optimizer=lamb"])
    assert said == {"lr": 0.5, "batch": 64, "compile": True, "weights": None, "optimizer": "lamb"}


def test_dots_go_inside() -> None:
    assert changes_of(["augment.flip=0", "augment.erase=0.1"]) == {
        "augment": {"flip": 0, "erase": 0.1}
    }


def test_merged_goes_inside_too() -> None:
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merged(base, {"a": {"b": 5}, "d": 4}) == {"a": {"b": 5, "c": 2}, "d": 4}
    assert base["a"]["b"] == 1


@pytest.mark.parametrize("text", ["lr", "=1", ""])
def test_what_is_no_setting(text: str) -> None:
    with pytest.raises(UserError, match="KEY=VALUE"):
        changes_of([text])


def test_a_value_that_is_not_yaml() -> None:
    with pytest.raises(UserError, match="--set lr: cannot read"):
        changes_of(["lr=[1"])


@pytest.mark.parametrize(("text", "line"), [("- a", "lines of 'key: value'"), ("{", "not YAML")])
def test_files_that_hold_no_settings(text: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=line):
        read_yaml(path)
