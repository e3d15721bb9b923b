"""Unknown names answer with the close ones."""

import os
import shutil
import subprocess

import pytest

from vitrail.errors import (
    UserError,
    cell_text,
    figure_text,
    printable,
    shell_path,
    shell_word,
    unknown,
)


def test_close_names_first() -> None:
    error = unknown("model", "vit_tinny", ["vit_tiny", "vit_small", "coat_mini"])
    assert isinstance(error, UserError)
    assert str(error).startswith("no model 'vit_tinny'; close: vit_tiny")


def test_without_close_names_a_few_are_named() -> None:
    line = str(unknown("thing", "zzz", [f"name{i:02}" for i in range(20)]))
    assert line.endswith("name14, name15, … (20 in all)")
    assert str(unknown("thing", "zzz", [])) == "no thing 'zzz'"


@pytest.mark.parametrize("name", ["$x^{$", "$\\frac$ [b]", "a$b\x1b\udcff", "_$1$"])
def test_a_name_in_figures_is_no_formula(name: str) -> None:
    import io

    from matplotlib.figure import Figure

    figure = Figure()
    shown = figure.text(0.1, 0.5, figure_text(name))
    figure.savefig(io.BytesIO(), format="svg")
    assert shown._preprocess_math(shown.get_text()) == (printable(name), False)


def test_a_cell_is_no_formula_and_numbers_stay() -> None:
    texts = ["=cmd|' /C calc'!A0", "+1", "-x", "@a", "\t=a", "cat", -1.5, None]
    assert [cell_text(text) for text in texts] == [
        *("'=cmd|' /C calc'!A0", "'+1", "'-x", "'@a", "\\x09=a", "cat"),
        *(-1.5, None),
    ]


@pytest.mark.skipif(shutil.which("bash") is None, reason="it takes a shell")
def test_a_shell_takes_back_what_is_said_for_it() -> None:
    names = ["photos", "my photos", "it's \"q\" & $HOME `id`", "<script>", "a\nb", "",
             "\u202etr\u200f", "\x1b[31mred", "a\\x0ab", "a\\x0ab\n'",
             os.fsdecode(b"\xff\xfe")]  # fmt: skip
    words = [shell_word(name) for name in names]
    assert words[:2] == ["photos", "'my photos'"] and shell_path("-x") == "./-x"
    assert all(printable(word) == word for word in words)
    said = subprocess.run(
        ["bash", "-c", "printf '%s\\0' " + " ".join(words)], capture_output=True, check=True
    )
    assert [os.fsdecode(word) for word in said.stdout.split(b"\0")[:-1]] == names
