"""What stands in a file is held against its type; errors name file and key."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vitrail import schema
from vitrail.errors import UserError, printable


@dataclass(frozen=True)
class Inner:
    size: int
    rates: tuple[float, ...] = ()


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    extra: dict[str, list[int]] = field(default_factory=dict)
    note: str | None = None


GOOD = '{"name": "a", "inner": {"size": 2, "rates": [1, 0.5], "later": 1}, "extra": {"k": [1]}}'


def test_a_file_becomes_its_type(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(GOOD)
    assert schema.read_json(path, Outer) == Outer("a", Inner(2, (1.0, 0.5)), {"k": [1]})


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[]", "must be keys with values, not list"),
        ('{"name": "a"}', "lacks 'inner'"),
        ('{"name": 1, "inner": {"size": 2}}', "name must be str, not int 1"),
        ('{"name": "a", "inner": {"size": true}}', "size must be int, not bool"),
        ('{"name": "a", "inner": {"size": 2, "rates": [null]}}', "rates must be float"),
        ('{"name": "a", "inner": {"size": 2}, "extra": {"k": 1}}', "extra: k must be a list"),
        ("{", "cannot read"),
        ("[" * 100_000, "cannot read"),
        ('{"name": "\\ud800", "inner": {"size": 2}}', "half a character"),
        ('{"name": "a", "inner": {"size": 2, "rates": [1' + "0" * 400 + "]}}", "too large"),
        ('{"name": "a", "inner": {"size": 9223372036854775808}}', "size is too large"),
    ],
)
def test_another_shape_is_one_line(tmp_path: Path, text: str, error: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=error) as found:
        schema.read_json(path, Outer)
    assert "a.json" in str(found.value) and "\n" not in str(found.value)


def test_whole_characters_may_be_spelled_as_pairs(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('["\\ud83d\\ude00", "\\\\ud800"]')
    assert schema.read_json(path) == ["\U0001f600", "\\ud800"]


def test_only_regular_text_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "bytes", Path("/dev/zero")):
        with pytest.raises(UserError, match="cannot read"):
            schema.read_text(path)


def test_text_from_outside_is_shown_harmless() -> None:
    assert printable("\x1b[31mred\n\u202eabc\udcff\u200b") == (
        r"\x1b[31mred\x0a\u202eabc\xff\u200b"
    )
    assert printable("Zoë [b]猫[/b] 👩\u200d🔬") == "Zoë [b]猫[/b] 👩\u200d🔬"


@pytest.mark.parametrize(
    ("value", "said"),
    [(3, "must be str or a list, not int 3"), ([True], "must be float, not bool True")],
)
def test_a_value_of_several_kinds_says_them_all(value: object, said: str) -> None:
    with pytest.raises(UserError, match=f"^weights {said}$"):
        schema.convert(str | tuple[float, ...] | None, value, "weights")
