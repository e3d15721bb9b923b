"""``vitrail.choose``: the function that people call, and what it gives."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from vitrail.arguments import check_arguments
from vitrail.console import print_stderr
from vitrail.errors import UserError, shell_word
from vitrail.files import LOCK, refuse_non_utf8_name, refuse_occupied, write_error
from vitrail.study import stats
from vitrail.study.choose.answer import PAGE, command, sentences, table, write_page
from vitrail.study.choose.check import load_choice
from vitrail.study.choose.question import Note, Question
from vitrail.study.choose.run import choose_in
from vitrail.study.choose.state import FILE, ChoiceState
from vitrail.study.choose.tools import ChoiceTools
from vitrail.train.stop import Interrupted


@dataclass(frozen=True, kw_only=True)
class ChoiceResult:
    """What was chosen, and why.

    Attributes:
        folder: with ``choose.json``, ``choose.html`` and the trials.
        state: all that is known of every candidate.
    """

    folder: Path
    state: ChoiceState

    @property
    def winner(self) -> str:
        """The chosen model's text; ``vitrail.fit(data, model=...)`` takes it."""
        return self.state.winner

    @property
    def estimate(self) -> stats.Interval | None:
        """Its accuracy with interval, on pictures that nothing was chosen by."""
        found = self.state.estimate
        return stats.wilson(found.right, found.count) if found else None

    @property
    def command(self) -> str:
        """What trains it."""
        return command(self.state) if self.state.winner else ""

    @property
    def page(self) -> Path:
        """The page for people."""
        return self.folder / PAGE

    def __str__(self) -> str:
        """Table and findings as text."""
        return "\n\n".join([table(self.state), *sentences(self.state), self.command])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        one = self.estimate
        return {
            "folder": str(self.folder),
            "page": str(self.page),
            "winner": self.winner,
            "estimate": asdict(one) if one else None,
            "command": self.command,
            "candidates": [asdict(entry) for entry in self.state.entries],
        }


@check_arguments
def choose(
    data: str | Path,
    *,
    minutes: float = 10.0,
    pool: Sequence[str] = (),
    weights: str = "auto",
    weights_folder: str | Path | None = None,
    max_ms: float | None = None,
    max_mb: float | None = None,
    max_params: float | None = None,
    batch: int = 1,
    val: float = 0.2,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = True,
) -> ChoiceResult:
    """Find the backbone that suits these pictures, within minutes::

        import vitrail

        choice = vitrail.choose("photos", minutes=10, max_ms=30)
        print(choice)                                    # a table, and what was found
        result = vitrail.fit("photos", model=choice.winner, weights="auto")

    Candidates that keep the limits are probed (a linear head upon frozen features) on ever more
    pictures while those that are clearly behind drop out; the best few are fine-tuned under equal
    time. The estimate comes from pictures that nothing was chosen by. The same call goes on where
    it was stopped.

    Args:
        data: a folder of class folders, a table, a zip, torchvision:NAME, fashion or scenes.
        minutes: for everything.
        pool: models, calls or patterns (``"timm:convnext*"``); by default a curated list.
        weights: where candidates start, a word as :func:`vitrail.create` takes it.
        weights_folder: released weights without a network, files named by timm's tag.
        max_ms: the most milliseconds of a batch on this machine.
        max_mb: the most megabytes of float32 weights.
        max_params: the most parameters.
        batch: pictures in the batch whose time counts.
        val: share kept for comparing where the set has no validation part.
        seed: of split, rounds and trials.
        out: folder (by default ``vitrail-choice``; one of the same question is gone on with).
        progress: say what is done, on stderr.

    Raises:
        UserError: data, limits or candidates that cannot be.
        KeyboardInterrupt: Ctrl-C; the best answer so far is in the folder.
    """
    folder = None if weights_folder is None else str(weights_folder)
    question = Question(
        data=str(data), minutes=minutes, pool=tuple(pool), weights=weights, weights_folder=folder,
        max_ms=max_ms, max_mb=max_mb, max_params=max_params, batch=batch, val=val, seed=seed,
    )  # fmt: skip
    at = check_folder(Path(out) if out is not None else Path("vitrail-choice"))
    return answer_question(at, question, print_stderr if progress else ignore)


def answer_question(at: Path, question: Question, note: Note) -> ChoiceResult:
    """Choose in a folder; its page is written however that ends."""
    try:
        choose_in(at, question, ChoiceTools(question.weights_folder), note, facts())
    except KeyboardInterrupt as stop:
        raise Interrupted(stop_line(at)) from stop
    finally:
        if (at / FILE).is_file():
            write_page(load_choice(at), at)
    return ChoiceResult(folder=at, state=load_choice(at))


def stop_line(at: Path) -> str:
    """What is known when a choice is stopped, and how to go on, in one line."""
    state = load_choice(at) if (at / FILE).is_file() else None
    best = (
        f"the best so far is {state.winner}" if state and state.winner else "nothing is known yet"
    )
    return f"stopped; {best} ({at / PAGE}); the same command goes on"


def ignore(line: str) -> None:
    """Say nothing."""


def check_folder(out: Path) -> Path:
    """The folder of a choice, which may not be there yet.

    Raises:
        UserError: it holds something else, or cannot be looked into.
    """
    refuse_non_utf8_name(out)
    try:
        if not out.is_dir():
            refuse_occupied(out)
        elif not (out / FILE).is_file() and not is_bare(out):
            raise UserError(f"{str(out)!r} is there already and is no choice; give another --out")
    except OSError as error:
        raise write_error(out, error) from error
    return out


def is_bare(folder: Path) -> bool:
    """Whether a folder holds nothing, or only what a choice that ended at once leaves there."""
    return all(p.name == LOCK or p.name.endswith(".vitrail-tmp") for p in folder.iterdir())


def facts() -> dict[str, Any]:
    """Date, command and machine, for the page."""
    import sys

    from vitrail.cost import machine

    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": " ".join(["vitrail", *map(shell_word, sys.argv[1:])]),
        "machine": machine(),
    }
