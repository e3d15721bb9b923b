"""What all tests share: one thread, and where the shared picture packs lie."""

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors gain nothing from threads, and tests may run side by side."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The workplace's shared folder; tests that need it skip where it is absent."""
    for place in (os.environ.get("VITRAIL_SHARED"), Path(__file__).parents[2] / "shared"):
        if place and Path(place).is_dir():
            return Path(place)
    pytest.skip("the shared folder (VITRAIL_SHARED or ../shared) is not here")
