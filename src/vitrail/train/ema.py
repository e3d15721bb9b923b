"""Exponential moving average of the weights, with a decay that grows at the start."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def create_ema(model: nn.Module, decay: float) -> AveragedModel:
    """torch's AveragedModel, buffers copied, its counter ``n_averaged`` part of the state dict.

    Update n uses ``min(decay, (1 + n) / (10 + n))`` (TensorFlow's rule), so that short runs are
    averaged over their end and not over their start.
    """

    def average(ema: Sequence[Tensor], current: Sequence[Tensor], count: Any) -> None:
        n = float(count)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(ema, current, count)

    ema = AveragedModel(model, multi_avg_fn=average, use_buffers=False)
    ema.requires_grad_(False)
    return ema.eval()
