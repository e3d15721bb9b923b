"""The ways in which a model is run: as it is, compiled, optimised.

module --way--> a call without arguments, warmed once; or one line that says why not
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from vitrail.cost.arms import Settings, forward
from vitrail.cost.host import has_bfloat16
from vitrail.errors import UserError

Call = Callable[[], object]


def eager(model: nn.Module, settings: Settings) -> Call:
    """As a user calls it."""
    return forward(model, settings, batch=settings.batch)


def compiled(model: nn.Module, settings: Settings) -> Call:
    """torch.compile with static shapes."""
    return forward(model, replace(settings, graph="compiled"), batch=settings.batch)


WAYS: dict[str, Callable[[nn.Module, Settings], Call]] = {"eager": eager, "compiled": compiled}


@dataclass(frozen=True)
class Candidate:
    """Whose model, run in which way."""

    arm: str
    way: str

    def __str__(self) -> str:
        return f"{self.arm} {self.way}"


OURS, PEER = "vitrail", "peer"
CANDIDATES = {  # what is asked for -> who runs for it
    "eager": (Candidate(OURS, "eager"), Candidate(PEER, "eager")),
    "compiled": (Candidate(OURS, "compiled"), Candidate(PEER, "compiled")),
}


def available(device: str) -> tuple[str, ...]:
    """The ways that this machine can run."""
    return tuple(way for way in CANDIDATES if way != "bf16" or has_bfloat16(device))


def prepare(
    candidate: Candidate, model: nn.Module, settings: Settings, failed: dict[str, str]
) -> Call | None:
    """The candidate's call after its first run, which compiles; a failure is noted and gives None.

    One model that does not compile, or takes more memory than there is, shall not end a run of
    hours.
    """
    try:
        call = WAYS[candidate.way](model, settings)
        call()
    except (RuntimeError, UserError) as error:
        failed[str(candidate)] = " ".join(str(error).split())[:300]
        return None
    return call
