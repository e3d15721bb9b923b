"""The peers suite: every model that others have too, beside theirs, on the same weights.

peer x pixels x batch x threads = a setting
setting -> both models -> logits agree -> every way of running them, timed by turns -> rows
rows    -> a result file, written anew after each setting -> bars, met or missed
"""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitrail.bench import contract
from vitrail.bench.peers import BARS, PEERS, Peer
from vitrail.bench.twins import Pair, pair, rival
from vitrail.bench.ways import CANDIDATES, OURS, PEER, Candidate, available, prepare
from vitrail.cost import Settings, Timing, count, pinned, ratio, time_side_by_side
from vitrail.cost.arms import compiling
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
        ways: how the models are run; none means every way that the machine can.
        base: the other conditions: device, rounds, windows, classes.
        out: folder for the result file.
    """

    only: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (224, 384, 512)
    batches: tuple[int, ...] = (1, 8)
    threads: tuple[int, ...] = ()
    ways: tuple[str, ...] = ()
    base: Settings = field(default_factory=Settings)
    out: Path = Path("results")

    def __post_init__(self) -> None:
        for way in self.ways:
            if way not in CANDIDATES:
                raise unknown("way of running", way, CANDIDATES)
        for name in self.only:
            if not any(peer.model.startswith(name) for peer in PEERS):
                raise unknown("model of the suite", name, [peer.model for peer in PEERS])

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Who runs, each once."""
        ways = self.ways or available(self.base.device)
        return tuple(dict.fromkeys(c for way in ways for c in CANDIDATES[way]))


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
    tell(f"{len(planned)} settings, about {spoken(sum(expected))} in all")
    record = contract.Record("peers", asdict(options), options.out, BARS, command="vitrail")
    began, refused = time.monotonic(), []
    for number, setting in enumerate(planned, start=1):
        try:
            record.add(measure(setting, options.candidates, tell, on_step))
        except UserError as error:
            refused.append(f"{setting}: NOT TIMED: {error}")
            tell(refused[-1])
        pace = (time.monotonic() - began) / sum(expected[:number])
        left = spoken(pace * sum(expected[number:]))
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
    against = rival(setting.peer.model, setting.peer.against)
    both = pair(setting.peer.model, against, conditions)
    tell(f"{setting}: {against}, {both.agreement or 'another network'}")
    models, failed = {OURS: both.ours, PEER: both.theirs}, dict[str, str]()
    with compiling(replace(conditions, graph="compiled")), pinned(conditions.threads):
        calls = {
            str(c): call
            for c in candidates
            if (call := prepare(c, models[c.arm], conditions, failed)) is not None
        }
        timings = time_side_by_side(
            calls,
            rounds=conditions.rounds,
            window_s=conditions.window_s,
            warmup_s=conditions.warmup_s,
            on_window=on_step,
        )
    for name, why in failed.items():
        tell(f"  {name} failed: {why}")
    rows = [row(setting, c, both, timings, failed) for c in candidates if str(c) in timings]
    del both, models, calls
    torch._dynamo.reset()  # the next setting's models share this one's code
    gc.collect()
    return rows


def row(
    setting: Setting,
    candidate: Candidate,
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
        peer=rival(setting.peer.model, setting.peer.against),
        image=conditions.image,
        batch=conditions.batch,
        graph=candidate.way,
        device=conditions.device,
        precision="bfloat16" if candidate.way == "bf16" else "float32",
        params=counted.params,
        macs=counted.macs,
        images_per_s=own.rate(conditions.batch),
        agreement=asdict(both.agreement) if both.agreement else None,
        failed=dict(failed),
    )


def model_of(candidate: Candidate, both: Pair) -> nn.Module:
    """The module that a candidate runs."""
    return both.ours if candidate.arm == OURS else both.theirs


# ---- how long it will take -----------------------------------------------------------------------

SHARE = 0.35
"""Of a large matrix product's speed, what models reach; a guess that the first settings mend."""
COMPILE_S = 45.0
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
        each = max(c.warmup_s, 2 * call) + c.rounds * (max(c.window_s, call) + call)
        compiling = sum(COMPILE_S for who in options.candidates if who.way != "eager")
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
    with pinned(threads):
        a @ a
        began = time.perf_counter()
        for _ in range(3):
            a @ a
        return 3 * 1024**3 / (time.perf_counter() - began)


def spoken(seconds: float) -> str:
    """A duration for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# ---- for people ----------------------------------------------------------------------------------

COLUMNS = (  # heading, ours in which way, against the peer's in which way
    ("eager", "eager", "eager"),
    ("compiled", "compiled", "compiled"),
    ("optimised / compiled", "optimised", "compiled"),
    ("bf16 / eager", "bf16", "eager"),
)


def summary(record: contract.Record) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and cells: a line for each setting, with every ratio met or missed."""
    ways = {r["graph"] for r in record.rows if r["arm"] == OURS}
    columns = [c for c in COLUMNS if c[1] in ways]
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


def ratio_cell(row: Mapping[str, Any] | None, way: str) -> str:
    """``1.42 (1.40 to 1.45) met``; no word where nothing was promised."""
    found = [o for o in row["against"] if o["arm"] == f"{PEER} {way}"] if row else []
    if row is None or not found:
        return "failed" if row is not None and row["failed"] else ""
    (other,) = found
    promised = [b for b in BARS if b.of(row) is other]
    met = all(other["ratio"] >= b.at_least for b in promised)
    word = (" met" if met else f" MISSED {promised[0].at_least:g}") if promised else ""
    noisy = "" if other["quiet"] else " noisy"
    return f"{other['ratio']:.2f} ({other['low']:.2f} to {other['high']:.2f}){word}{noisy}"
