"""Names from outside are shown as they are, harmless, by everything that shows something."""

import io
import sys

import pytest
from rich.console import Console

from vitrail.console import (
    FieldColumn,
    as_text,
    counting_bar,
    drop_stdout,
    is_unicode,
    make_console,
    make_progress,
    make_table,
    render,
    status_bar,
    tolerant_streams,
    track_items,
)

NAMES = {
    "[red]x[/red]": "[red]x[/red]",
    "[/b]": "[/b]",
    "[link=https://a.b]c[/link]": "[link=https://a.b]c[/link]",
    ":smile:": ":smile:",
    "\x1b[31mred\x1b]8;;http://x\x07": "\\x1b[31mred\\x1b]8;;http://x\\x07",
    "two\nlines\r\t": "two\\x0alines\\x0d\\x09",
    "\u202egnp.exe": "\\u202egnp.exe",
    "byte\udcff": "byte\\xff",
    "tag\U000e0041\u3164": "tag\\U000e0041\\u3164",
    "Zoë 猫 👩\u200d🔬": "Zoë 猫 👩\u200d🔬",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_through_every_renderer(name: str) -> None:
    shown = NAMES[name]
    table = make_table((name, "n"), [(name, None)], title=name, caption=name)
    assert render(table).count(shown) == 4
    assert render(name).replace("\n", "\\x0a") == shown + "\\x0a"
    held = io.StringIO()
    terminal = Console(file=held, force_terminal=True, width=200, _environ={"TERM": "xterm"})
    with make_progress(FieldColumn("what"), console=terminal) as bars:
        bars.add_task(name, what=name)
    console = make_console()
    console.file = held
    console.print(as_text(name))
    assert held.getvalue().count(shown) >= 3


def test_a_narrow_terminal_is_laid_out_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert make_console().width == 40
    assert "name" in render(make_table(("name",), [("a" * 60,)]))


class Broken(io.TextIOBase):
    """A stream whose reader has left, or whose disk is full."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_stderr_that_takes_nothing_stops_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Broken())
    with tolerant_streams():
        print("lost", file=sys.stderr, flush=True)
        make_console(stderr=True).print("lost")
    assert isinstance(sys.stderr, Broken)


def test_stdout_escapes_what_it_cannot_encode(monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_out = io.BytesIO()
    out = io.TextIOWrapper(bytes_out, encoding="cp1252", errors="strict")
    monkeypatch.setattr(sys, "stdout", out)
    with tolerant_streams():
        sys.stdout.write(render("é 猫\udcff") + render(make_table(("a",), [("猫",)])))
        sys.stdout.flush()
    assert out.errors == "strict" and not is_unicode(out)
    assert bytes_out.getvalue().decode("cp1252").startswith("é \\u732b\\xff\na")
    monkeypatch.setattr(sys, "stdout", Broken())
    drop_stdout()  # nothing to let go of, and no error


def test_bars_go_to_a_terminal_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert list(track_items("counting", ["a", "b"])) == ["a", "b"]
    with counting_bar("looking") as seen:
        seen(1, 2)
    with status_bar("measuring") as tell:
        tell("a")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")
