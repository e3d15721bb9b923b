"""Bars go to a terminal only, and hand on what they are given."""

import pytest

from vitrail.cli.progress import bar, gauge, ticker


def test_nothing_is_shown_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(bar("counting", ["a", "b"])) == ["a", "b"]
    with gauge("looking") as seen:
        seen(1, 2)
    with ticker("measuring") as tell:
        tell("a")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")
