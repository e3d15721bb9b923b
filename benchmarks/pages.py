"""The tables and pictures of ``docs/results``, made from the result files.

``python -m benchmarks.pages`` writes what stands between ``<!-- benchmarks.pages: NAME -->`` and
``<!-- end -->`` anew, and draws ``docs/img/speed.svg`` and ``keep.svg``; ``--check`` only says
which tables are not what the files say, with exit status 1.

result files -> rows of one benchmark and kind of machine -> a table by name -> the page
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import command, contract, keep_table
from benchmarks.combine import by_run
from benchmarks.matrix_table import markdown
from benchmarks.peer_models import BARS, PEERS
from vitrail.cost.resolution import power_law

Row = Mapping[str, Any]
Result = Mapping[str, Any]
DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"(<!-- benchmarks\.pages: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
KINDS = ("AVX2", "AVX512")
MB = 2**20


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to do.

    Attributes:
        check: write nothing, name the tables that are stale.
    """

    check: bool = False


def main(options: Options) -> int:
    """Write or check every page; the status is 1 where a check finds one stale."""
    stale = [name for page in pages() for name in write(page, check=options.check)]
    if options.check:
        print(*(f"stale: {name}" for name in stale), sep="\n")
        return int(bool(stale))
    print(f"{len(stale)} tables written")
    draw_dots(DOCS / "img" / "speed.svg", "times the peer's throughput", speed_points())
    draw_dots(DOCS / "img" / "keep.svg", "accuracy to plain tuned alike, points", keep_points())
    return 0


def pages() -> list[Path]:
    """The pages that hold tables of these."""
    return [page for page in sorted(DOCS.rglob("*.md")) if BLOCK.search(page.read_text("utf-8"))]


def write(page: Path, *, check: bool = False) -> list[str]:
    """Names of a page's tables that had to be written anew."""
    text, stale = page.read_text("utf-8"), []

    def block(found: re.Match[str]) -> str:
        made = f"{found[1]}{TABLES[found[2]]().strip()}\n{found[3]}"
        if made != found[0]:
            stale.append(found[2])
        return made

    new = BLOCK.sub(block, text)
    if not check:
        page.write_text(new, "utf-8")
    return stale


# ---- files and rows ------------------------------------------------------------------------------


def result_of(benchmark: str, kind: str) -> Result:
    """The result file of a benchmark on one kind of machine."""
    for path in sorted(contract.RESULTS.glob(f"{benchmark}-*.json")):
        result: Result = json.loads(path.read_text("utf-8"))
        if result["benchmark"] == benchmark and result["machine"].get("instructions") == kind:
            return result
    raise FileNotFoundError(f"{contract.RESULTS} has no file of {benchmark} with {kind}")


def where(result: Result) -> str:
    """A line on machine and dates."""
    return where_runs(list(by_run(result)))


def where_runs(runs: Sequence[Result]) -> str:
    """A line on machine and dates of runs on one kind of machine."""
    dates = sorted({run["date"][:10] for run in runs})
    torch = sorted({run["machine"]["versions"]["torch"] for run in runs})
    span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    machine = runs[0]["machine"]
    kind = {"AVX2": "AVX2", "AVX512": "AVX-512"}[machine["instructions"]]
    cpu, cores = machine["cpu"], machine["cores"]
    return f"{cpu} with {kind}, {cores} cores, torch {' and '.join(torch)}, {span}."


def ratio_to(row: Row | None, other: str) -> float | None:
    """How many times faster (or smaller) a row is than ``other``, if it was compared."""
    return next((o["ratio"] for o in row["against"] if o["arm"] == other), None) if row else None


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Rows as the suite lists its models."""
    names = [peer.model for peer in PEERS]
    return sorted(rows, key=lambda row: names.index(row["model"]))


def bold(value: float | None, missed: bool, form: str = ".2f") -> str:
    """A figure, bold where it missed a bar."""
    if value is None:
        return ""
    return f"**{value:{form}}**" if missed else f"{value:{form}}"


# ---- tables --------------------------------------------------------------------------------------

MODES = (("eager", "eager"), ("optimised", "compiled"), ("bf16", "eager"))
"""Ours in which mode, against the peer's in which."""


def speed(kind: str) -> str:
    """Every model down, modes and settings across: times the peer's throughput."""
    result = result_of("peers", kind)
    ours = [row for row in result["rows"] if row["arm"] == "vitrail"]
    cells = {(r["model"], r["graph"], r["image"], r["batch"]): r for r in ours}
    columns = [
        (mode, other, image, batch)
        for mode, other in MODES
        for image, batch in sorted({(r["image"], r["batch"]) for r in ours})
        if sum((p.model, mode, image, batch) in cells for p in PEERS) > len(PEERS) // 2
    ]
    body = [
        [peer.model, *(speed_cell(cells.get((peer.model, m, i, b)), o) for m, o, i, b in columns)]
        for peer in PEERS
    ]
    heads = [f"{mode}, {image} px, {batch}" for mode, _, image, batch in columns]
    return f"{where(result)}\n\n{markdown(['model', *heads], body)}"


def speed_cell(row: Row | None, mode: str) -> str:
    """Times faster than the peer in ``mode``, bold below a bar that speaks of it."""
    if row is None or (value := ratio_to(row, f"peer {mode}")) is None:
        return ""
    entry = next(o for o in row["against"] if o["arm"] == f"peer {mode}")
    bars = [bar.at_least for bar in BARS if bar.of(row) is entry]
    return bold(value, any(value < bar for bar in bars))


def fewer_tokens(kind: str) -> str:
    """Model, size and mode down, reducers across: times the plain model's throughput."""
    result = result_of("fewer_tokens", kind)
    rows = [row for row in result["rows"] if row["image"] > 128 and row["arm"] != "all"]
    reducers = sorted(dict.fromkeys(row["arm"] for row in rows))
    cells = {(r["model"], r["image"], r["graph"], r["arm"]): ratio_to(r, "all") for r in rows}
    body = [
        [f"{model}, {image} px, {graph}", *(bold(cells.get((model, image, graph, r)), False)
                                            for r in reducers)]
        for graph in ("eager", "compiled")
        for model, image in dict.fromkeys((r["model"], r["image"]) for r in rows)
    ]  # fmt: skip
    return f"{where(result)}\n\n{markdown(['model', *(f'`{r}`' for r in reducers)], body)}"


def clustering_coat() -> str:
    """Model and size down; TB, pooled, QF, QS across, one thread and two."""
    result = result_of("coat_lite", "AVX512")
    rows = [
        r for r in result["rows"]
        if r["part"] == "clustering" and r["graph"] == "eager" and r["batch"] == 1
    ]  # fmt: skip
    cells = {(r["model"], r["image"], r["arm"], r["threads"]): ratio_to(r, "plain") for r in rows}
    body = []
    for model, image in dict.fromkeys((r["model"], r["image"]) for r in rows):
        pairs = ([cells[model, image, arm, t] for t in (1, 2)] for arm in ("TB", "pooled", "QF"))
        body.append([f"{model}, {image} px", *(f"{a:.2f}, {b:.2f}" for a, b in pairs)])
    return f"{where(result)}\n\n{markdown(['model', 'TB', 'pooled', 'QF'], body)}"


def train_step(kind: str) -> str:
    """Every hybrid: milliseconds a step, and times the peer's."""
    result = result_of("train_step", kind)
    body = []
    for row in in_order([r for r in result["rows"] if r["arm"] == "vitrail"]):
        entry = row["against"][0]
        low, high = entry["low"], entry["high"]
        ratio = f"{bold(entry['ratio'], entry['ratio'] < 1.2)} ({low:.2f} to {high:.2f})"
        parts = (f"{row['parts_ms'][part]:.0f}" for part in ("forward", "backward", "optimiser"))
        body.append([row["model"], f"{row['time']['median_ms']:.0f}", *parts, ratio])
    heads = ["model", "ms a step", "forward", "backward", "optimiser", "times theirs"]
    return f"{where(result)}\n\n{markdown(heads, body)}"


def memory(kind: str) -> str:
    """Every model at two sizes: our peak, the peer's, and the peer's over ours."""
    result = result_of("memory", kind)
    rows = {(r["arm"], r["model"], r["image"]): r for r in result["rows"] if "finite" not in r}
    sizes = sorted({image for _, _, image in rows})
    body = []
    for model in dict.fromkeys(row["model"] for row in in_order(list(rows.values()))):
        cells = (memory_cells(rows, model, image) for image in sizes)
        body.append([model, *(cell for some in cells for cell in some)])
    heads = [f"{what}, {px} px" for px in sizes for what in ("ours, MB", "theirs", "theirs / ours")]
    return f"{where(result)}\n\n{markdown(['model', *heads], body)}"


def memory_cells(rows: Mapping[tuple[str, str, int], Row], model: str, image: int) -> list[str]:
    """Ours, theirs, the ratio; a peer that did not fit stands as a limit."""
    ours, theirs = rows.get(("vitrail", model, image)), rows.get(("peer", model, image))
    if ours is None or ours["memory_bytes"] is None:
        return ["", "", ""]
    ratio = next((o["ratio"] for o in ours["against"]), None)
    fitted = theirs is not None and theirs["memory_bytes"] is not None
    other = f"{theirs['memory_bytes'] / MB:.0f}" if theirs and fitted else "too large"
    more = "" if fitted else "at least "
    said = f"{more}{bold(ratio, ratio < 0.98)}" if ratio is not None else ""
    return [f"{ours['memory_bytes'] / MB:.0f}", other, said]


def growth(kind: str) -> str:
    """A table for each family: seconds and memory at every size, exponents, times the first."""
    result = result_of("growth", kind)
    parts = [where(result)]
    for family in dict.fromkeys(row["family"] for row in result["rows"]):
        parts.append(growth_table([r for r in result["rows"] if r["family"] == family]))
    return "\n\n".join(parts)


def growth_table(rows: Sequence[Row]) -> str:
    """One family, the yardstick first: seconds, times the yardstick, and exponents."""
    sizes = sorted({row["image"] for row in rows})
    arms = sorted(dict.fromkeys(r["arm"] for r in rows), key=lambda arm: is_compared(rows, arm))
    cells = {(row["arm"], row["image"]): row for row in rows}
    body = []
    for arm in arms:
        own = [cells[arm, size] for size in sizes if (arm, size) in cells]
        body.append([f"`{arm}`", *(growth_cell(cells.get((arm, px))) for px in sizes), *fits(own)])
    heads = [*(f"{px} px" for px in sizes), "time ~ pixels^ (last step)", "memory ~ pixels^"]
    return markdown(["model", *heads], body)


def is_compared(rows: Sequence[Row], arm: str) -> bool:
    """Whether a model was measured against another (the yardstick was not)."""
    return any(row["against"] for row in rows if row["arm"] == arm)


def growth_cell(row: Row | None) -> str:
    """Seconds, memory, and times the yardstick where there is one."""
    if row is None:
        return ""
    seconds, peak = row["time"]["median_ms"] / 1e3, row["memory_bytes"]
    ratio = f" (**{row['against'][0]['ratio']:.2f}**)" if row["against"] else ""
    held = f", {peak / MB:.0f} MB" if peak else ""
    return f"{seconds:.2f} s{ratio}{held}"


def fits(rows: Sequence[Row]) -> list[str]:
    """Exponents of time (with the last step's) and of memory."""
    time = power_law([(row["image"] ** 2, row["time"]["median_ms"]) for row in rows])
    held = [(row["image"] ** 2, row["memory_bytes"]) for row in rows if row["memory_bytes"]]
    return [f"{time[0]:.2f} ({time[2]:.2f})", f"{power_law(held)[0]:.2f}"]


def keep() -> str:
    """Every picture set and model: accuracy of plain, differences of reducers, seed by seed."""
    runs = keep_runs()
    kinds = ([run for run in runs if run["machine"]["instructions"] == kind] for kind in KINDS)
    notes = "\n".join(f"- {where_runs(some)}" for some in kinds)
    return "\n\n".join([notes, *keep_table.tables(runs, keep_table.apart)])


def keep_in_short() -> str:
    """Reducers measured on all sets and seeds: throughput, and the mean difference on each set."""
    found, speeds = keep_differences(), keep_speeds()
    sets = sorted({about[0] for _, _, about in found})
    body = []
    for model, arm in dict.fromkeys((model, arm) for model, arm, _ in found):
        means = []
        for data in sets:
            some = [
                v for (m, a, about), v in found.items() if (m, a, about[0]) == (model, arm, data)
            ]
            means.append(f"{sum(some) / len(some):+.1f}" if len(some) == 3 else "")
        speed = speeds.get((model, arm))
        if all(means) and speed:
            body.append([f"{model}, `{arm}`", f"{speed:.2f}", *means])
    return markdown(["model, reducer", "throughput, times plain", *sets], body)


def keep_speeds() -> dict[tuple[str, str], float]:
    """(Model, reducer) -> times the plain model's throughput, as last measured."""
    return {
        (run["settings"]["model"], row["arm"]): row["against"][0]["ratio"]
        for run in keep_runs()
        for row in run["rows"]
        if row["against"]
    }


def keep_differences() -> dict[tuple[str, str, tuple[str, int]], float]:
    """(Model, reducer, (set, seed)) -> points of accuracy, tuned, against plain tuned alike."""
    return {
        (run["settings"]["model"], row["arm"], about_run(run)): 100 * row["to_plain"]["value"]
        for run in keep_runs()
        for row in run["rows"]
        if row["way"] == "tuned" and row["seeds"] == 1 and row["to_plain"]
    }


def about_run(run: Result) -> tuple[str, int]:
    """The picture set and the seed of a run."""
    return Path(run["settings"]["data"]).stem, run["settings"]["seeds"][0]


def keep_runs() -> list[Result]:
    """Runs of the page's recipe (pictures of 128 px, in float32), oldest first."""
    runs = [one for kind in KINDS for one in by_run(result_of("keep", kind))]
    asked = [run for run in runs if run["settings"]["image"] == 128]
    asked = [run for run in asked if "fp32" in str(run["settings"]["changes"])]
    return sorted(asked, key=lambda run: (run["settings"]["model"], str(run["date"])))


def explaining() -> str:
    """Methods down: the most and the median, in passes forward and back."""
    result = result_of("explain_time", "AVX512")
    found: dict[str, list[tuple[float, str]]] = {}
    for row in (r for r in result["rows"] if r["against"]):
        found.setdefault(row["arm"], []).append((1 / row["against"][0]["ratio"], row["model"]))
    body = []
    for method, passes in found.items():
        most, model = max(passes)
        middle = sorted(value for value, _ in passes)[len(passes) // 2]
        body.append([method, f"{most:.2f} ({model})", f"{middle:.2f}"])
    return f"{where(result)}\n\n{markdown(['method', 'most', 'median'], body)}"


def loader(kind: str) -> str:
    """Pictures a second of the loader and of the model."""
    result = result_of("loader", kind)
    body = [[row["arm"], f"{row['images_per_s']:.0f}"] for row in result["rows"]]
    return f"{where(result)}\n\n{markdown(['who', 'pictures/s'], body)}"


TABLES: dict[str, Callable[[], str]] = {
    **{f"speed {kind}": partial(speed, kind) for kind in KINDS},
    **{f"fewer tokens {kind}": partial(fewer_tokens, kind) for kind in KINDS},
    **{f"training step {kind}": partial(train_step, kind) for kind in KINDS},
    **{f"memory {kind}": partial(memory, kind) for kind in KINDS},
    **{f"growth {kind}": partial(growth, kind) for kind in KINDS},
    **{f"loader {kind}": partial(loader, kind) for kind in KINDS},
    "clustering coat": clustering_coat,
    "keep": keep,
    "keep in short": keep_in_short,
    "explaining": explaining,
}

# ---- pictures ------------------------------------------------------------------------------------

Points = Mapping[str, Sequence[tuple[str, float]]]
"""Legend -> (label on the left, value)."""


def speed_points() -> Points:
    """Every model: eager and optimised, at 224 px with eight pictures."""
    rows = result_of("peers", "AVX2")["rows"]
    shown = [r for r in rows if r["arm"] == "vitrail" and (r["image"], r["batch"]) == (224, 8)]
    pairs = {"eager, against eager": ("eager", "eager"),
             "optimised, against compiled": ("optimised", "compiled")}  # fmt: skip
    return {
        legend: [
            (row["model"], value)
            for row in shown
            if row["graph"] == ours and (value := ratio_to(row, f"peer {theirs}")) is not None
        ]
        for legend, (ours, theirs) in pairs.items()
    }


def keep_points() -> Points:
    """Reducers of CoaT-Lite-Tiny and ViT-Ti, tuned: mean difference to plain over three sets."""
    found: dict[str, dict[str, list[float]]] = {}
    for (model, arm, _), value in keep_differences().items():
        found.setdefault(model, {}).setdefault(arm, []).append(value)
    return {
        model: [(arm, sum(some) / len(some)) for arm, some in by_arm.items() if len(some) == 9]
        for model, by_arm in found.items()
    }


def draw_dots(path: Path, label: str, points: Points) -> None:
    """A row for each label, a dot for each value; the same file from the same values."""
    import matplotlib
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for some in points.values() for name, _ in some))[::-1]
    with matplotlib.rc_context({"svg.hashsalt": path.stem}):
        figure = Figure(figsize=(8, 0.3 * len(names) + 1.2), layout="constrained")
        panel = figure.subplots()
        for legend, some in points.items():
            panel.plot(*zip(*dots(some, names), strict=True), "o", label=legend)
        panel.axvline(one_or_zero(points), color="0.6", linewidth=1)
        panel.set_yticks(range(len(names)), names)
        panel.set_xlabel(label)
        panel.grid(axis="y", color="0.92")
        panel.legend(frameon=False, fontsize=8)
        figure.savefig(path, metadata={"Date": None})


def dots(some: Iterable[tuple[str, float]], names: Sequence[str]) -> Iterator[tuple[float, int]]:
    """Where the dots are."""
    for name, value in some:
        yield value, names.index(name)


def one_or_zero(points: Points) -> float:
    """The line of no difference: 1 for ratios, 0 for differences."""
    return 0.0 if any(value < 0 for some in points.values() for _, value in some) else 1.0


if __name__ == "__main__":
    command.run(main, Options, __doc__)
