"""The doctor's findings."""

import importlib
from pathlib import Path

import pytest

from vitrail.errors import UserError
from vitrail.hub import doctor


def test_this_machine_is_well(tmp_path: Path) -> None:
    found = doctor.examine(tmp_path)
    assert [f.about for f in found if not f.ok] == []
    assert {"python", "torch", "torchvision", "processor", "memory", "GPU"} <= {
        f.about for f in found
    }
    assert all(f.found for f in found)


def test_drafts_of_earlier_versions_are_named(tmp_path: Path) -> None:
    assert doctor.old_drafts(tmp_path) == []
    (tmp_path / ".run.starting").mkdir()
    assert ".run.starting" in doctor.old_drafts(tmp_path)[0].found


def test_a_mismatched_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "torchvision_problem", lambda: "they differ: reinstall both")
    finding = doctor.torchvision_pair()
    assert not finding.ok
    assert finding.cure == "they differ: reinstall both"


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "NEEDED", ("numpy", "no-such-package"))
    finding = doctor.packages()
    assert not finding.ok
    assert finding.cure == "pip install no-such-package"


def test_a_missing_extra_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"no_such_module": "parquet"})
    finding = doctor.extras()
    assert finding.ok
    assert "pip install 'vitrail[parquet]'" in finding.cure


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    finding = doctor.writable(tmp_path / "absent")
    assert not finding.ok
    assert "cannot be written" in finding.found


def test_needed_packages_are_the_declared_ones() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    declared = {text.split(">")[0] for text in project["dependencies"]}
    assert declared == {*doctor.NEEDED, "torch", "torchvision"}


# ---- torch and torchvision


def refuse_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = importlib.import_module

    def refuse(name: str, package: str | None = None) -> object:
        if name == "torchvision":
            raise error
        return whole(name, package)

    monkeypatch.setattr(doctor.importlib, "import_module", refuse)


def test_a_pair_that_fits_is_no_problem() -> None:
    assert doctor.torchvision_problem() is None
    doctor.require_torchvision()


def test_the_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_with(RuntimeError("operator torchvision::nms does not exist"), monkeypatch)
    problem = doctor.torchvision_problem()
    assert problem is not None
    assert "does not fit torch" in problem
    assert "torchvision::nms" in problem
    assert "pip install --force-reinstall torch torchvision" in problem
    assert "\n" not in problem
    with pytest.raises(UserError, match="from one channel"):
        doctor.require_torchvision()


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_with(ImportError("No module named 'torchvision'"), monkeypatch)
    assert "cannot be imported" in str(doctor.torchvision_problem())


def test_versions_come_from_metadata() -> None:
    assert doctor.version_of("torch")[0].isdigit()
    assert doctor.version_of("no-such-package") == "(not installed)"
