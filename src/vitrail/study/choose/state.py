"""What a choice knows so far: written after every step, so that it can stop anywhere and go on.

``choose.json`` holds the question (data, limits, pool), and for each candidate its start, its cost,
its rounds of probing and its trials of fine-tuning, with which pictures were answered rightly.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.errors import UserError
from vitrail.schema import read_json
from vitrail.study.record import write_json

FILE = "choose.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class MeasuredCost:
    """What one candidate costs here.

    Attributes:
        params: numbers in the model, head included.
        megabytes: of its float32 weights on disk (10**6 bytes).
        ms: milliseconds of one batch.
        batch: pictures in it.
        quiet: whether no other program disturbed the timing.
    """

    params: int
    megabytes: float
    ms: float
    batch: int
    quiet: bool


@dataclass(frozen=True, kw_only=True)
class Round:
    """One probe of frozen features.

    Attributes:
        train: pictures the head was fitted on.
        right: ``"1"`` for each asked picture that the head answered rightly, else ``"0"``.
        neighbours: the share that nearest neighbours answered rightly.
        strength: of the head's regularisation.
        seconds: spent on features and head.
    """

    train: int
    right: str
    neighbours: float
    strength: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One fine-tuning under equal time.

    Attributes:
        seconds: it was given.
        epochs: it came to.
        right: as :attr:`Round.right`, of all pictures that candidates are compared on.
        run: its folder inside the choice.
    """

    seconds: float
    epochs: int
    right: str
    run: str


@dataclass(frozen=True, kw_only=True)
class Heat:
    """Candidates that are fine-tuned for ``seconds`` each."""

    models: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ChoiceEntry:
    """One candidate and all that is known of it.

    Attributes:
        model: text, as :func:`vitrail.create` takes it.
        weights: word for where it starts.
        reason: why it is in the pool.
        start: where it really starts, for people: released weights with their licence, or from
            scratch; empty while unknown.
        released: whether it starts from released weights.
        left: why it is no longer in question; empty while it is.
    """

    model: str
    weights: str = "auto"
    reason: str = ""
    start: str = ""
    released: bool = False
    left: str = ""
    cost: MeasuredCost | None = None
    rounds: tuple[Round, ...] = ()
    trials: tuple[Trial, ...] = ()

    @property
    def forward_seconds(self) -> float:
        """For one image, of the model alone; 0 where it was not timed."""
        return self.cost.ms / self.cost.batch / 1e3 if self.cost else 0.0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The chosen one's accuracy on pictures that no choice was made by.

    Attributes:
        right: of them.
        count: of all.
        tuned: whether it was fine-tuned, or is a head upon frozen features.
    """

    right: int
    count: int
    tuned: bool


@dataclass(frozen=True, kw_only=True)
class ChoiceState:
    """``choose.json``.

    Attributes:
        question: data, limits and pool as asked; another question needs another folder.
        facts: data, machine, date, command, for the page.
        entries: the candidates, in the pool's order.
        seconds: spent so far, over all runs of the command.
        phase: ``"cost"``, ``"probe"``, ``"race"`` or ``"done"``: what comes next.
        heat: of the race, the one that runs or is next.
        winner: the chosen candidate's model; empty while nothing is known.
        estimate: of the winner.
    """

    format: int = FORMAT
    question: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    entries: tuple[ChoiceEntry, ...]
    seconds: float = 0.0
    phase: str = "cost"
    heat: Heat | None = None
    winner: str = ""
    estimate: Estimate | None = None

    def entry(self, model: str) -> ChoiceEntry:
        """The candidate with this text."""
        return next(entry for entry in self.entries if entry.model == model)

    def put(self, entry: ChoiceEntry) -> "ChoiceState":
        """With the entry of the same model replaced."""
        return replace(
            self, entries=tuple(entry if e.model == entry.model else e for e in self.entries)
        )

    @property
    def open(self) -> tuple[ChoiceEntry, ...]:
        """The candidates still in question."""
        return tuple(entry for entry in self.entries if not entry.left)

    def save(self, folder: Path) -> None:
        """Write ``choose.json`` at once or not at all."""
        write_json(folder / FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "ChoiceState":
        """Read what :meth:`save` wrote.

        Raises:
            UserError: no such file, of another shape, or of a later Vitrail.
        """
        if not (folder / FILE).is_file():
            raise UserError(f"{str(folder)!r} holds no choice to go on with (no {FILE})")
        found: ChoiceState = read_json(folder / FILE, cls)
        if found.format != FORMAT:
            raise UserError(
                f"{str(folder / FILE)!r} is of format {found.format}, this Vitrail knows {FORMAT}; "
                "choose another folder"
            )
        named = {found.winner, *(found.heat.models if found.heat else ())} - {""}
        strange = named - {entry.model for entry in found.entries}
        if strange:
            raise UserError(f"{str(folder / FILE)!r}: {min(strange)!r} is no candidate")
        return found


def as_text(right: NDArray[np.bool_]) -> str:
    """``(pictures,)`` -> ``"0110..."``."""
    return "".join("1" if answer else "0" for answer in right.tolist())


def as_array(right: str) -> NDArray[np.bool_]:
    """The inverse of :func:`as_text`."""
    return np.frombuffer(right.encode("ascii"), np.uint8) == ord("1")


def share_right(right: str) -> float:
    """The share of ones; NaN of none."""
    return right.count("1") / len(right) if right else float("nan")


def best_known(entries: Sequence[ChoiceEntry]) -> ChoiceEntry | None:
    """The candidate that the longest trial, else the largest probe, speaks for."""
    tried = [entry for entry in entries if entry.trials or entry.rounds]
    return max(tried, key=evidence, default=None)


def evidence(entry: ChoiceEntry) -> tuple[bool, float, float]:
    """What candidates are ordered by: trials before probes, long before short, then accuracy."""
    if entry.trials:
        last = entry.trials[-1]
        return True, last.seconds, share_right(last.right)
    last_round = entry.rounds[-1]
    return False, float(last_round.train), share_right(last_round.right)
