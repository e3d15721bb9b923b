"""Freed memory is kept within the block, and goes back after it."""

import platform
from pathlib import Path

import pytest
import torch

from vitrail.train.heap import keep_freed_memory


def resident() -> int:
    """Bytes that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_stays_within_and_goes_back_after() -> None:
    size = 2**28
    before = resident()
    with keep_freed_memory():
        for _ in range(2):
            block = torch.ones(size, dtype=torch.uint8)
            del block
        assert resident() - before > size // 2
    assert resident() - before < size // 2


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("asked"))
    with keep_freed_memory():
        assert torch.ones(3).sum() == 3
