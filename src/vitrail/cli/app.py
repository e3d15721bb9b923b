"""Read the words, run one command, print its answer, give the exit status.

Exit status: 0 done, 1 the command found something broken, 2 wrong input (one line on stderr,
no traceback), 130 stopped by Ctrl-C (the line says how to go on).
"""

import contextlib
import errno
import io
import os
import re
import shutil
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from vitrail import plugins
from vitrail.cli.choose import Choose
from vitrail.cli.command import Answer, Command, as_json, option
from vitrail.cli.cost import Cost
from vitrail.cli.doctor import Doctor
from vitrail.cli.explain import Explain
from vitrail.cli.export import Export
from vitrail.cli.listing import Mixers, Models, Reducers
from vitrail.cli.pictures import Check, Predict
from vitrail.cli.reduce import Create, Reduce
from vitrail.cli.study import Study
from vitrail.cli.train import Train
from vitrail.console import (
    NARROWEST,
    drop_stdout,
    is_rank_zero,
    is_unicode,
    print_stderr,
    render,
    tolerant_streams,
)
from vitrail.errors import UserError, printable, unknown

COMMANDS: dict[str, type[Command]] = {
    "models": Models,
    "mixers": Mixers,
    "reducers": Reducers,
    "check": Check,
    "choose": Choose,
    "train": Train,
    "reduce": Reduce,
    "study": Study,
    "cost": Cost,
    "predict": Predict,
    "explain": Explain,
    "export": Export,
    "doctor": Doctor,
    "create": Create,
}

ABOUT = """Vision backbones that marry convolution and attention, on your own pictures.

Example: vitrail train photos/

vitrail COMMAND --help says more, with an example. Everywhere: --json prints the result as JSON,
--debug shows tracebacks, --plugin FILE.py makes mixers and reducers of your own known.
vitrail --version. Tab completion: vitrail completion bash|zsh|fish."""

CONFIG = (
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.OmitArgPrefixes,
    tyro.conf.DisallowNone,
    tyro.conf.PositionalMetavarFromFieldName,
)
SHELLS = ("bash", "zsh", "fish")
MOVED = {
    ("cost", "--suite"): "the suite is a benchmark now; in a checkout: python -m benchmarks.peers",
}
"""Options that a command had once, and what to type instead."""
IS_OPTION = re.compile("-[-A-Za-z]")
LONGEST = 2000
"""Characters of an error's line; a name can have more."""
NO_MEMORY = re.compile("can't allocate memory|out of memory|Cannot allocate memory", re.I)
FOLDER_GONE = "the folder you are in is gone; change to another (cd)"
MISNAMED = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)
)
"""Refusals for which the name that was typed is to blame."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and give its exit status.

    :func:`vitrail.cli.main` listens for signals around it.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    with tolerant_streams(), one_line_warnings():
        try:
            status = run_command(words)
            if sys.stdout is not None:
                sys.stdout.flush()
            return status
        except BrokenPipeError:
            drop_stdout()  # the reader of our pipe left: nobody wants the rest
            return 0
        except KeyboardInterrupt as stop:
            return fail(str(stop) or "stopped", 130, debug)
        except Exception as error:
            line, status = explain_error(error)
            if not status:
                raise
            return fail(line, status, debug)


def explain_error(error: Exception) -> tuple[str, int]:
    """One line for people and the exit status; no status for a fault of ours, which is raised."""
    if isinstance(error, UserError):
        return str(error), 2
    if isinstance(error, OSError):
        return explain_refusal(error)
    if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
        return f"out of memory; a smaller batch, picture or model needs less ({error})", 1
    if isinstance(error, RuntimeError) and "torchvision::nms" in str(error):
        from vitrail.hub.doctor import torchvision_problem

        return str(torchvision_problem() or error), 2
    return "", 0


def explain_refusal(error: OSError) -> tuple[str, int]:
    """What the system said: 2 where a name that was typed cannot be, 1 for the rest."""
    if error.errno == errno.ENOENT and error.filename is None and not folder_is_there():
        return FOLDER_GONE, 2
    if error.errno == errno.ENOSPC:
        drop_stdout()  # what it still holds cannot be written either
    named = f" {str(error.filename)!r}" if error.filename is not None else ""
    status = 2 if error.errno in MISNAMED else 1
    return f"the system refused{named}: {error.strerror or error}", status


def folder_is_there() -> bool:
    """Whether this process stands in a folder that exists."""
    try:
        return Path.cwd().is_dir()
    except OSError:
        return False


def run_command(words: list[str]) -> int:
    """Read ``words``, run the command, print its answer."""
    if words[:1] in (["--version"], ["-V"]):
        return print_version()
    if words[:1] == ["completion"]:
        return print_completion(words[1:])
    if not words:
        words = ["--help"]
    if any("\0" in word for word in words):
        raise UserError("a word of the command holds a zero byte")
    command = read(words)
    if isinstance(command, int):
        return command
    if not folder_is_there():
        raise UserError(FOLDER_GONE)
    with contextlib.redirect_stdout(sys.stderr) if command.json else contextlib.nullcontext():
        for file in command.plugin:
            use_plugin(file)
        answer = command.run()
    if is_rank_zero():
        show(answer, command.json)
    return answer.status


def use_plugin(file: str) -> None:
    """Run a plugin that was named, and trust this very file on this machine from now on."""
    place = plugins.trust_plugin(plugins.use(file))
    if place is not None:
        print_stderr(
            f"vitrail: {printable(file)} is trusted on this machine from now on: runs that need "
            f"exactly this file open without --plugin (to take that back, delete {place})"
        )


def read(words: list[str]) -> Command | int:
    """The command that ``words`` mean; an exit status where tyro printed help instead.

    Raises:
        UserError: an unknown command or option, a missing or a wrong value.
    """
    if not words[0].startswith("-") and words[0] not in COMMANDS:
        raise unknown("command", words[0], [*COMMANDS, "completion"])
    if words[0] in COMMANDS:
        refuse_unknown_options(words[0], words[1:])
        words = [words[0], *gather_repeated(words[0], words[1:])]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), room_for_help():
            return parse(words)
    except SystemExit as stop:
        if not stop.code:
            return 0
        summary = error_summary(said.getvalue())
        raise UserError(summary or f"wrong input: {' '.join(words)}") from None


@contextlib.contextmanager
def room_for_help() -> Iterator[None]:
    """tyro never ends on a terminal of a few columns, and fails where stdout is closed."""
    before = os.environ.get("COLUMNS")
    out = contextlib.redirect_stdout(io.StringIO()) if sys.stdout is None else None
    os.environ["COLUMNS"] = str(max(NARROWEST, shutil.get_terminal_size().columns))
    try:
        with out or contextlib.nullcontext():
            yield
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def parse(words: list[str]) -> Any:
    """tyro's reading of ``words``; help and completion scripts go to stdout, then SystemExit."""
    listing = words[0] in ("-h", "--help")
    choice: Any = Union[  # noqa: UP007 - built from a table
        tuple(
            Annotated[command, subcommand(name, command, first_line=listing)]
            for name, command in COMMANDS.items()
        )
    ]
    return tyro.cli(choice, prog="vitrail", description=ABOUT, args=words, config=CONFIG)


def subcommand(name: str, command: type[Command], *, first_line: bool) -> Any:
    """How tyro shows a command: its docstring, or that docstring's first line in the list."""
    about = (command.__doc__ or "").strip().splitlines()[0] if first_line else None
    return tyro.conf.subcommand(name, description=about, prefix_name=False)


def refuse_unknown_options(name: str, words: list[str]) -> None:
    """Name the close options where one is misspelt (tyro's own answer is a box of many lines)."""
    for moved in ((name, word.split("=")[0]) for word in words):
        if moved in MOVED:
            raise UserError(MOVED[moved])
    known = {"--help", *(option(f.name) for f in fields(COMMANDS[name]))}
    for word in words[: words.index("--")] if "--" in words else words:
        if word.startswith("--") and option(word.split("=")[0][2:]) not in known:
            raise unknown(f"option for 'vitrail {name}'", word.split("=")[0], known)


def gather_repeated(name: str, words: list[str]) -> list[str]:
    """``--set a=1 --set b=2`` as ``--set a=1 b=2``: of an option for many values, all count.

    (Of one that is given twice, tyro takes the last.)
    """
    many = {option(f.name) for f in fields(COMMANDS[name]) if f.default == ()} - {"--plugin"}
    end = words.index("--") if "--" in words else len(words)
    current: list[str] = []
    blocks, first = [current], dict[str, list[str]]()
    for word in words[:end]:
        head, equals, value = word.partition("=")
        named = option(head[2:]) if head.startswith("--") else ""
        if named in first:
            current = first[named]
        elif IS_OPTION.match(word):
            current = [named if named in many else word]
            blocks.append(current)
        if named in many:
            first.setdefault(named, current)
            current += [value] if equals else []
        elif not IS_OPTION.match(word):
            current.append(word)
    return [word for block in blocks for word in block] + words[end:]


def error_summary(box: str) -> str:
    """The one sentence in a box of tyro's: what stands before its first rule, without help.

    The box is drawn with lines around it, or, where the output is not UTF-8, with a title and a
    rule above it; inside, help texts are indented by eight.
    """
    lines = box.splitlines()
    said: list[str] = []
    for line in lines[1 if box.startswith("╭") else 2 :]:
        inside = line[2:].rstrip(" │")
        if re.fullmatch(r"[─-]{4,}|Got errors:.*", inside):
            break
        if inside and not inside.startswith(" " * 8):
            said.append(inside.strip())
    return user_message(" ".join(said))


def user_message(sentence: str) -> str:
    """tyro's sentence in words for people who do not write Python."""
    wrong = re.match(r"Error parsing ([^:]+): .*?('[^']*')\]?\)?\.?$", sentence)
    if wrong:
        return f"{wrong[1]} takes a number, not {wrong[2]}"
    stray = re.match(r"Unrecognized options: (.*)$", sentence)
    return f"not understood: {stray[1]}" if stray else sentence.rstrip(".")


def show(answer: Answer, as_data: bool) -> None:
    """Print the answer: JSON for programs, tables and lines for people."""
    if sys.stdout is None:
        return
    if as_data:
        sys.stdout.write(as_json(answer.data, ascii_only=not is_unicode(sys.stdout)) + "\n")
        return
    for part in answer.parts:
        sys.stdout.write(render(part))


def fail(line: str, status: int, debug: bool) -> int:
    """Say ``line``, with the traceback if asked for."""
    if debug and sys.stderr is not None:
        sys.stderr.write("\n".join(map(printable, traceback.format_exc().split("\n"))))
    line = " ".join(line.split())
    print_stderr(f"vitrail: {line if len(line) <= LONGEST else line[:LONGEST] + '…'}")
    return status


def one_line_warning(message: object, *_: object, **__: object) -> str:
    """A warning for people; it may quote names from outside."""
    return f"vitrail: {printable(' '.join(str(message).split()))}\n"


@contextlib.contextmanager
def one_line_warnings() -> Iterator[None]:
    """Warnings as one line on stderr, without the source line."""
    before = warnings.formatwarning
    warnings.formatwarning = one_line_warning
    try:
        with warnings.catch_warnings():
            # Pillow's asides on damaged pictures: each such picture gets a line of its own.
            warnings.filterwarnings("ignore", module=r"PIL\b")
            yield
    finally:
        warnings.formatwarning = before


def print_version() -> int:
    """``vitrail 0.1.0``."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        print(f"vitrail {version('vitrail')}")
    except PackageNotFoundError:
        print("vitrail (not installed: run from its source)")
    return 0


def print_completion(words: list[str]) -> int:
    """The completion script of a shell; ``eval`` it or put it where the shell looks."""
    if len(words) != 1 or words[0] not in SHELLS:
        raise UserError(f"say one shell: vitrail completion {'|'.join(SHELLS)}")
    with contextlib.suppress(SystemExit), room_for_help():
        parse(["--tyro-print-completion", words[0]])
    return 0
