"""Accuracy against time, for the page of a choice."""

from collections.abc import Sequence

from vitrail.study.choose.lines import Line
from vitrail.study.figures import FAINT, SERIES, canvas, short, to_svg


def pareto_figure(lines: Sequence[Line], winner: str) -> str:
    """Probed accuracy over milliseconds (log) as ``<svg>``; empty where nothing is known of both.

    Filled marks lie on the Pareto front; the winner is named in its own colour.
    """
    known = [line for line in lines if line.probe is not None and line.entry.cost is not None]
    if not known:
        return ""
    with canvas(9, 4.2) as (figure, axes):
        for line in known:
            assert line.probe is not None and line.entry.cost is not None
            x, y = line.entry.cost.ms, 100 * line.probe.value
            low, high = 100 * line.probe.low, 100 * line.probe.high
            colour = SERIES[0] if line.entry.model == winner else FAINT
            bars = [[max(0.0, y - low)], [max(0.0, high - y)]]
            axes.errorbar([x], [y], yerr=bars, fmt="none", ecolor=colour, elinewidth=1.1)
            fill = colour if line.front else "none"
            axes.plot(x, y, marker="o", markersize=7, color=colour, markerfacecolor=fill)
            axes.annotate(
                short(line.entry.model), (x, y), (7, 5), textcoords="offset points",
                color=colour, parse_math=False, fontsize=8.5,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.margins(x=0.15)
        axes.set_xlabel("milliseconds a batch (log)")
        axes.set_ylabel("accuracy of the last probe, %")
        return to_svg(figure, "pareto", "Probed accuracy against time")
