"""The peers suite: every model that others have too, beside theirs, on the same weights.

``python -m benchmarks.peers --plan`` says what would be run and how long it would take; it is
hours, and ``--only``, ``--image``, ``--batch``, ``--threads`` and ``--modes`` split it.

peer x pixels x batch x threads = a setting
setting -> both models -> logits agree -> every mode of running them, timed by turns -> rows
rows    -> a result file, written anew after each setting -> bars, met or missed
"""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import nn

from benchmarks import command, contract
from benchmarks.matrix_table import markdown
from benchmarks.modes import CANDIDATES, OURS, PEER, Candidate, Prepared, prepare, usual_modes
from benchmarks.peer_models import BARS, COUNTERPARTS, PEERS, Peer
from vitrail.cost import Pair, Settings, Timing, count, pair, ratio, time_side_by_side, use_threads
from vitrail.cost.candidates import allow_many_compiles
from vitrail.errors import UserError, unknown

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run. Every combination of the lists is a setting of its own.

    Attributes:
        only: models, by name or the beginning of one; none means all.
        sizes: edges in pixels.
        batches: pictures a call.
        threads: torch threads; none means as many as torch has.
        modes: how the models are run; none means those of the bars.
        base: the other conditions: device, rounds, windows, classes.
        out: folder for the result file.
    """

    only: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (224, 384, 512)
    batches: tuple[int, ...] = (1, 8)
    threads: tuple[int, ...] = ()
    modes: tuple[str, ...] = ()
    base: Settings = field(default_factory=Settings)
    out: Path = contract.RESULTS

    def __post_init__(self) -> None:
        for mode in self.modes:
            if mode not in CANDIDATES:
                raise unknown("mode", mode, CANDIDATES)
        for name in self.only:
            if not any(peer.model.startswith(name) for peer in PEERS):
                raise unknown("model of the suite", name, [peer.model for peer in PEERS])

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Who runs, each once."""
        modes = self.modes or usual_modes(self.base.device)
        return tuple(dict.fromkeys(c for mode in modes for c in CANDIDATES[mode]))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One interleaved run."""

    peer: Peer
    conditions: Settings

    def __str__(self) -> str:
        c = self.conditions
        return f"{self.peer.model}, {c.image} px, batch {c.batch}, {c.threads} thread(s)"


def settings(options: Options) -> list[Setting]:
    """All combinations, small pictures first."""
    chosen = [p for p in PEERS if not options.only or p.model.startswith(options.only)]
    threads = options.threads or (torch.get_num_threads(),)
    return [
        Setting(
            peer=peer,
            conditions=replace(options.base, image=image, batch=batch, threads=some),
        )
        for image, peer, batch, some in product(options.sizes, chosen, options.batches, threads)
    ]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The rows, on disk already, and what was not timed and why (a line each)."""

    record: contract.Record
    refused: tuple[str, ...]


def run(options: Options, *, tell: Tell, on_step: Tell | None = None) -> Outcome:
    """Run every setting; one that is refused (logits that differ) does not end the run.

    Args:
        options: what to run.
        tell: takes a line on each setting, and how much time is left.
        on_step: told after each window.
    """
    planned = settings(options)
    expected = estimate(planned, options)
    tell(f"{len(planned)} settings, about {format_duration(sum(expected))} in all")
    record = contract.Record("peers", asdict(options), options.out, BARS)
    began, refused = time.monotonic(), []
    for number, setting in enumerate(planned, start=1):
        try:
            record.add(measure(setting, options.candidates, tell, on_step))
        except UserError as error:
            refused.append(f"{setting}: NOT TIMED: {error}")
            tell(refused[-1])
        pace = (time.monotonic() - began) / sum(expected[:number])
        left = format_duration(pace * sum(expected[number:]))
        tell(f"  {number} of {len(planned)} done; about {left} left")
    return Outcome(record=record, refused=tuple(refused))


def measure(
    setting: Setting,
    candidates: tuple[Candidate, ...],
    tell: Tell,
    on_step: Tell | None = None,
) -> list[dict[str, Any]]:
    """Build both, prepare every candidate, time all side by side, make the rows."""
    conditions = setting.conditions
    against = setting.peer.other
    both = pair(setting.peer.model, against, conditions, COUNTERPARTS)
    tell(f"{setting}: {against}, {both.agreement or 'another network'}")
    models, failed = {OURS: both.ours, PEER: both.theirs}, dict[str, str]()
    with (
        allow_many_compiles(replace(conditions, graph="compiled")),
        use_threads(conditions.threads),
    ):
        ready = {
            c: found
            for c in candidates
            if (found := prepare(c, models[c.arm], conditions, failed)) is not None
        }
        timings = time_side_by_side(
            {str(c): found.call for c, found in ready.items()},
            rounds=conditions.rounds,
            window_s=conditions.window_s,
            warmup_s=conditions.warmup_s,
            on_window=on_step,
        )
    for name, why in failed.items():
        tell(f"  {name} failed: {why}")
    rows = [row(setting, c, found, both, timings, failed) for c, found in ready.items()]
    del both, models, ready
    torch._dynamo.reset()  # the next setting's models share this one's code
    gc.collect()
    return rows


def row(
    setting: Setting,
    candidate: Candidate,
    prepared: Prepared,
    both: Pair,
    timings: Mapping[str, Timing],
    failed: Mapping[str, str],
) -> dict[str, Any]:
    """One candidate; ours stands against everything of the peer's that was timed."""
    conditions, own = setting.conditions, timings[str(candidate)]
    yardsticks = [n for n in timings if n.startswith(PEER)] if candidate.arm == OURS else []
    counted = count(model_of(candidate, both), conditions.image, conditions.in_chans)
    return contract.row(
        candidate.arm,
        own,
        {name: ratio(own, timings[name]) for name in yardsticks},
        model=setting.peer.model,
        family=setting.peer.family,
        peer=setting.peer.other,
        image=conditions.image,
        batch=conditions.batch,
        graph=candidate.mode,
        device=conditions.device,
        precision="bfloat16" if candidate.mode == "bf16" else "float32",
        params=counted.params,
        macs=counted.macs,
        images_per_s=own.rate(conditions.batch),
        agreement=asdict(both.agreement) if both.agreement else None,
        failed=dict(failed),
        **prepared.facts,
    )


def model_of(candidate: Candidate, both: Pair) -> nn.Module:
    """The module that a candidate runs."""
    return both.ours if candidate.arm == OURS else both.theirs


# ---- how long it will take -----------------------------------------------------------------------

SHARE = 0.35
"""Of a large matrix product's speed, what models reach; a guess that the first settings mend."""
COMPILE_S = 60.0
"""What compiling one model takes on two cores; a guess, too."""


def estimate(planned: list[Setting], options: Options) -> list[float]:
    """Seconds that each setting will take, from multiply-adds and the speed of one product."""
    rates = {threads: speed(threads) for threads in {s.conditions.threads for s in planned}}
    keys = dict.fromkeys((s.peer, s.conditions.image) for s in planned)
    macs = {(peer, image): cost_of(peer, image) for peer, image in keys}
    found = []
    for setting in planned:
        c = setting.conditions
        call = macs[setting.peer, c.image] * c.batch / (SHARE * rates[c.threads])
        window = call if call >= c.window_s else c.window_s + call
        each = max(c.warmup_s, 3 * call) + c.rounds * window
        compiling = sum(COMPILE_S for who in options.candidates if who.mode != "eager")
        found.append(each * len(options.candidates) + compiling)
    return found


def cost_of(peer: Peer, image: int) -> int:
    """Multiply-adds of one picture, the dearer of both where both are ours; nothing is computed."""
    import vitrail

    ours = [m for m in (peer.model, peer.against) if m not in ("timm", "official")]
    with torch.device("meta"), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return max(count(vitrail.create(m, image=image), image).macs for m in ours)


def speed(threads: int | None) -> float:
    """Multiply-adds a second of a product of 1024 x 1024 matrices, roughly."""
    a = torch.randn(1024, 1024)
    with use_threads(threads):
        a @ a
        began = time.perf_counter()
        for _ in range(3):
            a @ a
        return 3 * 1024**3 / (time.perf_counter() - began)


def format_duration(seconds: float) -> str:
    """A duration for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# ---- for people ----------------------------------------------------------------------------------

COLUMNS = (  # heading, ours in which mode, against the peer's in which mode
    ("eager", "eager", "eager"),
    ("compiled", "compiled", "compiled"),
    ("optimised / compiled", "optimised", "compiled"),
    ("bf16 / eager", "bf16", "eager"),
)


def summary(record: contract.Record) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and cells: a line for each setting, with every ratio met or missed."""
    modes = {r["graph"] for r in record.rows if r["arm"] == OURS}
    columns = [c for c in COLUMNS if c[1] in modes]
    settings = dict.fromkeys(setting_of(r) for r in record.rows)
    cells = []
    for setting in settings:
        rows = {(r["arm"], r["graph"]): r for r in record.rows if setting_of(r) == setting}
        speeds = [rows.get((arm, "eager")) for arm in (OURS, PEER)]
        cells.append(
            (
                *map(str, setting),
                *(f"{r['images_per_s']:.1f}" if r else "" for r in speeds),
                *(ratio_cell(rows.get((OURS, ours)), theirs) for _, ours, theirs in columns),
            )
        )
    headings = ("model", "px", "batch", "threads", "images/s", "peer's")
    return (*headings, *(heading for heading, *_ in columns)), cells


def setting_of(row: Mapping[str, Any]) -> tuple[str, int, int, int]:
    """What a line of the summary is about."""
    return row["model"], row["image"], row["batch"], row["threads"]


def ratio_cell(row: Mapping[str, Any] | None, mode: str) -> str:
    """``1.42 (1.40 to 1.45) met``; no word where nothing was promised."""
    found = [o for o in row["against"] if o["arm"] == f"{PEER} {mode}"] if row else []
    if row is None or not found:
        return "failed" if row is not None and row["failed"] else ""
    (other,) = found
    promised = [b for b in BARS if b.of(row) is other]
    met = all(other["ratio"] >= b.at_least for b in promised)
    word = (" met" if met else f" MISSED {promised[0].at_least:g}") if promised else ""
    noisy = "" if other["quiet"] else " noisy"
    return f"{other['ratio']:.2f} ({other['low']:.2f} to {other['high']:.2f}){word}{noisy}"


# ---- the command ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Words:
    """What is typed.

    Attributes:
        only: models whose names begin so; none means all.
        image: edges in pixels.
        batch: pictures a call.
        threads: torch threads; none means as many as torch has.
        modes: how the models are run; none means those that bars speak of.
        device: cpu, cuda, ... (auto: the GPU where there is one).
        classes: classes of the head.
        rounds: timed windows of each.
        window: least seconds of a window.
        plan: only say what would be run and how long it would take.
        out: folder for the result file.
    """

    only: tuple[str, ...] = ()
    image: tuple[int, ...] = (224, 384, 512)
    batch: tuple[int, ...] = (1, 8)
    threads: tuple[int, ...] = ()
    modes: Annotated[
        tuple[Literal["eager", "compiled", "optimised", "bf16"], ...],
        tyro.conf.arg(aliases=["--ways"]),
    ] = ()
    device: str = "auto"
    classes: int = 1000
    rounds: int = 6
    window: float = 0.3
    plan: bool = False
    out: Path = contract.RESULTS

    @property
    def options(self) -> Options:
        """As the suite takes them."""
        gpu = "cuda" if torch.cuda.is_available() else "cpu"
        base = Settings(
            classes=self.classes,
            device=gpu if self.device == "auto" else self.device,
            rounds=self.rounds,
            window_s=self.window,
            warmup_s=7 * self.window,
        )
        return Options(
            only=self.only,
            sizes=self.image,
            batches=self.batch,
            threads=self.threads,
            modes=self.modes,
            base=base,
            out=self.out,
        )


def main(words: Words) -> int:
    """Plan or run, and print; status 1 where counterparts gave different logits."""
    options = words.options
    if words.plan:
        print_plan(options)
        return 0
    outcome = run(options, tell=lambda line: print(line, flush=True))
    print(markdown(*summary(outcome.record)), *outcome.refused, sep="\n")
    outcome.record.close()
    return 1 if outcome.refused else 0


def print_plan(options: Options) -> None:
    """What would be run, and how long it would take."""
    planned = settings(options)
    expected = estimate(planned, options)
    for setting, seconds in zip(planned, expected, strict=True):
        print(f"{setting}: about {format_duration(seconds)}")
    print(f"{len(planned)} settings, about {format_duration(sum(expected))} in all")


if __name__ == "__main__":
    command.run(main, Words, __doc__)
