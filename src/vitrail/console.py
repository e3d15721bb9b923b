"""What a terminal shows: every text as it is and harmless, never read as markup.

Tables, progress bars and lines are made here and nowhere else, so that a class called ``[red]`` or
a file whose name holds an escape code is shown and does nothing. What cannot be encoded becomes a
visible escape; a reader that left, a full disk behind stderr and a closed stream stop no work.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from vitrail.errors import printable

T = TypeVar("T")

NARROWEST = 40
"""Columns below which nothing is laid out, whatever the terminal says of itself."""
PIPED = 160
"""Columns where the output is no terminal."""


class _Console(Console):
    """A console that goes silent where its reader has left, instead of ending the program."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


def make_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console that reads no markup, no emoji names, and colours nothing by itself."""
    console = _Console(
        stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False, soft_wrap=False
    )
    if not console.is_terminal:
        console.width = PIPED
    elif console.width < NARROWEST:
        console.width = NARROWEST
    return console


def make_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    left: int = 1,
    title: str = "",
    caption: str = "",
) -> Table:
    """A table; the first ``left`` columns are text, the others figures. None is an empty cell."""
    table = Table(
        title=as_text(title) if title else None,
        caption=as_text(caption) if caption else None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for i, name in enumerate(columns):
        side: Any = "left" if i < left else "right"
        table.add_column(as_text(name), justify=side, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else as_text(cell) for cell in row))
    return table


def as_text(value: object) -> Text:
    """One line as it is."""
    return Text(printable(value))


class FieldColumn(ProgressColumn):
    """A column of a progress bar that shows a field of its task, or the description, as it is."""

    def __init__(self, field: str = "") -> None:
        super().__init__()
        self.field = field

    def render(self, task: Task) -> Text:
        """The words of now."""
        return as_text(task.fields[self.field] if self.field else task.description)


def make_progress(
    *columns: ProgressColumn, console: Console | None = None, **options: Any
) -> Progress:
    """Progress bars on stderr, on a terminal only: description, bar, ``columns``."""
    console = console or make_console(stderr=True)
    shown = console.is_terminal and not console.is_dumb_terminal and not console.quiet
    return Progress(
        FieldColumn(),
        BarColumn(),
        *columns,
        console=console,
        disable=not shown,
        transient=True,
        **options,
    )


def make_bar(*, counted: bool) -> Progress:
    """A bar with the time that has passed, and with how many of how many where they are counted."""
    return make_progress(*((MofNCompleteColumn(),) if counted else ()), TimeElapsedColumn())


def track_items(title: str, things: Sequence[T]) -> Iterator[T]:
    """Yield ``things`` one by one, with a progress bar."""
    with make_bar(counted=True) as progress:
        yield from progress.track(things, description=title)


@contextlib.contextmanager
def status_bar(title: str) -> Iterator[Callable[[str], None]]:
    """A progress bar without an end; the yielded function sets the text beside it."""
    with make_bar(counted=False) as progress:
        task = progress.add_task(title, total=None)
        yield lambda what: progress.update(task, description=f"{title} {what}")


@contextlib.contextmanager
def counting_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar; the yielded function takes (done, total)."""
    with make_bar(counted=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def print_stderr(line: str) -> None:
    """One line beside the result: to stderr, so that stdout stays the result."""
    if is_rank_zero() and sys.stderr is not None:
        print(printable(line), file=sys.stderr, flush=True)


def is_rank_zero() -> bool:
    """Whether this is the only process, or the first of several that train together."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Warnings inside the block as lines, to be said later: beside an error they are noise."""
    lines: list[str] = []

    def keep(message: object, *_: object, **__: object) -> None:
        lines.append(f"vitrail: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        warnings.showwarning = keep
        yield lines


def render(part: Any) -> str:
    """A text or a table as lines for stdout."""
    if isinstance(part, str):
        return "\n".join(map(printable, part.split("\n"))) + "\n"
    console = make_console()
    with console.capture() as held:
        console.print(part)
    return held.get()


def is_unicode(stream: Any) -> bool:
    """Whether a stream can hold every text (but lone surrogates)."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")


# ---- streams ------------------------------------------------------------------------------------


class _Lenient:
    """Stderr for words beside the result: where they cannot be written, work goes on."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, UnicodeError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


@contextlib.contextmanager
def tolerant_streams() -> Iterator[None]:
    """Stdout escapes what it cannot encode; what stderr cannot take is dropped."""
    out, err = sys.stdout, sys.stderr
    errors = getattr(out, "errors", None)
    if hasattr(out, "reconfigure"):
        out.reconfigure(errors="backslashreplace")
    if err is not None:
        sys.stderr = _Lenient(err)
    try:
        yield
    finally:
        sys.stderr = err
        if errors and hasattr(out, "reconfigure"):
            with contextlib.suppress(OSError, ValueError):
                out.reconfigure(errors=errors)


def drop_stdout() -> None:
    """Let go of what stdout holds, so that the interpreter does not fail over it at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
