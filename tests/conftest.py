"""What all tests share: one thread, where picture packs lie, a hub in place of the real one."""

import gc
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from tests.hub.endpoint import Endpoint, serve

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, at import; no test asks a net
os.environ.pop("VITRAIL_WEIGHTS", None)

from vitrail.attribution import Method, base  # noqa: E402

OpenHub = Callable[..., Endpoint]


def pytest_collection_finish() -> None:
    """What imports and collection made stays: the garbage collector passes it over."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors gain nothing from threads, and tests may run side by side."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def own_trust(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Plugins that tests name are trusted for the tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture
def own_methods(monkeypatch: pytest.MonkeyPatch) -> dict[str, Method]:
    """The registry of explanations, to be changed for one test.

    All are registered first: a module imported while its registry is away would be forgotten.
    """
    own = base.methods()
    monkeypatch.setattr(base, "_KNOWN", own)
    return own


@pytest.fixture(scope="session")
def shared() -> Path:
    """The workplace's shared folder; tests that need it skip where it is absent."""
    for place in (os.environ.get("VITRAIL_SHARED"), Path(__file__).parents[2] / "shared"):
        if place and Path(place).is_dir():
            return Path(place)
    pytest.skip("the shared folder (VITRAIL_SHARED or ../shared) is not here")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with 256 kB of room; skips where none can be made."""
    disk = tmp_path / "small-disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here (needs root)")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def hub_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenHub]:
    """``hub_server(repositories, fault)`` starts one with an empty cache, for its client and us."""
    from huggingface_hub import constants

    def start(repositories: dict[str, dict[str, bytes]], fault: str = "") -> Endpoint:
        endpoint = servers.enter_context(serve(repositories, fault))
        template = endpoint.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        return endpoint

    with ExitStack() as servers:
        yield start
