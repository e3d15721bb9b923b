"""The doctor's findings."""

from pathlib import Path

import pytest

from vitrail.hub import health


def test_this_machine_is_well(tmp_path: Path) -> None:
    found = health.examine(tmp_path)
    assert [f.about for f in found if not f.ok] == []
    assert {"python", "torch", "torchvision", "processor", "memory", "GPU"} <= {
        f.about for f in found
    }
    assert all(f.found for f in found)


def test_a_mismatched_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "torchvision_problem", lambda: "they differ: reinstall both")
    finding = health.torchvision_pair()
    assert not finding.ok
    assert finding.cure == "they differ: reinstall both"


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "NEEDED", ("numpy", "no-such-package"))
    finding = health.packages()
    assert not finding.ok
    assert finding.cure == "pip install no-such-package"


def test_a_missing_extra_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "EXTRAS", {"no_such_module": "parquet"})
    finding = health.extras()
    assert finding.ok
    assert "pip install 'vitrail[parquet]'" in finding.cure


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    finding = health.writable(tmp_path / "absent")
    assert not finding.ok
    assert "cannot be written" in finding.found


def test_needed_packages_are_the_declared_ones() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    declared = {text.split(">")[0] for text in project["dependencies"]}
    assert declared == {*health.NEEDED, "torch", "torchvision"}
