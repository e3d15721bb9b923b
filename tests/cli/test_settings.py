"""``--set`` and YAML files."""

import pytest

from vitrail.cli.settings import changes_of
from vitrail.errors import UserError
from vitrail.yaml_text import merge


def test_values_are_read_as_yaml_reads_them() -> None:
    said = changes_of(["lr=0.5", "batch=64", "compile=true", "weights=null", "optimizer=lamb"])
    assert said == {"lr": 0.5, "batch": 64, "compile": True, "weights": None, "optimizer": "lamb"}


def test_dots_go_inside() -> None:
    assert changes_of(["augment.flip=0", "augment.erase=0.1"]) == {
        "augment": {"flip": 0, "erase": 0.1}
    }


def test_merged_goes_inside_too() -> None:
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merge(base, {"a": {"b": 5}, "d": 4}) == {"a": {"b": 5, "c": 2}, "d": 4}
    assert base["a"]["b"] == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [*((text, "KEY=VALUE") for text in ("lr", "=1", "")), ("a." * 3000 + "b=1", "lies so deep")],
)
def test_what_is_no_setting(text: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        changes_of([text])


def test_a_value_that_is_not_yaml() -> None:
    with pytest.raises(UserError, match="--set lr is not YAML"):
        changes_of(["lr=[1"])
