"""Peak memory of a forward or a training step, in a process of its own.

this process --text and conditions--> python -m vitrail.cost.probe --bytes--> this process

A process that has done other things keeps freed memory and so hides what a model needs; hence the
fresh one. It imports, builds, rehearses the same step on a toy (so that libraries loaded at first
use are not blamed on the model), and then measures.
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass

from vitrail.cost.candidates import DEFAULT_BUILD, Build, Settings, name_build
from vitrail.errors import UserError


@dataclass(frozen=True, kw_only=True)
class MemoryJob:
    """The fresh process's task, as JSON."""

    model: str
    build: str
    train: bool
    settings: Settings
    limit: int | None = None

    def to_json(self) -> str:
        """As text for the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "MemoryJob":
        """The inverse."""
        fields = json.loads(text)
        return cls(**{**fields, "settings": Settings(**fields["settings"])})


def memory(
    model_text: str,
    image: int = 224,
    batch: int = 8,
    train: bool = False,
    *,
    build: Build | str = DEFAULT_BUILD,
    settings: Settings | None = None,
    limit: int | None = None,
    seconds: float | None = None,
) -> int:
    """Peak bytes of one forward, or with ``train`` of a training step (AdamW), weights included.

    On the CPU: the peak of resident memory above what the process held before the step, plus the
    size of the weights. On a GPU: torch's ``max_memory_allocated``. ``settings`` gives the other
    conditions (classes, threads, precision, device); its image and batch are not used. ``limit``
    bytes are the most the fresh process may take (Linux): without it a model that is too large can
    bring down others on the machine. ``seconds`` are the most it may take in time.

    Raises:
        UserError: the model cannot be built or run so, there is not enough memory, or time is up.
    """
    conditions = {**asdict(settings or Settings()), "image": image, "batch": batch}
    job = MemoryJob(
        model=model_text,
        build=name_build(build),
        train=train,
        settings=Settings(**conditions),
        limit=limit,
    )
    try:
        done = _run_probe(job, seconds)
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"{model_text}: memory could not be measured within {seconds:.0f} s; this machine is "
            "busy, or the model large"
        ) from error
    if done.returncode == -signal.SIGKILL:
        raise UserError(f"{model_text}: memory ran out at {image} px, batch {batch}; use a smaller")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{model_text}: memory could not be measured: {last}")
    return int(json.loads(done.stdout.splitlines()[-1])["peak"])


def _run_probe(job: MemoryJob, seconds: float | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vitrail.cost.probe", job.to_json()],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        # What can be imported here can be imported there, installed or not.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
    )
