"""The fresh process in which memory is measured: ``python -m vitrail.cost.probe JOB``.

import -> build -> rehearse on a toy -> reset the peak -> two steps -> {"peak": bytes}
"""

import ctypes
import gc
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, scaled_dot_product_attention

from vitrail.cost.candidates import Settings, build_on_device, forward
from vitrail.cost.peak import MemoryJob
from vitrail.cost.step import TrainingStep
from vitrail.cost.timing import use_threads

STEPS = 2
"""The optimiser's state exists from the second training step on."""


def main(text: str) -> None:
    """Measure what the JSON text asks for and print one line of JSON."""
    job = MemoryJob.from_json(text)
    if job.limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (job.limit, job.limit))
    model = build_on_device(job.model, job.settings, job.build)
    make = TrainingStep if job.train else _forward
    with use_threads(job.settings.threads):
        peak = gpu_peak if job.settings.device.startswith("cuda") else cpu_peak
        print(json.dumps({"peak": peak(model, make, job.settings)}))


def cpu_peak(model: nn.Module, make: "Make", settings: Settings) -> int:
    """Resident memory's peak above what was held before, plus the weights."""
    toy = make(Toy(settings.in_chans).to(settings.device).eval(), settings)
    toy()
    del toy
    gc.collect()
    trim()
    reset_peak()
    before = resident()
    step = make(model, settings)
    for _ in range(STEPS):
        step()
    return max(0, peak_resident() - before) + weights(model)


def gpu_peak(model: nn.Module, make: "Make", settings: Settings) -> int:
    """The peak of memory that torch allocated on the GPU; the weights are there already."""
    make(Toy(settings.in_chans).to(settings.device).eval(), settings)()
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step = make(model, settings)
    for _ in range(STEPS):
        step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


Make = Callable[[nn.Module, Settings], Callable[[], object]]


def _forward(model: nn.Module, settings: Settings) -> Callable[[], object]:
    return forward(model, settings, batch=settings.batch)


def weights(model: nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


class Toy(nn.Module):
    """A model too small to matter that calls the operators real ones call.

    Without it, the pages of library code that a first call brings to memory (10 MB and more) would
    be blamed on the model.
    """

    def __init__(self, in_chans: int, dim: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(in_chans, dim, 4, stride=4, padding=2)
        self.local = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.batch_norm = nn.BatchNorm2d(dim)
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.head = nn.Linear(dim, 2)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, 2)``."""
        x = adaptive_avg_pool2d(self.batch_norm(self.local(self.patches(x))), 8)
        x = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(x)).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        x = x + scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + q.softmax(dim=-2).transpose(-2, -1).matmul(v).mean((-2, -1)).sum()
        out: Tensor = self.head((x + self.mlp(x)).mean(1))
        return out

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Nothing to save."""


def trim() -> None:
    """Give freed memory back to the system, where the C library can (glibc)."""
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is not None:
        give_back(0)


STATUS = Path("/proc/self/status")


def resident() -> int:
    """Bytes of this process in main memory now (outside Linux: its peak so far)."""
    return _status("VmRSS") if STATUS.exists() else _rusage()


def peak_resident() -> int:
    """The most there has been since :func:`reset_peak`.

    Not ``ru_maxrss`` on Linux: a child begins with its parent's there.
    """
    return _status("VmHWM") if STATUS.exists() else _rusage()


def reset_peak() -> None:
    """Forget the peak so far, where the system can (Linux)."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def _status(field: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"{STATUS} has no {field}")


def _rusage() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main(sys.argv[1])
