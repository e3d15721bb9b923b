"""Runs that start from runs: what all of them trained on."""

import json
from pathlib import Path

import pytest

from vitrail.data import write_manifest
from vitrail.data.dataset import ImageDataset
from vitrail.data.items import Item
from vitrail.train.lineage import read_history


def run(folder: Path, origin: object = None, **parts: str) -> Path:
    """A run folder as far as its history goes: manifest and facts."""
    folder.mkdir()
    items = {p: tuple(Item(d, 0, p, d) for d in marks) for p, marks in parts.items()}
    pictures = ImageDataset("photos", ("a", "b"), (), (), None)  # type: ignore[arg-type]
    write_manifest(folder / "manifest.json", pictures, items)
    facts = {"fraction": 0.5} | ({} if origin is None else {"from": {"run": str(origin)}})
    (folder / "run.json").write_text(json.dumps(facts), "utf-8")
    return folder


def test_the_runs_before_count_too(tmp_path):
    first = run(tmp_path / "1", train="a", val="bc")
    (first / "best.safetensors").touch()
    second = run(tmp_path / "2", first / "best.safetensors", train="b", val="d")
    third = run(tmp_path / "3", second, train="e", val="f")
    history = read_history(third)
    assert history is not None and not history.gaps and history.share == 0.5
    assert {m for m, part in history.parts.items() if part == "train"} == set("abe")
    assert {m for m, part in history.parts.items() if part == "val"} == set("cdf")
    (third / "best.safetensors").touch()
    by_file = read_history(third / "best.safetensors")
    assert by_file is not None and by_file.parts == history.parts


def test_a_run_that_is_gone_is_said(tmp_path):
    history = read_history(run(tmp_path / "2", tmp_path / "gone", train="b"))
    assert history is not None and history.gaps == (str(tmp_path / "gone"),)
    assert "not known what" in history.line([], 0, "photos").line


def test_circles_end(tmp_path):
    history = read_history(run(tmp_path / "1", tmp_path / "1", train="a"))
    assert history is not None and history.parts == {"a": "train"}


@pytest.mark.parametrize("origin", [None, {"from": 3}, {"from": {"run": ["x"]}}])
def test_weights_alone_have_no_history(tmp_path, origin):
    (tmp_path / "w.safetensors").touch()
    assert read_history(tmp_path / "w.safetensors", origin) is None


def test_weights_alone_may_name_their_run(tmp_path):
    origin = run(tmp_path / "1", train="a")
    (tmp_path / "w.safetensors").touch()
    history = read_history(tmp_path / "w.safetensors", {"from": {"run": str(origin)}})
    assert history is not None and history.parts == {"a": "train"}
