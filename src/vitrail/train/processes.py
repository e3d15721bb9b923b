"""What training uses of accelerate, for one process or many.

accelerate keeps its state in globals that live as long as the process. Every run starts with a
fresh one, so that runs of different precision can follow each other.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vitrail.errors import UserError

T = TypeVar("T")
_NAMES = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def start_accelerator(precision: str, accumulate: int = 1) -> Any:
    """An ``accelerate.Accelerator`` for this run; processes come from torchrun or accelerate.

    Raises:
        UserError: fp16 without a GPU.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state()
    GradientState._reset_state()
    accelerator = Accelerator(mixed_precision=_NAMES[precision], cpu=_on_cpus())
    if precision == "fp16" and accelerator.device.type == "cpu":
        raise UserError("precision fp16 needs a GPU; on a CPU use bf16 or fp32")
    return accelerator


def _on_cpus() -> bool:
    """Whether there are several processes and no GPU; accelerate does not detect that."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.accelerator.is_available()


def leave_group() -> None:
    """End this process's part in a training of several, for one that ends after it.

    What is left to the end of the interpreter makes torch abort it now and then, when all was done
    (pytorch issue 190489). Only after success: others may still wait where this one failed.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def run_on_main(accelerator: Any, work: Callable[[], T]) -> T:
    """Do ``work`` in the first process; all get its result, or its UserError."""
    if accelerator.num_processes == 1:
        return work()
    from accelerate.utils import broadcast_object_list

    answer: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            answer = [work(), None]
        except UserError as error:
            answer = [None, str(error)]
    broadcast_object_list(answer)
    if answer[1] is not None:
        raise UserError(answer[1])
    return answer[0]


def is_sharded(accelerator: Any) -> bool:
    """Whether each process holds only its shard of the parameters (FSDP)."""
    from accelerate.utils import DistributedType

    return bool(accelerator.distributed_type == DistributedType.FSDP)


@dataclass(frozen=True)
class SyncState:
    """What all processes know after every update; the same in each."""

    loss: float
    stop: bool
    save: bool
    seconds: float


def all_reduce_state(
    accelerator: Any, loss: Tensor, *, stop: bool, save: bool, seconds: float
) -> SyncState:
    """Mean loss; stop if any process was asked to; the first process's clock decides the rest."""
    if accelerator.num_processes == 1:
        return SyncState(float(loss), stop, save, seconds)
    mine = torch.tensor([float(loss), stop, save, seconds], device=accelerator.device)
    everyone = accelerator.gather(mine[None]).cpu().double()
    return SyncState(
        loss=float(everyone[:, 0].mean()),
        stop=bool(everyone[:, 1].max()),
        save=bool(everyone[0, 2]),
        seconds=float(everyone[0, 3]),
    )


def sync_gradients(
    accelerator: Any, model: nn.Module, *, last: bool
) -> AbstractContextManager[Any]:
    """Gradients of the processes are averaged in the last micro-batch of an update."""
    return nullcontext() if last else accelerator.no_sync(model)


def broadcast_buffers(accelerator: Any, module: nn.Module) -> None:
    """Send the first process's buffers (running statistics) to all processes."""
    if accelerator.num_processes == 1:
        return
    from accelerate.utils import broadcast

    for buffer in module.buffers():
        broadcast(buffer)


def gather_interleaved(accelerator: Any, mine: Tensor, count: int) -> Tensor:
    """All rows in their order, where process r holds rows r, r + world, ... (see ``shares``)."""
    if accelerator.num_processes == 1:
        return mine
    world = accelerator.num_processes
    everyone = accelerator.gather(mine.to(accelerator.device)).cpu()
    return everyone.unflatten(0, (world, -1)).transpose(0, 1).flatten(0, 1)[:count]
