"""Two processes see what one process with twice the accumulation sees."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tests.train import small
from tests.train.same import largest_difference, rows
from torch import nn

from vitrail import train
from vitrail.errors import UserError
from vitrail.train import checkpoint, processes
from vitrail.train.stop import explain_lost_process, lost_worker_error

ROOT = Path(__file__).parents[2]


def start(module: str, *arguments: str) -> list[subprocess.Popen[str]]:
    """Two processes of ``module``, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", module, *arguments]
    return [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]


def launch(module: str, *arguments: str) -> list[subprocess.CompletedProcess[str]]:
    """Two processes of ``module`` to their end."""
    ended = []
    for process in start(module, *arguments):
        output, _ = process.communicate(timeout=120)
        ended.append(subprocess.CompletedProcess(process.args, process.returncode, output))
    return ended


def test_two_processes_are_one_with_two_parts(tmp_path: Path) -> None:
    recipe = small.recipe(epochs=4, lr=3e-3)
    small.recipe(epochs=4, lr=3e-3).to_yaml(tmp_path / "recipe.yaml")
    ended = launch(
        "tests.train.two_processes",
        *(str(tmp_path / "two"), str(tmp_path / "recipe.yaml"), "plain", str(tmp_path / "state")),
    )
    assert [p.returncode for p in ended] == [0, 0], "\n".join(p.stdout for p in ended)
    small.fit(tmp_path / "one", small.recipe(epochs=4, lr=3e-3, accumulate=2), norm=False)
    small.fit(tmp_path / "other", recipe, norm=False)
    difference = largest_difference(tmp_path / "one", tmp_path / "two")
    assert difference < 1e-4
    # The test can fail: other micro-batches (mixing, dropped paths) lead elsewhere.
    assert largest_difference(tmp_path / "one", tmp_path / "other") > 10 * max(difference, 1e-4)
    for one, two in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert one == pytest.approx(two, rel=1e-4)
    check_sharded_state(tmp_path / "state")


def check_sharded_state(path: Path) -> None:
    """FSDP2 on gloo: what a sharded model saves loads into a whole one, and back."""
    snapshot = checkpoint.load(path)
    model = small.build(norm=False, seed=1)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoint.set_model_state(model, snapshot.model)
    checkpoint.set_optimizer_state(model, optimizer, snapshot.optim)
    again = checkpoint.optimizer_state(model, optimizer)
    assert set(again) == {name for name, _ in model.named_parameters()}
    for name, state in snapshot.optim.items():
        assert torch.equal(state["exp_avg"], again[name]["exp_avg"])


def test_a_process_whose_other_is_killed_says_how_to_go_on(tmp_path: Path) -> None:
    small.recipe(epochs=100_000).to_yaml(tmp_path / "recipe.yaml")
    out = tmp_path / "two"
    first, other = start(
        "tests.train.two_processes", str(out), str(tmp_path / "recipe.yaml"), "plain"
    )
    until = time.monotonic() + 100
    while not (out / "metrics.jsonl").is_file() and time.monotonic() < until:
        time.sleep(0.1)
    other.kill()
    said, _ = first.communicate(timeout=100)
    other.communicate(timeout=100)
    assert "UserError: another process of this training has ended" in said
    assert f"vitrail train --resume {out}" in said


def test_what_is_no_lost_process_stays_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), explain_lost_process(Path("run")):
        raise RuntimeError("shapes differ")


def test_one_of_several_says_itself_that_it_lost_a_worker(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank, count in (("0", "1"), ("0", "2"), ("1", "2")):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", count)
        line = str(lost_worker_error(ValueError("a worker died"), Path("run"), 7))
        kept = "step 7" if count == "1" else "its last checkpoint"
        assert f"the run is kept ({kept}), go on with: vitrail train --resume run" in line
        assert capsys.readouterr().err == (f"vitrail: {line}\n" if rank == "1" else "")


def test_resume_needs_as_many_processes(tmp_path: Path) -> None:
    stop_after_one_epoch(tmp_path / "run")
    saved = checkpoint.load(tmp_path / "run" / checkpoint.NAME)
    saved.world = 3
    checkpoint.save(tmp_path / "run" / checkpoint.NAME, saved)
    with pytest.raises(UserError, match="trained by 3 processes, not 1"):
        small.fit(tmp_path / "run", small.recipe(), resume=True)


def stop_after_one_epoch(out: Path) -> None:
    import signal

    def stop(event: dict[str, object]) -> None:
        if event["kind"] == "epoch":
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(train.Interrupted):
        small.fit(out, small.recipe(), on_event=stop)


def test_runs_of_different_precision_follow_each_other() -> None:
    assert processes.start_accelerator("bf16").mixed_precision == "bf16"
    assert processes.start_accelerator("fp32").mixed_precision == "no"
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        processes.start_accelerator("fp16")
    assert isinstance(processes.start_accelerator("fp32").prepare(nn.Linear(1, 1)), nn.Linear)
