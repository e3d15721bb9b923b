"""Drawings of what layers record: clusters and chosen places as segments, other records as maps.

Cluster layers: every segment has its cluster's mean colour in the picture, with lines along the
borders. Filter and random layers: chosen places are bright, the others dark. Records without
segments (attention, relevance) are drawn as maps.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitrail.attribution.base import LayerRecord
from vitrail.attribution.draw import FAINT, INK, Pixels, as_array, blank, colourise, image, short
from vitrail.errors import figure_text

if TYPE_CHECKING:
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

BORDER = "#14110f"
DARKENED, SEE_THROUGH = 0.28, 0.35
"""Brightness of what was not chosen; how much of the picture shows through a segment."""
MOST_LAYERS = 16
Labels = NDArray[np.int64]
"""The segment of each cell of a grid, ``(h, w)``."""


def worth_drawing(layers: Mapping[str, LayerRecord]) -> bool:
    """Whether the layers show more than the map itself: segments, or several layers."""
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


def draw_layers(
    picture: Pixels, layers: Mapping[str, LayerRecord], sample: int, title: str
) -> "Figure":
    """All layers of one picture on one sheet, a panel each, in the order of the forward pass.

    Of more than ``MOST_LAYERS`` layers that many are drawn, evenly spaced; the title says so.
    """
    found = drawable(layers)
    names = evenly(list(found), MOST_LAYERS)
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
        pixels, labels = draw_segments(picture, found[name], sample)
        image(axes, pixels)
        if labels is not None:
            axes.add_collection(borders(labels, picture.shape[:2]))
        said = f"{figure_text(short(name, 34))}\n{format_layer(found[name], sample)}"
        axes.set_title(said, color=FAINT, fontsize=7)
    return figure


def draw_segments(picture: Pixels, layer: LayerRecord, sample: int) -> tuple[Pixels, Labels | None]:
    """A layer's panel ``(H, W, 3)``, and the labels between which borders are drawn."""
    name = content(layer)
    assert name is not None
    values = first_grid(as_array(layer.tensors[name][sample]))
    wide = upsample_nearest(values, picture.shape[:2])
    if name == "labels":
        return fill_segments(picture, wide.astype(np.int64)), values.astype(np.int64)
    if name == "mask" and set(np.unique(values)) <= {0, 1}:
        chosen = wide.astype(bool)[..., None]
        glass = np.where(chosen, picture, DARKENED * picture.astype(np.float32))
        return np.rint(glass).astype(np.uint8), values.astype(np.int64)
    heat = wide.astype(np.float32)
    return colourise(heat, signed=bool((heat < 0).any())), None


def first_grid(values: NDArray[Any]) -> NDArray[Any]:
    """One grid ``(h, w)``: of several clusterings (heads, sequences) the first."""
    return values[0] if values.ndim == 3 else values


def fill_segments(picture: Pixels, labels: Labels) -> Pixels:
    """Every segment in its mean colour, with some of the picture showing through."""
    numbers = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    counts = np.bincount(numbers.ravel())
    sums = [np.bincount(numbers.ravel(), picture[..., c].ravel()) for c in range(3)]
    means = np.stack(sums, -1) / counts[:, None]
    glass = (1 - SEE_THROUGH) * means[numbers] + SEE_THROUGH * picture
    return np.rint(glass).astype(np.uint8)


def borders(labels: Labels, size: tuple[int, int]) -> "LineCollection":
    """Lines along the borders between unlike cells, in pixels of a picture of (height, width)."""
    from matplotlib.collections import LineCollection

    height, width = labels.shape
    down, right = size[0] / height, size[1] / width
    lines = [
        ((j + 1, i), (j + 1, i + 1)) for i, j in np.argwhere(labels[:, 1:] != labels[:, :-1])
    ] + [((j, i + 1), (j + 1, i + 1)) for i, j in np.argwhere(labels[1:] != labels[:-1])]
    scaled = [[(x * right - 0.5, y * down - 0.5) for x, y in line] for line in lines]
    thick = float(np.clip(28 / max(height, width), 0.5, 2.2))
    return LineCollection(scaled, colors=BORDER, linewidths=thick, capstyle="round")


def upsample_nearest(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Cells ``(h, w)`` -> pixels ``(H, W)`` by the nearest cell."""
    rows, columns = (
        np.minimum((np.arange(wide) + 0.5) * few / wide, few - 1).astype(int)
        for wide, few in zip(size, values.shape, strict=True)
    )
    return values[rows][:, columns]


def format_layer(layer: LayerRecord, sample: int) -> str:
    """A layer's kind, grid and how much it chose, in a few words."""
    assert layer.grid is not None
    words = f"{layer.kind} {layer.grid[0]} x {layer.grid[1]}"
    if "labels" in layer.tensors:
        labels = as_array(layer.tensors["labels"][sample])
        of = f" (1st of {len(labels)})" if labels.ndim == 3 else ""
        return f"{words}, {len(np.unique(first_grid(labels)))} clusters{of}"
    if "mask" in layer.tensors:
        return f"{words}, {float(layer.tensors['mask'][sample].sum()):.0f} chosen"
    return words


def evenly(names: Sequence[str], most: int) -> list[str]:
    """At most so many of them, first and last among them."""
    if len(names) <= most:
        return list(names)
    return [names[round(i * (len(names) - 1) / (most - 1))] for i in range(most)]
