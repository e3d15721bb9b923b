"""Unknown names answer with the close ones."""

from vitrail.errors import UserError, unknown


def test_close_names_first() -> None:
    error = unknown("model", "vit_tinny", ["vit_tiny", "vit_small", "coat_mini"])
    assert isinstance(error, UserError)
    assert str(error).startswith("no model 'vit_tinny'; close: vit_tiny")


def test_without_close_names_a_few_are_named() -> None:
    line = str(unknown("thing", "zzz", [f"name{i:02}" for i in range(20)]))
    assert line.endswith("name14, name15, … (20 in all)")
    assert str(unknown("thing", "zzz", [])) == "no thing 'zzz'"
