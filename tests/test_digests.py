"""Digests inside JSON and YAML: a flipped bit is refused, older files are taken as they are."""

import json

import pytest

from vitrail.digests import KEY, add_digest, add_text_digest, check_text_digest
from vitrail.errors import UserError
from vitrail.schema import parse_json

CONTENT = {"b": [1, 0.1, None, True], "a": {"x": "Ä\udcff"}, "n": 1e-300}
WRITTEN = json.dumps(add_digest(CONTENT), ensure_ascii=True)


def outcome(text: str) -> object:
    """What a text says, or None where it is refused."""
    try:
        return parse_json(text)
    except UserError:
        return None


def test_what_is_written_is_read_and_seals_once() -> None:
    assert parse_json(WRITTEN) == CONTENT
    assert add_digest(add_digest(CONTENT)) == add_digest(CONTENT)
    assert parse_json(json.dumps(add_digest(CONTENT), indent=3, sort_keys=True)) == CONTENT


def test_no_flipped_bit_of_json_is_another_answer() -> None:
    data = WRITTEN.encode()
    for place in range(len(data)):
        for bit in (1, 4):
            changed = bytearray(data)
            changed[place] ^= bit
            said = outcome(changed.decode())
            bare = {k: v for k, v in said.items() if k in CONTENT} if said else CONTENT
            assert bare == CONTENT, changed


@pytest.mark.parametrize("value", [CONTENT, {}, [1], "x", None])
def test_files_without_a_digest_are_taken_as_they_are(value: object) -> None:
    assert parse_json(json.dumps(value)) == value
    check_text_digest("epochs: 3\n", "recipe.yaml")


def test_a_changed_text_is_one_line_that_says_what_to_do() -> None:
    check_text_digest(add_text_digest("epochs: 3\n"), "recipe.yaml")
    with pytest.raises(UserError, match=r"'recipe.yaml' is damaged or was.*delete its last line$"):
        check_text_digest(add_text_digest("epochs: 3\n").replace("3", "4", 1), "'recipe.yaml'")
    with pytest.raises(UserError, match=f"changed by hand.*take '{KEY}' out of it$"):
        parse_json(WRITTEN.replace("true", "false"), where="'run.json'")
