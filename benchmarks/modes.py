"""The modes in which a model is run: as it is, compiled, optimised, optimised in bfloat16.

module --mode--> a call without arguments, run once; or one line that says why not
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from vitrail.cost.candidates import Settings, forward
from vitrail.cost.counting import example
from vitrail.cost.host import has_bfloat16
from vitrail.errors import UserError


@dataclass(frozen=True)
class Prepared:
    """A call without arguments, and what its row should say of how it came about."""

    call: Callable[[], object]
    facts: Mapping[str, Any] = field(default_factory=dict)


def eager(model: nn.Module, settings: Settings) -> Prepared:
    """As a user calls it."""
    return Prepared(forward(model, settings, batch=settings.batch))


def compile_model(model: nn.Module, settings: Settings) -> Prepared:
    """torch.compile with static shapes."""
    return Prepared(forward(model, replace(settings, graph="compiled"), batch=settings.batch))


def optimise_model(
    model: nn.Module,
    settings: Settings,
    precision: Literal["float32", "bf16"],
    compile: bool | Literal["auto"] = "auto",
) -> Prepared:
    """``vitrail.export.optimize``, which by itself compiles where that is faster here.

    Raises:
        UserError: it cannot, or its outputs are too far from the model's.
    """
    from vitrail.export import optimize

    pictures = example(model, settings.image, batch=settings.batch, in_chans=settings.in_chans)
    fast = optimize(model, pictures, precision=precision, compile=compile)

    def call() -> object:
        with torch.inference_mode():
            return fast(pictures)

    worst = fast.report.worst
    facts = {"compiled": fast.report.compiled, "largest_difference": worst.largest}
    return Prepared(call, facts | {"relative_difference": worst.relative})


MODES: dict[str, Callable[[nn.Module, Settings], Prepared]] = {
    "eager": eager,
    "compiled": compile_model,
    "optimised": partial(optimise_model, precision="float32"),
    "bf16": partial(optimise_model, precision="bf16"),
}


@dataclass(frozen=True)
class Candidate:
    """Whose model, run in which mode."""

    arm: str
    mode: str

    def __str__(self) -> str:
        return f"{self.arm} {self.mode}"


OURS, PEER = "vitrail", "peer"
CANDIDATES = {  # what is asked for -> who runs for it
    "eager": (Candidate(OURS, "eager"), Candidate(PEER, "eager")),
    "optimised": (Candidate(PEER, "compiled"), Candidate(OURS, "optimised")),
    "bf16": (Candidate(PEER, "eager"), Candidate(OURS, "bf16")),
    "compiled": (Candidate(OURS, "compiled"), Candidate(PEER, "compiled")),
}


def usual_modes(device: str) -> tuple[str, ...]:
    """What is run where nothing is asked for: what the bars speak of, as far as it can be."""
    return ("eager", "optimised", *(["bf16"] if has_bfloat16(device) else []))


def prepare(
    candidate: Candidate, model: nn.Module, settings: Settings, failed: dict[str, str]
) -> Prepared | None:
    """The candidate's call after its first run, which compiles; a failure is noted and gives None.

    One model that does not compile, or takes more memory than there is, shall not end a run of
    hours.
    """
    try:
        found = MODES[candidate.mode](model, settings)
        found.call()
    except (RuntimeError, UserError) as error:
        failed[str(candidate)] = " ".join(str(error).split())[:300]
        return None
    return found
