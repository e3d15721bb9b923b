"""Pictures a second of two calls that handle different numbers of pictures."""

import json
from pathlib import Path

import pytest

from benchmarks import contract, loader
from vitrail import data
from vitrail.cost.timing import Timing, TimingWindow, WarmUp


def timing(seconds: float) -> Timing:
    windows = (TimingWindow(round=0, calls=1, seconds=seconds, own=1.0, foreign=0.0),)
    warmup = WarmUp(calls=1, seconds=2.0, settled=True)
    return Timing(name="x", threads=1, windows=windows, warmup=warmup)


def test_the_ratio_is_per_picture() -> None:
    """100 pictures in 2 s are 50 a second; a batch of 5 in 0.5 s is 10 a second."""
    reading, training = loader.rows(
        {"loader, 1 workers": timing(2.0), "training": timing(0.5)},
        {"loader, 1 workers": 100, "training": 5},
        loader.Options(),
    )
    assert reading["images_per_s"] == pytest.approx(50)
    assert training["images_per_s"] == pytest.approx(10)
    assert reading["against"][0]["ratio"] == pytest.approx(5)
    assert training["against"] == []
    assert loader.BARS[1].judge([reading, training])["held"] == 1


def test_generated_photos_are_a_folder_of_classes(tmp_path: Path) -> None:
    found = data.open_dataset(loader.photos(tmp_path, count=8, edge=32))
    assert len(found.classes) == 4
    assert len(found.items) == 8
    assert found.read(found.items[0]).size == (32, 32)


def test_a_small_run_keeps_the_contract(tmp_path: Path) -> None:
    options = loader.Options(
        model="vit_tiny(depth=1)",
        image=32,
        batch=4,
        count=8,
        workers=(0,),
        rounds=1,
        warmup_s=0.01,
        threads=1,
        out=tmp_path,
    )
    result = json.loads(loader.main(options).read_text())
    assert contract.faults(result) == []
    assert [row["arm"] for row in result["rows"]] == ["loader, 0 workers", "training"]
