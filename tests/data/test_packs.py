"""The shared packs of real pictures, read in place; skipped where they are absent."""

import os
from pathlib import Path

import numpy as np
import pytest

from vitrail.data import Augment, ImageTensors, Loader, Preprocess, epoch_order, open_dataset

HERE = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("VITRAIL_SHARED", HERE.parent / "shared")) / "data"


def pack(name: str) -> Path:
    path = SHARED / name / f"{name}.zip"
    if not path.exists():
        pytest.skip(f"the shared pack {path} is absent")
    return path


def test_clothing_is_read_in_place():
    pictures = open_dataset(pack("clothing-192"))
    assert len(pictures.classes) == 10 and pictures.problems == ()
    assert [len(pictures.split(s)) for s in ("train", "val", "test")] == [3068, 341, 372]
    assert dict(zip(pictures.classes, pictures.counts("test"), strict=True))["shoes"] == 73
    means = np.mean([np.asarray(pictures.read(i)).mean((0, 1)) for i in pictures.items[:300:3]], 0)
    assert 90 < means.min() < means.max() < 170


def test_flowers_known_faults_are_found():
    pictures = open_dataset(pack("flowers-160"))
    kinds = [problem.kind for problem in pictures.problems]
    assert kinds.count("two-labels") == 1 and kinds.count("duplicate") == 2
    assert sum(pictures.counts("train")) == 2934 - 4


def test_two_workers_share_a_zip():
    pictures = open_dataset(pack("flowers-160"))
    transform = Augment().transform(Preprocess(image=32))
    data = ImageTensors(pictures, pictures.split("val")[:48], transform, seed=0)
    order = epoch_order(len(data), batch=8, seed=0, epoch=0)
    found = [list(Loader(data, workers=w).epoch(order)) for w in (0, 2)]
    for one, other in zip(*found, strict=True):
        assert (one[0] == other[0]).all()
