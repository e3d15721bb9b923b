"""Trains in forked children and kills them with SIGKILL at seeded random moments.

    python -m tests.train.kill_launcher FOLDER SEED KILLS

``FOLDER/whole`` is never killed. ``FOLDER/killed-1`` is killed again and again, each time after a
random wait; should it reach its end, ``killed-2`` begins, until KILLS kills have hit and the run
has come to its end. torch is imported once, here, and no thread is started before a fork.
"""

import importlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tests.train import small

from vitrail.train.checkpoint import NAME

# What a training imports late; imported here, a child starts in a tenth of a second.
HEAVY = (
    "accelerate",
    "timm.optim",
    "timm.scheduler.cosine_lr",
    "torch._dynamo",
    "torch.distributed.checkpoint.state_dict",
    "torchmetrics.functional.classification",
    "torchvision.transforms.v2",
    "vitrail.cost",
)
RECIPE = {"epochs": 20, "checkpoint_steps": 2, "patience": 0, "validate_every": 2}


def spawn(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        torch.set_num_threads(1)
        work()
        os._exit(0)
    except BaseException as error:  # a child must not go on as the launcher
        print(f"child: {error!r}", file=sys.stderr, flush=True)
        os._exit(1)


def ended(pid: int, wait: float) -> int | None:
    """The status of ``pid`` if it ends within ``wait`` seconds."""
    until = time.monotonic() + wait
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        time.sleep(0.002)
    return None


def kill_again_and_again(root: Path, chance: random.Random, kills: int, longest: float) -> int:
    """Runs in ``root/killed-1``, ``-2``, ... until KILLS kills have hit; the last one ends."""
    hits, number = 0, 1
    while True:
        out = root / f"killed-{number}"
        pid = spawn(lambda out=out: small.fit(out, small.recipe(**RECIPE), resume=True))
        status = ended(pid, chance.uniform(0.0, longest) if hits < kills else 600)
        if status is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            hits += 1
            note(out, hits)
        elif status != 0:
            raise SystemExit(f"a child failed after {hits} kills (status {status})")
        elif hits == kills:
            return number
        else:
            number += 1


def note(out: Path, hits: int) -> None:
    """Where each kill hit: no folder yet, or the step of the checkpoint it left."""
    from vitrail.train import checkpoint

    left = "nothing yet"
    if (out / NAME).is_file():
        left = f"step {checkpoint.load(out / NAME).progress.step}"
    drafts = sorted(p.name for p in out.glob(".*tmp")) if out.is_dir() else []
    print(f"kill {hits}: {left} {drafts}", flush=True)


def main(folder: str, seed: str, kills: str) -> None:
    torch.set_num_threads(1)
    for name in HEAVY:
        importlib.import_module(name)
    small.clothes()
    small.build()
    root = Path(folder)
    began = time.monotonic()
    whole = spawn(lambda: small.fit(root / "whole", small.recipe(**RECIPE)))
    if os.waitpid(whole, 0)[1] != 0:
        raise SystemExit("the whole run failed")
    longest = 0.1 + (time.monotonic() - began) / 6
    chance = random.Random(int(seed))
    print("runs", kill_again_and_again(root, chance, int(kills), longest))


if __name__ == "__main__":
    main(*sys.argv[1:])
