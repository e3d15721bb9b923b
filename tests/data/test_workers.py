"""Workers that die, or have no room to hand over what they read."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.data.corpus import small_set, write

from vitrail.data import (
    ImageTensors,
    Loader,
    Preprocess,
    WorkerError,
    open_dataset,
    sequential_order,
)
from vitrail.data import loader as loading
from vitrail.data.workers import explain_worker_error, free_shared_memory, limit_workers


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> ImageTensors:
    found = open_dataset(write(tmp_path_factory.mktemp("set"), small_set("abc", each=6)))
    return ImageTensors(found, found.split("train"), Preprocess(image=16).transform(), 0)


MB = 2**20


@pytest.mark.parametrize(
    ("workers", "batch", "free", "wanted"),
    [
        (2, 10 * MB, float("inf"), (2, 4)),
        (2, 12 * MB, 24 << 30, (2, 4)),
        (2, 10 * MB, 64 * MB, (2, 1)),
        (8, 10 * MB, 64 * MB, (2, 1)),
        (2, 40 * MB, 64 * MB, (0, 0)),
        (2, 10 * MB, 0, (0, 0)),
        (0, 10 * MB, 24 << 30, (0, 0)),
    ],
)
def test_workers_fit_into_shared_memory(
    workers: int, batch: int, free: float, wanted: tuple[int, int]
) -> None:
    chosen = limit_workers(workers, batch, free)
    assert chosen == wanted and (chosen[0] * chosen[1] + 3) * batch <= max(free, 3 * batch)


def test_without_room_pictures_are_read_here_and_that_is_said(
    pictures: ImageTensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert free_shared_memory() > 0
    monkeypatch.setattr(loading, "free_shared_memory", lambda: 4096)
    order = sequential_order(6, batch=4)
    with pytest.warns(UserWarning, match="room for 2 processes that read pictures: none instead"):
        found = list(Loader(pictures, workers=2).epoch(order))
    assert [batch[2].tolist() for batch in found] == order


def test_a_killed_worker_is_one_line_when_a_batch_is_waited_for(pictures: ImageTensors) -> None:
    before = signal.getsignal(signal.SIGCHLD)
    loader = Loader(pictures, workers=1)
    batches = loader.epoch(sequential_order(12, batch=1))
    next(batches)
    assert signal.getsignal(signal.SIGCHLD) is before, "nobody is interrupted between batches"
    for worker in loader._loader._iterator._workers:  # type: ignore[union-attr]
        os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match="was ended by SIGKILL"):
        list(batches)


KILLED_AT_ONCE = """
import os, signal, sys, time
from pathlib import Path
from vitrail.data import ImageTensors, Loader, Preprocess, loader, open_dataset

def late(number, begin=loader.start_worker, reader=os.getpid()):
    Path(sys.argv[1]).write_text(str(os.getpid()))
    os.kill(reader, signal.SIGKILL)
    while os.getppid() == reader:
        time.sleep(0.01)
    begin(number)

loader.start_worker = late
found = open_dataset("fashion")
tensors = ImageTensors(found, found.split("test"), Preprocess(image=16).transform(), 0)
list(Loader(tensors, workers=2).epoch([[0], [1]]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_whose_reader_was_killed_before_it_began_ends_too(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_AT_ONCE, str(tmp_path / "pid")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    stat = Path("/proc", (tmp_path / "pid").read_text(), "stat")
    until = time.monotonic() + 60
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX":
        assert time.monotonic() < until, "the worker lives on"
        time.sleep(0.1)


class Ended:
    def __init__(self, exitcode: int) -> None:
        self.exitcode = exitcode


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("DataLoader worker (pid(s) 7) exited unexpectedly", -signal.SIGBUS, "/dev/shm.* full"),
        ("unable to open shared memory object </torch_1>", 0, "--shm-size"),
        ("[Errno 28] No space left on device", 0, "--shm-size"),
        ("Too many open files. Communication with the workers", 0, "ulimit -n"),
        ("DataLoader worker (pid(s) 7) exited unexpectedly", 1, "ended before its time"),
        ("Connection reset by peer", -signal.SIGKILL, "ended by SIGKILL"),
    ],
)
def test_every_death_has_its_line(text: str, code: int, said: str) -> None:
    line = explain_worker_error(RuntimeError(text), [Ended(code)])  # type: ignore[list-item]
    assert line is not None and re.search(said, line)


def test_other_errors_are_not_taken_for_a_death() -> None:
    assert explain_worker_error(RuntimeError("sizes do not match"), [Ended(0)]) is None  # type: ignore[list-item]
    assert "before its time" in str(explain_worker_error(ConnectionResetError("reset"), []))
