"""A torchvision that does not fit its torch is one sentence with the cure."""

import importlib

import pytest

from vitrail.errors import UserError
from vitrail.hub import pairing


def refuse_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = importlib.import_module

    def refuse(name: str, package: str | None = None) -> object:
        if name == "torchvision":
            raise error
        return whole(name, package)

    monkeypatch.setattr(pairing.importlib, "import_module", refuse)


def test_a_pair_that_fits_is_no_problem() -> None:
    assert pairing.torchvision_problem() is None
    pairing.require_torchvision()


def test_the_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_with(RuntimeError("operator torchvision::nms does not exist"), monkeypatch)
    problem = pairing.torchvision_problem()
    assert problem is not None
    assert "does not fit torch" in problem
    assert "torchvision::nms" in problem
    assert "pip install --force-reinstall torch torchvision" in problem
    assert "\n" not in problem
    with pytest.raises(UserError, match="from one channel"):
        pairing.require_torchvision()


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_with(ImportError("No module named 'torchvision'"), monkeypatch)
    assert "cannot be imported" in str(pairing.torchvision_problem())


def test_versions_come_from_metadata() -> None:
    assert pairing.installed("torch")[0].isdigit()
    assert pairing.installed("no-such-package") == "(not installed)"
