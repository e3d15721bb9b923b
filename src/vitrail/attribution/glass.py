"""What layers chose, as stained glass: a pane each cluster or cell, leads along the borders.

Cluster layers: every pane has its cluster's mean colour in the picture. Filter and random layers:
chosen places are clear glass, the others smoked. Records on a grid without panes (attention,
relevance) are drawn as maps.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitrail.attribution.base import LayerRecord
from vitrail.attribution.draw import FAINT, INK, Pixels, as_array, blank, coloured, image, short
from vitrail.errors import figure_text

if TYPE_CHECKING:
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

LEAD = "#14110f"
SMOKE, CLEAR = 0.28, 0.35
"""How bright what was not chosen stays; how much of the picture shows through a cluster's pane."""
MOST = 16
Labels = NDArray[np.int64]
"""Which pane each cell of a grid belongs to, ``(h, w)``."""


def worth_a_window(layers: Mapping[str, LayerRecord]) -> bool:
    """Whether layers show more than the map itself does: panes, or several of them."""
    found = drawable(layers)
    return len(found) > 1 or any(content(layer) != "map" for layer in found.values())


def drawable(layers: Mapping[str, LayerRecord]) -> dict[str, LayerRecord]:
    """The layers that have something to show on a grid."""
    return {name: layer for name, layer in layers.items() if content(layer) is not None}


def content(layer: LayerRecord) -> str | None:
    """The tensor of a record that is drawn: labels, mask, else the first one on its grid."""
    for name in ("labels", "mask", "map"):
        if name in layer.tensors and on_grid(layer, name):
            return name
    return next((name for name in layer.tensors if on_grid(layer, name)), None)


def on_grid(layer: LayerRecord, name: str) -> bool:
    """Whether a record's tensor is ``(B, [S,] h, w)`` on the layer's own grid."""
    shape = tuple(layer.tensors[name].shape)
    return layer.grid is not None and len(shape) in (3, 4) and shape[-2:] == tuple(layer.grid)


def window(picture: Pixels, layers: Mapping[str, LayerRecord], sample: int, title: str) -> "Figure":
    """All layers of one picture on one sheet, a panel each, in the order of the forward pass.

    Of more than ``MOST`` layers, as many are drawn, evenly through the model; the title says so.
    """
    found = drawable(layers)
    names = evenly(list(found), MOST)
    left_out = f"; {len(names)} of {len(found)} layers" if len(names) < len(found) else ""
    columns = min(4, len(names) + 1)
    rows = -(-(len(names) + 1) // columns)
    high = 2.65 * rows + 0.35
    figure = blank(2.3 * columns, high)
    said = figure_text(title + left_out)
    figure.text(0.02, 1 - 0.2 / high, said, color=INK, fontsize=10,
                weight="bold", va="center")  # fmt: skip
    grid = figure.add_gridspec(
        rows, columns, left=0.02, right=0.98, bottom=0.02,
        top=1 - 0.7 / high, wspace=0.06, hspace=0.26,
    )  # fmt: skip
    first = figure.add_subplot(grid[0, 0])
    image(first, picture)
    first.set_title("picture", color=FAINT, fontsize=7.5)
    for i, name in enumerate(names, start=1):
        axes = figure.add_subplot(grid[divmod(i, columns)])
        pixels, labels = panes(picture, found[name], sample)
        image(axes, pixels)
        if labels is not None:
            axes.add_collection(leads(labels, picture.shape[:2]))
        said = f"{figure_text(short(name, 34))}\n{told(found[name], sample)}"
        axes.set_title(said, color=FAINT, fontsize=7)
    return figure


def panes(picture: Pixels, layer: LayerRecord, sample: int) -> tuple[Pixels, Labels | None]:
    """What a layer's panel shows ``(H, W, 3)``, and the panes that leads go between."""
    name = content(layer)
    assert name is not None
    values = first(as_array(layer.tensors[name][sample]))
    wide = enlarged(values, picture.shape[:2])
    if name == "labels":
        return stained(picture, wide.astype(np.int64)), values.astype(np.int64)
    if name == "mask" and set(np.unique(values)) <= {0, 1}:
        chosen = wide.astype(bool)[..., None]
        glass = np.where(chosen, picture, SMOKE * picture.astype(np.float32))
        return np.rint(glass).astype(np.uint8), values.astype(np.int64)
    heat = wide.astype(np.float32)
    return coloured(heat, signed=bool((heat < 0).any())), None


def first(values: NDArray[Any]) -> NDArray[Any]:
    """One grid ``(h, w)``: of several clusterings (heads, sequences) the first."""
    return values[0] if values.ndim == 3 else values


def stained(picture: Pixels, labels: Labels) -> Pixels:
    """Every pane in its mean colour, with some of the picture showing through."""
    numbers = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    counts = np.bincount(numbers.ravel())
    sums = [np.bincount(numbers.ravel(), picture[..., c].ravel()) for c in range(3)]
    means = np.stack(sums, -1) / counts[:, None]
    glass = (1 - CLEAR) * means[numbers] + CLEAR * picture
    return np.rint(glass).astype(np.uint8)


def leads(labels: Labels, size: tuple[int, int]) -> "LineCollection":
    """Lines along the borders between unlike cells, in pixels of a picture of (height, width)."""
    from matplotlib.collections import LineCollection

    height, width = labels.shape
    down, right = size[0] / height, size[1] / width
    lines = [
        ((j + 1, i), (j + 1, i + 1)) for i, j in np.argwhere(labels[:, 1:] != labels[:, :-1])
    ] + [((j, i + 1), (j + 1, i + 1)) for i, j in np.argwhere(labels[1:] != labels[:-1])]
    scaled = [[(x * right - 0.5, y * down - 0.5) for x, y in line] for line in lines]
    thick = float(np.clip(28 / max(height, width), 0.5, 2.2))
    return LineCollection(scaled, colors=LEAD, linewidths=thick, capstyle="round")


def enlarged(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Cells ``(h, w)`` -> pixels ``(H, W)`` by the nearest cell."""
    rows, columns = (
        np.minimum((np.arange(wide) + 0.5) * few / wide, few - 1).astype(int)
        for wide, few in zip(size, values.shape, strict=True)
    )
    return values[rows][:, columns]


def told(layer: LayerRecord, sample: int) -> str:
    """A layer's kind, grid and how much it chose, in a few words."""
    assert layer.grid is not None
    words = f"{layer.kind} {layer.grid[0]} x {layer.grid[1]}"
    if "labels" in layer.tensors:
        labels = as_array(layer.tensors["labels"][sample])
        of = f" (1st of {len(labels)})" if labels.ndim == 3 else ""
        return f"{words}, {len(np.unique(first(labels)))} clusters{of}"
    if "mask" in layer.tensors:
        return f"{words}, {float(layer.tensors['mask'][sample].sum()):.0f} chosen"
    return words


def evenly(names: Sequence[str], most: int) -> list[str]:
    """At most so many of them, first and last among them."""
    if len(names) <= most:
        return list(names)
    return [names[round(i * (len(names) - 1) / (most - 1))] for i in range(most)]
