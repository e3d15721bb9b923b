"""YAML that people write, and what is none: one sentence, and no code is run."""

from pathlib import Path

import pytest

from vitrail.errors import UserError
from vitrail.yaml_text import parse_yaml, read_yaml

WRONG = {
    "a list": (b"- a", "recipe '.*' must be lines of 'key: value'"),
    "open brace": (b"{", "is not YAML"),
    "latin": (b"a: \xff", "cannot read recipe .*utf-8"),
    "picture": (b"\x89PNG\r\n\x1a\n\x00\x00", "cannot read recipe"),
    "zero": (b"a: \x00", "is not YAML"),
    "code": (b"!!python/object/apply:os.system ['exit']", "is not YAML"),
    "no date": (b"a: 2001-13-45", "is not YAML: month must be"),
    "half a character": (b'a: "\\ud800"', "half a character"),
    "deep": (b"[" * 5000, "is not YAML"),
    "a list as key": (b"? [1]\n: 2", "is not YAML"),
    "itself": (b"a: &a [*a]", "holds more than"),
    "billions": (
        b"a: &a [1,1,1,1,1,1,1,1,1,1]\n"
        + b"".join(
            b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 10)) for c in b"bcdefghi"
        ),
        "holds more than",
    ),
    "twice": (b"lr: 1\nepochs: 1\nlr: 2", "'lr' stands there twice, the second time in line 3"),
    "merges": (
        b"a: &a {"
        + b",".join(b"k%d: 1" % i for i in range(2000))
        + b"}\nb: {<<: ["
        + b",".join([b"*a"] * 2000)
        + b"]}",
        "merges more than",
    ),
    "hexadecimal": (b"epochs: 0x" + b"f" * 9000, "more than 1024 bits"),
    "of base 60": (b"epochs: " + b":".join([b"59"] * 9000), "more than 1024 bits"),
    "long": (b"#" * 2**21, "larger than 1 MiB"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_recipe(name: str, tmp_path: Path) -> None:
    content, line = WRONG[name]
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=line) as refused:
        read_yaml(path, "recipe")
    assert "\n" not in str(refused.value)


def test_what_is_one(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("")
    assert read_yaml(path) == {}
    assert parse_yaml("a: &x [1, 2]\nb: *x", "text") == {"a": [1, 2], "b": [1, 2]}
    merged = "a: &x {k: 1, m: 2}\nb: {<<: *x, k: 3}\nc: {<<: *x}"
    assert parse_yaml(merged, "text")["b"] == {"k": 3, "m": 2}
    for wrong in (tmp_path, tmp_path / "none.yaml", "/dev/null"):
        with pytest.raises(UserError, match="cannot read recipe"):
            read_yaml(wrong, "recipe")
