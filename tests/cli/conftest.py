"""One tiny run, trained once, and a way to give commands inside this process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from vitrail.cli import main

TINY = "vit_tiny(patch=8,dim=24,heads=3,depth=1)"


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on stderr, without our name; nothing may stand on stdout."""
        assert self.out == "", self.out
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("vitrail: ")
        return lines[0].removeprefix("vitrail: ")


Give = Callable[..., Said]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def give(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Give:
    """Give a command in an empty folder; what it said and its status."""
    monkeypatch.chdir(tmp_path)

    def give_it(*words: object) -> Said:
        capsys.readouterr()
        status = main([str(word) for word in words])
        said = capsys.readouterr()
        return Said(status, said.out, said.err)

    return give_it


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two updates on 32 px scenes."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    settings = ("batch=16", "workers=0", "mixup=0", "cutmix=0")
    words = ["train", "fashion", "--model", TINY, "--image", "32", "--epochs", "1"]
    status = main([*words, "--fraction", "0.02", "--out", str(out), "--set", *settings])
    assert status == 0
    return out


@pytest.fixture(scope="session")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "tiny-torch"
    assert main(["export", str(tiny_run), "--format", "torch", "--out", str(out)]) == 0
    return out
