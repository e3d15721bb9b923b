"""Two processes shard a model (FSDP2, gloo), take a step and save the whole state."""

from pathlib import Path

import torch
import torch.distributed as dist
from tests.train import small
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from vitrail.train import checkpoint
from vitrail.train.checkpoint import Snapshot, TrainingProgress


def save_and_load(path: Path) -> None:
    """In each of the processes, whose group there is already."""
    whole, model = small.build(norm=False).eval(), small.build(norm=False).eval()
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    # eps: a gradient that is zero but for rounding (the keys' bias) must not decide a step.
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-2, eps=0.1) for m in (whole, model)]
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for module, optimizer in zip((whole, model), optimizers, strict=True):
        module(images).square().sum().backward()
        optimizer.step()
    state = checkpoint.model_state(model)
    optim = checkpoint.optimizer_state(model, optimizers[1])
    if dist.get_rank() == 0:
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(state[name], value)
        checkpoint.save(
            path,
            Snapshot(
                progress=TrainingProgress(), model=state, ema={}, best={}, optim=optim, scaler={}
            ),
        )
    dist.barrier()
    saved = checkpoint.load(path)
    fresh = small.build(norm=False, seed=2).eval()
    fully_shard(fresh, mesh=init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.AdamW(fresh.parameters(), lr=1e-2)
    checkpoint.set_model_state(fresh, saved.model)
    checkpoint.set_optimizer_state(fresh, optimizer, saved.optim)
    again = checkpoint.optimizer_state(fresh, optimizer)
    if dist.get_rank() == 0:
        for name, values in saved.optim.items():
            assert torch.equal(values["exp_avg"], again[name]["exp_avg"]), name
