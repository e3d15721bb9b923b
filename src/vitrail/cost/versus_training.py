"""A training step against the same network's elsewhere: forward, backward, optimiser, memory.

the same weights, the same noise, AdamW -> steps by turns -> ratio; medians of the three parts
fresh processes at one batch and at twice that -> bytes that each further picture takes
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

from torch import nn

from vitrail.cost.candidates import Build, Settings, allow_many_compiles, time_interleaved
from vitrail.cost.peak import memory
from vitrail.cost.same_weights import Agreement, Counterparts, pair
from vitrail.cost.step import TrainingStep
from vitrail.cost.timing import Ratio, Timing, ratio, use_threads
from vitrail.cost.versus import describe_agreement
from vitrail.errors import UserError

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Peak bytes of a training step, and what each further picture adds."""

    peak: int
    picture: int


@dataclass(frozen=True, kw_only=True)
class Side:
    """One implementation's step: whole, in parts, in memory, and the loss of its first step.

    ``notes`` say what could not be done, such as checkpointing or measuring memory.
    """

    candidate: str
    time: Timing
    parts: dict[str, float]
    loss: float
    memory: StepMemory | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """For JSON; parts in milliseconds."""
        return {
            "arm": self.candidate,
            "time": self.time.to_dict(),
            "parts_ms": {part: 1e3 * seconds for part, seconds in self.parts.items()},
            "first_loss": self.loss,
            "memory": asdict(self.memory) if self.memory else None,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True)
class VersusTraining:
    """One model's training step beside another's."""

    model: str
    settings: Settings
    agreement: Agreement | None
    ours: Side
    theirs: Side
    speed: Ratio

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "model": self.model,
            "settings": asdict(self.settings),
            "agreement": asdict(self.agreement) if self.agreement else None,
            "ours": self.ours.to_dict(),
            "theirs": self.theirs.to_dict(),
            "speed": asdict(self.speed),
        }


def training(
    model: str,
    against: str,
    settings: Settings | None = None,
    *,
    known: Counterparts | None = None,
    with_memory: bool = True,
    tell: Tell = print,
    on_step: Tell | None = None,
) -> VersusTraining:
    """Measure a model's training step and another's, by turns.

    Args:
        model: our model's text.
        against: a word of ``known`` for its counterpart, or another model text.
        settings: the conditions; ``graph="compiled"`` compiles forward and backward,
            ``checkpointing`` computes activations again.
        known: counterparts by word, and the builder of all texts.
        with_memory: measure peaks too, in two fresh processes a side.
        tell: takes a line on logits and losses.
        on_step: told after each window.

    Raises:
        UserError: no counterpart, or logits that differ.
    """
    settings, known = settings or Settings(), known or Counterparts()
    theirs = known.find(model, against)
    found = pair(model, theirs, settings, known)
    tell(f"{model} and {theirs}: {describe_agreement(found.agreement)}")
    both = {"ours": (model, found.ours), "theirs": (theirs, found.theirs)}
    steps = {side: first_step(text, module, settings) for side, (text, module) in both.items()}
    timings = time_steps(steps, settings, tell, on_step)
    build = known.build if with_memory else None
    sides = {side: report(steps[side], timings[side], build) for side in both}
    return VersusTraining(
        model=model,
        settings=settings,
        agreement=found.agreement,
        speed=ratio(timings["ours"], timings["theirs"]),
        **sides,
    )


@dataclass(frozen=True)
class FirstStep:
    """A candidate's step, and what could not be done for it."""

    candidate: str
    step: TrainingStep
    notes: tuple[str, ...]


def time_steps(
    started: Mapping[str, FirstStep], settings: Settings, tell: Tell, on_step: Tell | None
) -> dict[str, Timing]:
    """A first step of each, whose losses are printed, then interleaved steps."""
    with allow_many_compiles(settings):
        with use_threads(settings.threads):
            for each in started.values():
                each.step()
        firsts = {side: each.step.first_loss for side, each in started.items()}
        tell(", ".join(f"first loss of {side} {loss:.6f}" for side, loss in firsts.items()))
        return time_interleaved(
            {side: each.step for side, each in started.items()}, settings, on_step
        )


def report(started: FirstStep, timing: Timing, build: Build | str | None) -> Side:
    """What is known of one side; its memory, where there is a ``build`` to measure it with."""
    settings = started.step.settings
    held, more = measure_memory(started.candidate, settings, build) if build else (None, ())
    return Side(
        candidate=started.candidate,
        time=timing,
        parts=started.step.parts(sum(w.calls for w in timing.windows)),
        loss=started.step.first_loss,
        memory=held,
        notes=(*started.notes, *more),
    )


def first_step(candidate: str, model: nn.Module, settings: Settings) -> FirstStep:
    """The step, without checkpointing where the model has none."""
    try:
        return FirstStep(candidate, TrainingStep(model, settings), ())
    except UserError as error:
        return FirstStep(
            candidate, TrainingStep(model, replace(settings, checkpointing=False)), (str(error),)
        )


def measure_memory(
    candidate: str, settings: Settings, build: Build | str
) -> tuple[StepMemory | None, tuple[str, ...]]:
    """Memory of a side; what cannot be measured is None and leaves a note."""
    batch = settings.batch
    try:
        one, two = (
            memory(candidate, settings.image, size, True, build=build, settings=settings)
            for size in (batch, 2 * batch)
        )
    except UserError as error:
        return None, (str(error),)
    return StepMemory(peak=one, picture=(two - one) // batch), ()
