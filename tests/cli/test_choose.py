"""``vitrail choose``."""

import pytest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("choose",), "say what to choose for"),
        (("choose", "fashion", "--pool", "vit_tiny"), "nothing to choose"),
        (("choose", "fashion", "--minutes", "0"), "minutes must be above 0"),
        (("choose", "fashion", "--pool", "no_such_*", "b"), "model that fits"),
    ],
)
def test_the_command_refuses_in_one_line(give, words: tuple[str, ...], said: str) -> None:
    answer = give(*words)
    assert answer.status == 2 and said in answer.line
