"""One thread: the tests share a small machine, and two threads may round differently."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
