"""Pictures of maps: colours by value, scales from the map itself, leads between unlike cells."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.attribution import LayerRecord
from vitrail.attribution.draw import Drawing, colourise, limits, overlay, page, save, sheet
from vitrail.attribution.segments import (
    borders,
    draw_layers,
    draw_segments,
    drawable,
    evenly,
    fill_segments,
    format_layer,
    upsample_nearest,
    worth_drawing,
)

RAMP = np.linspace(0, 1, 12 * 16, dtype=np.float32).reshape(12, 16)
PICTURE = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)


def cluster(*rows: list[int]) -> LayerRecord:
    labels = torch.tensor(rows)[None]
    return LayerRecord(
        "cluster", tuple(labels.shape[1:]), {"labels": labels, "sizes": torch.ones(1, 2)}
    )


def test_the_scale_is_the_maps_own() -> None:
    low, top = limits(RAMP, signed=False)
    assert low == 0 and 0.99 < top <= 1
    assert limits(RAMP - 0.25, signed=True) == pytest.approx((-0.747, 0.747), abs=0.01)
    flat = np.zeros((4, 4), np.float32)
    assert limits(flat, signed=False) == (0, 1) and limits(flat, signed=True) == (-1, 1)
    low, top = limits(3 + 1e-6 * RAMP, signed=False)
    assert top - low > 1e5 * 1e-6  # rounding is no shape


def test_colours_grow_lighter_with_the_value() -> None:
    light = colourise(RAMP, signed=False).astype(int) @ [299, 587, 114] / 1000
    assert (np.diff(light.ravel()[:190]) > -0.6).all() and light.ravel()[-1] > 4 * light.ravel()[0]
    signed = colourise(RAMP - 0.5, signed=True)
    assert signed[0, 0, 2] > signed[0, 0, 0] and signed[-1, -1, 0] > signed[-1, -1, 2]


def test_an_overlay_shows_map_and_picture() -> None:
    drawn = overlay(PICTURE, RAMP, signed=False)
    assert drawn.shape == PICTURE.shape and drawn.dtype == np.uint8
    assert not np.array_equal(drawn, overlay(PICTURE, RAMP[::-1], signed=False))
    assert not np.array_equal(drawn, overlay(255 - PICTURE, RAMP, signed=False))


def test_a_page_is_written_whole(tmp_path: Path) -> None:
    drawing = Drawing(map=RAMP, signed=False, title="gradcam of run: star 93%", note="note")
    save(page(PICTURE, drawing), tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as found:
        assert found.size == (1380, 525) and found.info["Software"] == "vitrail"
    assert [p.name for p in tmp_path.iterdir()] == ["page.png"]


def test_a_sheet_has_a_cell_for_each_model_and_method(tmp_path: Path) -> None:
    drawing = Drawing(map=RAMP, signed=True, title="star")
    rows = {"vit": [drawing, None], "a_model_with_quite_a_long_name": [drawing, drawing]}
    figure = sheet(PICTURE, rows, ["lrp", "filter_mask"])
    assert len(figure.axes) == 6
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert words == ["not for\nthis model"]
    save(figure, tmp_path / "sheet.png")


def test_leads_go_between_unlike_cells() -> None:
    labels = np.array([[0, 0, 1], [0, 0, 1]])
    lines = [line.tolist() for line in borders(labels, (4, 6)).get_segments()]
    assert lines == [[[3.5, -0.5], [3.5, 1.5]], [[3.5, 1.5], [3.5, 3.5]]]
    assert len(borders(np.zeros((3, 3), int), (6, 6)).get_segments()) == 0
    assert len(borders(np.eye(2, dtype=int), (2, 2)).get_segments()) == 4


def test_panes_have_their_clusters_mean_colour() -> None:
    labels = np.repeat([[3, 9]], 12, 0).repeat(8, 1)
    glass = fill_segments(PICTURE, labels).astype(float)
    left = PICTURE[:, :8].reshape(-1, 3).mean(0)
    assert glass[:, :8].reshape(-1, 3).mean(0) == pytest.approx(left, abs=1)
    assert glass[:, :8].std() < 0.5 * PICTURE[:, :8].std()


def test_what_was_not_chosen_is_smoked() -> None:
    mask = torch.zeros(1, 3, 4, dtype=torch.bool)
    mask[0, 1, 2] = True
    pixels, labels = draw_segments(PICTURE, LayerRecord("filter", (3, 4), {"mask": mask}), 0)
    chosen = np.s_[4:8, 8:12]
    assert np.array_equal(pixels[chosen], PICTURE[chosen]) and labels.sum() == 1
    pixels[chosen] = 0
    assert pixels.max() <= 0.28 * 255 + 1


def test_a_window_has_a_panel_for_each_layer(tmp_path: Path) -> None:
    layers = {
        "stages.0": cluster([0, 0, 1], [2, 2, 1]),
        "heat": LayerRecord("attention", (2, 3), {"map": torch.randn(1, 2, 3)}),
        "rows": LayerRecord("attention", None, {"rows": torch.randn(1, 6)}),
    }
    assert list(drawable(layers)) == ["stages.0", "heat"]
    assert worth_drawing(layers) and worth_drawing({"stages.0": layers["stages.0"]})
    assert not worth_drawing({"heat": layers["heat"]}) and not worth_drawing({})
    figure = draw_layers(PICTURE, layers, 0, "cluster_map of run")
    assert len(figure.axes) == 3
    assert format_layer(layers["stages.0"], 0) == "cluster 2 x 3, 3 clusters"
    save(figure, tmp_path / "window.png")


def test_of_several_clusterings_the_first_is_drawn() -> None:
    labels = torch.tensor([[[[0, 1], [0, 1]], [[0, 0], [1, 2]]]])
    layer = LayerRecord("cluster", (2, 2), {"labels": labels})
    assert draw_segments(PICTURE, layer, 0)[1].tolist() == [[0, 1], [0, 1]]
    assert format_layer(layer, 0) == "cluster 2 x 2, 2 clusters (1st of 2)"


def test_frequencies_are_no_mask_but_a_map() -> None:
    often = torch.tensor([[[0.2, 0.9], [0.5, 0.0]]])
    pixels, labels = draw_segments(PICTURE, LayerRecord("random", (2, 2), {"mask": often}), 0)
    assert labels is None and len(np.unique(pixels.reshape(-1, 3), axis=0)) == 4


def test_many_layers_are_thinned_evenly() -> None:
    names = [str(i) for i in range(40)]
    some = evenly(names, 16)
    assert len(some) == 16 and (some[0], some[-1]) == ("0", "39")
    assert evenly(names[:5], 16) == names[:5]


def test_cells_are_enlarged_by_the_nearest() -> None:
    wide = upsample_nearest(np.array([[1, 2], [3, 4]]), (5, 4))
    assert wide.tolist() == [[1, 1, 2, 2]] * 2 + [[3, 3, 4, 4]] * 3
