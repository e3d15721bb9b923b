"""The figures of a report: matplotlib drawings as inline SVG that follows the page's colours.

Series and ink are drawn in stand-in colours that become CSS variables afterwards, so that one
drawing serves light, dark and print. Text stays text: it can be searched and takes the page's font.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from vitrail.errors import printable
from vitrail.study.analyse import Analysis
from vitrail.study.record import JobRecord
from vitrail.study.verdict import amount, share_text

INK, FAINT, PAPER = "#010203", "#040506", "#070809"
#: Stand-ins for ``--s0`` .. ``--s7`` of the page (Okabe and Ito's palette, two tunings).
SERIES = tuple(f"#0a0b{12 + i:02x}" for i in range(8))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MOST_DRAWN = 1e30
"""Larger values, of a training that diverged, are left out: axes have room for no more."""
STYLES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1, 1, 1)))


def look(arms: Sequence[str], arm: str) -> dict[str, Any]:
    """Colour, marker and line of an arm: unlike in at least two ways for 32 arms."""
    i = list(arms).index(arm)
    return {
        "color": SERIES[i % len(SERIES)],
        "marker": MARKERS[(i + i // len(SERIES)) % len(MARKERS)],
        "linestyle": STYLES[(i // len(SERIES)) % len(STYLES)],
    }


def short(arm: str, most: int = 30) -> str:
    """An arm's name as a label: its middle left out where it is long."""
    arm = printable(arm)
    return arm if len(arm) <= most else f"{arm[: most - 13]}…{arm[-12:]}"


def over_share(analysis: Analysis) -> str:
    """Accuracy over the share of the training pictures, with intervals."""
    with canvas(9, 3.9) as (figure, axes):
        span, ends = analysis.shares[-1] / analysis.shares[0], []
        for i, arm in enumerate(analysis.arms):
            cells = [c for s in analysis.shares if (c := analysis.cell(arm, s))]
            shift = max(span, 10) ** (0.007 * (i - (len(analysis.arms) - 1) / 2))
            x = [c.share * shift for c in cells]
            y = [100 * c.score.value for c in cells]
            _bars(axes, x, y, [(c.score.low, c.score.high) for c in cells], analysis, arm)
            axes.plot(x, y, linewidth=1.8, markersize=5, **look(analysis.arms, arm))
            ends.append((x[-1], y[-1], arm))
        axes.set_xscale("log")
        counts = {c.share: c.train_count for c in analysis.cells}
        _ticks(axes, [(s, f"{share_text(s)}\n{counts[s]:,}") for s in analysis.shares])
        axes.set_xlim(analysis.shares[0] * 0.9, analysis.shares[-1] * max(span, 10) ** 0.06)
        axes.set_xlabel("share of the training pictures, and their number")
        axes.set_ylabel(f"{analysis.metric_words}, %")
        _label_ends(axes, ends, analysis)
        return to_svg(figure, "share", "Accuracy over the share of the training pictures")


def over_cost(analysis: Analysis, cost: Mapping[str, float], *, axis: str, name: str) -> str:
    """Accuracy with the most data against a cost (log), the Pareto front as a step line.

    ``axis`` is ``"multiply-adds"`` or a text with its unit; ``name`` makes the ids unique.
    """
    share = analysis.shares[-1]
    here = [c for c in analysis.ranking(share) if c.arm in cost]
    with canvas(5.4, 3.7) as (figure, axes):
        front = analysis.front(share, cost)
        best = {c.arm: 100 * c.score.value for c in here}
        _front_line(axes, [(cost[a], best[a]) for a in front])
        for c in here:
            style = {k: v for k, v in look(analysis.arms, c.arm).items() if k != "linestyle"}
            _bars(axes, [cost[c.arm]], [best[c.arm]], [(c.score.low, c.score.high)],
                  analysis, c.arm)  # fmt: skip
            fill = {} if c.arm in front else {"markerfacecolor": PAPER}
            axes.plot(cost[c.arm], best[c.arm], markersize=8, linestyle="", **style, **fill)
        _cost_axis(axes, [cost[c.arm] for c in here], axis)
        axes.set_ylabel(f"{analysis.metric_words} at {share_text(share)}, %")
        _label_points(axes, [(cost[c.arm], best[c.arm], c.arm) for c in here], analysis)
        return to_svg(figure, name, f"Accuracy against {axis}")


def curves(analysis: Analysis, records: Sequence[JobRecord]) -> str:
    """Validation accuracy and training loss over the epochs; a panel a share, a line a seed."""
    shares = [s for s in analysis.shares if any(r.share == s and r.curve for r in records)]
    if not shares:
        return ""
    with canvas(9, 4.6, rows=2, columns=len(shares)) as (figure, axes):
        for column, share in enumerate(shares):
            axes[0][column].xaxis.get_major_locator().set_params(integer=True)
            axes[1][column].xaxis.get_major_locator().set_params(integer=True)
            for r in (r for r in records if r.share == share and r.arm in analysis.arms):
                style = look(analysis.arms, r.arm) | {"marker": "", "linewidth": 1.3}
                for row, field in enumerate((analysis.metric, "train_loss")):
                    _curve(axes[row][column], r, field, style)
            axes[0][column].set_title(f"{share_text(share)} of the pictures")
            axes[1][column].set_xlabel("epoch")
            for row in (0, 1):
                axes[row][column].margins(x=0.02)
        axes[0][0].set_ylabel(f"validation {analysis.metric_words}, %")
        axes[1][0].set_ylabel("training loss")
        return to_svg(figure, "curves", "Training curves")


def _curve(axes: Any, record: JobRecord, field: str, style: Mapping[str, Any]) -> None:
    scale = 1 if field == "train_loss" else 100
    pairs = [(p.get("epoch"), p.get(field)) for p in record.curve]
    points = [
        (epoch, scale * value)
        for epoch, value in pairs
        if epoch is not None and value is not None and abs(value) < MOST_DRAWN
    ]
    if points:
        axes.plot(*zip(*points, strict=True), **style)


def _bars(
    axes: Any,
    x: Sequence[float],
    y: Sequence[float],
    ends: Sequence[tuple[float, float]],
    analysis: Analysis,
    arm: str,
) -> None:
    down = [max(0, v - 100 * low) for v, (low, _) in zip(y, ends, strict=True)]
    up = [max(0, 100 * high - v) for v, (_, high) in zip(y, ends, strict=True)]
    colour = look(analysis.arms, arm)["color"]
    axes.errorbar(x, y, yerr=[down, up], fmt="none", ecolor=colour, elinewidth=1.2, alpha=0.55)


def _front_line(axes: Any, front: Sequence[tuple[float, float]]) -> None:
    if len(front) > 1:
        x, y = zip(*front, strict=True)
        axes.step(x, y, where="post", color=FAINT, linewidth=1.4, linestyle=(0, (4, 2)), zorder=0)


def _cost_axis(axes: Any, costs: Sequence[float], axis: str) -> None:
    axes.set_xscale("log")
    axes.set_xlim(min(costs) / 1.6, max(costs) * 1.6)
    axes.set_xlabel(f"{axis} (log)")
    ladder = [m * 10.0**e for e in range(-7, 15) for m in (1, 2, 5)]
    low, high = axes.get_xlim()
    seen = [v for v in ladder if low <= v <= high]
    unit = re.search(r", (\w+)$", axis)
    _ticks(axes, [(v, f"{v:g}" if unit else amount(v)) for v in seen])


def _ticks(axes: Any, ticks: Sequence[tuple[float, str]]) -> None:
    axes.set_xticks([v for v, _ in ticks], [text for _, text in ticks])
    axes.minorticks_off()


def _label_ends(axes: Any, ends: Sequence[tuple[float, float, str]], analysis: Analysis) -> None:
    """Names right of the lines' ends, pushed apart where they would touch."""
    low, high = axes.get_ylim()
    gap, last = (high - low) * 0.058, float("-inf")
    for x, y, arm in sorted(ends, key=lambda e: e[1]):
        last = max(y, last + gap)
        place = axes.get_yaxis_transform()
        axes.annotate(
            short(arm), (x, y), (1.025, last), xycoords="data", textcoords=place,
            va="center", color=look(analysis.arms, arm)["color"], annotation_clip=False,
            parse_math=False,
        )  # fmt: skip


def _label_points(
    axes: Any, points: Sequence[tuple[float, float, str]], analysis: Analysis
) -> None:
    """Names beside their points, each at the free spot that collides least."""
    axes.figure.draw_without_rendering()
    dot = axes.figure.dpi / 72
    at = {arm: axes.transData.transform((x, y)) for x, y, arm in points}
    taken = [Box(x - 6 * dot, y - 6 * dot, x + 6 * dot, y + 6 * dot) for x, y in at.values()]
    room = Box(*axes.bbox.extents)
    for x, y, arm in sorted(points):
        width = 5.6 * len(short(arm)) * dot
        spots = [_spot(at[arm], side, rise, width, dot) for side in (1, -1) for rise in RISES]
        side, rise, box = min(spots, key=lambda s: _clash(s[2], taken, room) + abs(s[1]) / 100)
        taken.append(box)
        axes.annotate(
            short(arm), (x, y), (9 * side, rise), textcoords="offset points",
            ha="left" if side > 0 else "right", va="center", parse_math=False,
            color=look(analysis.arms, arm)["color"],
        )  # fmt: skip


#: Heights above its point, in points, at which a name may stand.
RISES = (8, -8, 20, -20, 32, -32)


class Box(NamedTuple):
    """A rectangle on the canvas, in pixels."""

    left: float
    low: float
    right: float
    high: float

    def overlap(self, other: "Box") -> float:
        """Shared area."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        tall = min(self.high, other.high) - max(self.low, other.low)
        return max(0.0, wide) * max(0.0, tall)


def _spot(
    at: Sequence[float], side: int, rise: float, width: float, dot: float
) -> tuple[int, float, Box]:
    start, middle = at[0] + 9 * side * dot, at[1] + rise * dot
    left, right = sorted((start, start + side * width))
    return side, rise, Box(left, middle - 6 * dot, right, middle + 6 * dot)


def _clash(box: Box, taken: Sequence[Box], room: Box) -> float:
    area = (box.right - box.left) * (box.high - box.low)
    return sum(box.overlap(other) for other in taken) + area - box.overlap(room)


@contextmanager
def canvas(
    width: float, height: float, rows: int = 1, columns: int = 1
) -> Iterator[tuple[Any, Any]]:
    """A figure in the report's style; nothing global is left changed, no window is opened."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none", "svg.hashsalt": "vitrail", "font.size": 10, "axes.titlesize": 10,
        "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": FAINT,
        "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
        "axes.grid": True, "axes.grid.axis": "y", "grid.color": FAINT, "grid.alpha": 0.22,
        "axes.axisbelow": True, "xtick.major.size": 3, "ytick.major.size": 0,
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots(rows, columns, squeeze=False, sharey="row")
        for one in axes.flat:
            one.patch.set_alpha(0)
        yield figure, axes if rows * columns > 1 else axes[0][0]


def to_svg(figure: Any, name: str, title: str) -> str:
    """The drawing as an ``<svg>`` element: colours to variables, ids made unique, no addresses."""
    held = io.StringIO()
    figure.savefig(held, format="svg", metadata={"Date": None})
    text = held.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r'<svg height="[^"]*"', "<svg", text)
    text = re.sub(r'^<svg([^>]*?) width="[^"]*"', r"<svg\1", text)
    colours = {INK: "--ink", FAINT: "--faint", PAPER: "--card"}
    colours |= {colour: f"--s{i}" for i, colour in enumerate(SERIES)}
    for colour, variable in colours.items():
        text = text.replace(colour, f"var({variable})")
    return text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1).strip()
