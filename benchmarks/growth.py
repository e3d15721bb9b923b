"""How latency and memory grow from 224 to 2048 px, plain and reduced, and timm's plain.

``python -m benchmarks.growth --help``; the rules are in ``README.md`` beside this file.

all models at all sizes are timed in one interleaved run (``vitrail.cost.growth``), memory is the
peak of a fresh process each; then a power law is fitted to each, and drawn
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import command, contract
from vitrail.console import status_bar
from vitrail.cost import Growth, Settings, draw, growth, ratio
from vitrail.cost.resolution import GrowthRow

FAMILIES = {
    "coat_lite_small": ("timm:coat_lite_small", "coat_lite_small", "clustering_coat_lite_small"),
    "vit_small": ("timm:vit_small_patch16_224", "vit_small", "vit_small(reducer='cluster')"),
    "cmt_s": ("cmt_s", "cmt_s(reducer=('pool', 'pool', 'pool', 'all'))"),
    "filtervit_v2_s": ("filtervit_v2_s(reducer='all')", "filtervit_v2_s"),
}
"""Each family's yardstick first: timm's plain model where there is one, else the plain one."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure.

    Attributes:
        families: which of the families; each is an interleaved run of its own.
        sizes: edges in pixels.
        batch: pictures a call.
        threads: torch threads.
        rounds: undisturbed windows wanted of each candidate.
        window_s: least seconds of a window.
        warmup_s: least seconds of warm-up; a call that takes longer warms up alone.
        memory: measure peak memory too.
        most_gmac: a size at which a model takes more is left out for that model.
        picture: folder for one picture a family; existing ones are replaced.
        out: folder for the result file.
    """

    families: tuple[str, ...] = tuple(FAMILIES)
    sizes: tuple[int, ...] = (224, 384, 512, 768, 1024, 1536, 2048)
    batch: int = 1
    threads: int = 1
    rounds: int = 3
    window_s: float = 0.2
    warmup_s: float = 0.5
    memory: bool = True
    most_gmac: float = 4000
    picture: Path | None = None
    out: Path = contract.RESULTS


def main(options: Options) -> Path:
    """Measure family by family, draw each, write the file and give its path."""
    record = contract.Record("growth", asdict(options) | {"exponents": []}, options.out)
    for family in options.families:
        print(f"\n{family}", flush=True)
        with status_bar(f"measuring {family}") as step:
            grown = growth(
                FAMILIES[family],
                options.sizes,
                settings=settings(options),
                with_memory=options.memory,
                most_macs=1e9 * options.most_gmac,
                on_step=step,
            )
        fits = [{"family": family, **asdict(fit)} for fit in grown.exponents]
        record.settings["exponents"] += fits
        record.add(rows(family, grown))
        for text in (*map(line, record.rows[-len(grown.rows) :]), *map(format_fit, fits)):
            print(text, flush=True)
        if options.picture is not None:
            path = options.picture / f"growth-{family}.svg"
            print(f"drawn: {draw(grown, path, overwrite=True)}")
    record.close()
    return record.path


def settings(options: Options) -> Settings:
    """The conditions of all runs."""
    return Settings(
        batch=options.batch,
        threads=options.threads,
        rounds=options.rounds,
        window_s=options.window_s,
        warmup_s=options.warmup_s,
    )


def rows(family: str, grown: Growth) -> list[dict[str, Any]]:
    """Every model at every size, against the family's yardstick at that size."""
    first = {row.image: row for row in grown.rows if row.model == FAMILIES[family][0]}
    return [row_of(family, row, first.get(row.image, row)) for row in grown.rows]


def row_of(family: str, row: GrowthRow, first: GrowthRow) -> dict[str, Any]:
    """One row of the result file; where the yardstick was left out there is no ratio."""
    ratios = {} if row is first else {first.model: ratio(row.timing, first.timing)}
    return contract.row(
        row.model,
        row.timing,
        ratios,
        family=family,
        image=row.image,
        macs=row.macs,
        memory_bytes=row.memory,
    )


def line(row: Mapping[str, Any]) -> str:
    """A row for people."""
    against: Sequence[Mapping[str, Any]] = row["against"]
    ratios = "".join(f"  {o['ratio']:.2f} x {o['arm']}" for o in against)
    held = "" if row["memory_bytes"] is None else f"  {row['memory_bytes'] / 2**20:.0f} MB"
    return (
        f"  {row['image']:5} px  {row['arm']}: {row['macs'] / 1e9:.2f} GMAC  "
        f"{row['time']['median_ms']:.1f} ms{held}{ratios}"
    )


def format_fit(fit: Mapping[str, Any]) -> str:
    """A fit for people."""
    return (
        f"  {fit['model']}: {fit['quantity']} ~ pixels^{fit['exponent']:.2f} "
        f"(R2 {fit['r2']:.3f}; {fit['last']:.2f} between the two largest)"
    )


if __name__ == "__main__":
    command.run(main, Options, __doc__)
