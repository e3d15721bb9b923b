"""Maps as pictures: overlays with their scale, and sheets of methods by models.

Colours are perceptually uniform: viridis for maps from low to high, a diverging blue to red
(Moreland 2009) around zero for signed ones. A map's own range sets its scale, which is always
drawn. matplotlib is imported when something is drawn.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitrail.attribution.scale import ROUNDING
from vitrail.errors import figure_text
from vitrail.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Pixels = NDArray[np.uint8]
"""A picture as the model sees it: uint8 ``(H, W, 3)``."""
Map = NDArray[np.float32]
"""One raw map ``(H, W)``."""

COLOURS = {False: "viridis", True: "coolwarm"}
"""By whether a map is signed."""
STRENGTH = 0.6
TOP = 0.995
INK, FAINT = "#1d1a17", "#6b655d"
DOTS = 150


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One map with its title and note."""

    map: Map
    signed: bool
    title: str
    note: str = ""


def limits(map_: Map, signed: bool) -> tuple[float, float]:
    """The values at the ends of the scale: up to the 99.5th percentile, even around 0 if signed."""
    if signed:
        top = float(np.quantile(np.abs(map_), TOP)) or float(np.abs(map_).max()) or 1.0
        return -top, top
    low, top = float(map_.min()), float(np.quantile(map_, TOP))
    top = top if top > low else float(map_.max())
    flat = ROUNDING * max(abs(low), abs(top))
    return (low, top) if top - low > flat else (low, low + (flat / ROUNDING or 1.0))


def colourise(map_: Map, signed: bool) -> Pixels:
    """The map in its colours, ``(H, W, 3)``."""
    from matplotlib import colormaps

    low, top = limits(map_, signed)
    values = np.clip((map_ - low) / (top - low), 0, 1)
    return np.rint(255 * colormaps[COLOURS[signed]](values)[..., :3]).astype(np.uint8)


def overlay(picture: Pixels, map_: Map, signed: bool) -> Pixels:
    """The map's colours over the greyed picture, ``(H, W, 3)``."""
    grey = picture.astype(np.float32).mean(-1, keepdims=True)
    mixed = STRENGTH * colourise(map_, signed) + (1 - STRENGTH) * grey
    return np.rint(mixed).astype(np.uint8)


def page(picture: Pixels, drawing: Drawing) -> "Figure":
    """The picture, the map, and the map over the picture, with the scale."""
    figure = blank(9.2, 3.5)
    grid = figure.add_gridspec(
        1,
        4,
        width_ratios=(1, 1, 1, 0.05),
        left=0.01,
        right=0.925,
        top=0.84,
        bottom=0.1,
        wspace=0.06,
    )
    shown = (picture, colourise(drawing.map, drawing.signed))
    panels = (*shown, overlay(picture, drawing.map, drawing.signed))
    for i, (pixels, name) in enumerate(zip(panels, ("picture", "map", "both"), strict=True)):
        axes = figure.add_subplot(grid[0, i])
        image(axes, pixels)
        axes.set_xlabel(name, color=FAINT, fontsize=8)
    scale(figure, figure.add_subplot(grid[0, 3]), drawing)
    figure.text(
        0.01, 0.93, figure_text(drawing.title), color=INK, fontsize=11, weight="bold", va="center"
    )
    figure.text(0.01, 0.03, figure_text(drawing.note), color=FAINT, fontsize=7.5, va="center")
    return figure


def sheet(
    picture: Pixels, rows: Mapping[str, Sequence[Drawing | None]], columns: Sequence[str]
) -> "Figure":
    """Models down, methods across; the picture stands first. None: the method cannot serve."""
    side = 1.75
    wide, high = side * (len(columns) + 1), (side + 0.2) * len(rows)
    figure = blank(wide + 0.2, high + 0.75)
    foot = 0.42 / (high + 0.75)
    grid = figure.add_gridspec(
        len(rows), len(columns) + 1, left=0.03, right=0.995, bottom=foot,
        top=1 - 0.3 / (high + 0.75), wspace=0.04, hspace=0.14,
    )  # fmt: skip
    for i, (name, drawings) in enumerate(rows.items()):
        first = figure.add_subplot(grid[i, 0])
        image(first, picture)
        first.set_ylabel(figure_text(short(name)), color=INK, fontsize=7.5)
        for j, drawing in enumerate(drawings, start=1):
            axes = figure.add_subplot(grid[i, j])
            if i == 0:
                axes.set_title(figure_text(columns[j - 1]), color=INK, fontsize=8.5)
            cell(axes, picture, drawing)
    words = "each map on its own scale: dark is its lowest value, yellow its highest; signed: "
    words += "blue speaks against the class, red for it"
    figure.text(0.03, 0.14 / (high + 0.75), words, color=FAINT, fontsize=6.5)
    return figure


def cell(axes: "Axes", picture: Pixels, drawing: Drawing | None) -> None:
    """One map of a sheet."""
    if drawing is None:
        image(axes, np.full_like(picture, 246))
        axes.text(0.5, 0.5, "not for\nthis model", transform=axes.transAxes, ha="center",
                  va="center", color=FAINT, fontsize=7)  # fmt: skip
        return
    image(axes, overlay(picture, drawing.map, drawing.signed))
    axes.set_xlabel(figure_text(drawing.title), color=FAINT, fontsize=6.5, labelpad=2)


def scale(figure: "Figure", axes: "Axes", drawing: Drawing) -> None:
    """The colours with the map's own values."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colours = ScalarMappable(Normalize(*limits(drawing.map, drawing.signed)))
    colours.set_cmap(COLOURS[drawing.signed])
    bar = figure.colorbar(colours, cax=axes)
    bar.ax.tick_params(labelsize=7, colors=FAINT)
    bar.outline.set_edgecolor(FAINT)


def image(axes: "Axes", pixels: Pixels) -> None:
    """Pixels without ticks and frame."""
    axes.imshow(pixels, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def blank(width: float, height: float) -> "Figure":
    """An empty figure of so many inches; no window, no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DOTS, facecolor="white")


def save(figure: "Figure", path: Path) -> None:
    """A PNG, whole or not at all."""
    with atomic_file(path) as draft, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for it
        figure.savefig(draft, format="png", metadata={"Software": "vitrail"})


def short(name: str, most: int = 24) -> str:
    """A name with its middle left out where it is long."""
    return name if len(name) <= most else f"{name[: most - 9]}…{name[-8:]}"


def as_array(tensor: Any) -> NDArray[Any]:
    """A tensor as an array; bfloat16 has none."""
    found = tensor.detach().cpu()
    return np.asarray(found.float() if found.is_floating_point() else found)
