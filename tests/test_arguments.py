"""The functions that people call say in one line which argument is of the wrong kind."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

import vitrail
from vitrail.arguments import check_arguments
from vitrail.errors import UserError

IMAGE = torch.rand(1, 3, 16, 16)


def letters() -> Iterator[str]:
    yield from "ab"


@check_arguments
def ask(
    name: str | Path = "",
    many: Sequence[str] = (),
    size: int | tuple[int, int] | None = None,
    share: float = 0.0,
    kind: Literal["hard", "soft"] = "hard",
    call: Callable[[int], int] | None = None,
    facts: Mapping[str, Any] | None = None,
    quiet: bool = False,
    **rest: object,
) -> str:
    return "heard"


@pytest.mark.parametrize(
    "given",
    [
        {"name": Path("a"), "many": ["a", "b"], "size": (3, 4), "share": 1, "rest": object()},
        {"many": letters(), "size": np.int64(3), "share": np.float32(0.5), "call": abs},
        {"many": {"a": 1}.keys(), "size": torch.tensor(3), "facts": {}, "quiet": np.bool_(True)},
    ],
)
def test_values_of_the_kinds_that_are_annotated_pass(given: dict[str, Any]) -> None:
    assert ask(**given) == "heard"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": 3}, "ask: name must be a text or a path, not int 3"),
        ({"name": b"\x1b"}, r"not bytes b'\\x1b'"),
        ({"many": "ab"}, r"many must be a list \(each a text\), not str 'ab'"),
        ({"many": [1]}, "many must be a list"),
        ({"size": "3"}, "size must be a whole number, a list .* or None, not str '3'"),
        ({"size": True}, "not bool True"),
        ({"size": (1, 2, 3)}, "not tuple"),
        ({"size": 2.5}, "not float 2.5"),
        ({"share": None}, "share must be a number, not None"),
        ({"kind": 3}, "kind must be 'hard' or 'soft', not int 3"),
        ({"call": 3}, "call must be something to call or None"),
        ({"facts": ["a=1"]}, "facts must be keys with values or None, not list"),
        ({"quiet": "no"}, "quiet must be True or False"),
    ],
)
def test_others_are_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        ask(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda wrong: vitrail.create(wrong),
        lambda wrong: vitrail.create("vit_tiny", mixer=wrong),
        lambda wrong: vitrail.load(wrong),
        lambda wrong: vitrail.measure(wrong),
        lambda wrong: vitrail.fit(wrong),
        lambda wrong: vitrail.fit("fashion", changes=wrong),
        lambda wrong: vitrail.choose("fashion", pool=wrong),
        lambda wrong: vitrail.explain(wrong, IMAGE),
        lambda wrong: vitrail.explain(torch.nn.Identity(), wrong),
        lambda wrong: vitrail.explain(torch.nn.Identity(), IMAGE, wrong),
    ],
)
@pytest.mark.parametrize("wrong", [3, b"x", np.zeros(3)], ids=lambda wrong: type(wrong).__name__)
def test_every_function_that_people_call_is_checked(call: Callable[[Any], Any], wrong: Any) -> None:
    with pytest.raises(UserError, match="must be .*, not "):
        call(wrong)
