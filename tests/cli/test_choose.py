"""``vitrail choose``."""

from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("choose",), "say what to choose for"),
        (("choose", "fashion", "--pool", "vit_tiny"), "nothing to choose"),
        (("choose", "fashion", "--minutes", "0"), "minutes must be above 0"),
        (("choose", "fashion", "--pool", "no_such_*", "vit_tiny"), "model that fits"),
        (("choose", "fashion", "--pool", "vit_tinny", "vit_tiny"), "did you mean vit_tiny"),
        (("choose", "fashion", "--pool", "timm:resnet19", "vit_tiny"), "no timm model 'resnet19'"),
        (("choose", "fashion", "--pool", "vit_tiny(classes=3)", "vit_tiny"), "says classes=3"),
        (("choose", "fashion", "--pool", "runs/a", "vit_tiny"), "is a path"),
        (("choose", "fashion", "--val", "0.001"), "40 are the least"),
        (("choose", "nowhere"), "there is no 'nowhere'"),
    ],
)
def test_the_command_refuses_in_one_line_and_leaves_nothing(
    give, words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    answer = give(*words)
    assert answer.status == 2 and said in answer.line
    assert not list(tmp_path.iterdir())
