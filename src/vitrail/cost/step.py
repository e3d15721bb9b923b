"""A training step, its three parts timed: forward, backward, optimiser."""

import math
import statistics

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vitrail.cost.candidates import PRECISIONS, Settings
from vitrail.cost.counting import example
from vitrail.cost.watch import CudaStopwatch, Stopwatch
from vitrail.errors import UserError

PARTS = ("forward", "backward", "optimiser")


class TrainingStep:
    """A call that does forward, loss, backward and an AdamW step on the same noise.

    The model is set to training mode. ``settings`` give size, batch, precision (autocast), graph
    (``compiled``: forward and backward) and whether to keep activations or to compute them again
    (``checkpointing``).

    Raises:
        UserError: checkpointing is asked for and the model has none.
    """

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        self.settings = settings
        self.model = model.train()
        if settings.checkpointing:
            enable_checkpointing(model)
        self.pictures = example(
            model, settings.image, batch=settings.batch, in_chans=settings.in_chans
        )
        device = self.pictures.device
        self.labels = torch.zeros(settings.batch, dtype=torch.long, device=device)
        self.optimiser = torch.optim.AdamW(model.parameters())
        self.run = torch.compile(model, dynamic=False) if settings.graph == "compiled" else model
        self.cast = PRECISIONS[settings.precision]
        self.watch = CudaStopwatch() if device.type == "cuda" else Stopwatch()
        self.marks: list[list[object]] = []
        self.first_loss = math.nan

    def __call__(self) -> Tensor:
        """The loss before the step."""
        marks = [self.watch.mark()]
        kind = self.pictures.device.type
        with torch.autocast(kind, dtype=self.cast, enabled=self.cast is not None):
            loss = cross_entropy(self.run(self.pictures), self.labels)
        marks.append(self.watch.mark())
        self.optimiser.zero_grad()
        loss.backward()
        marks.append(self.watch.mark())
        self.optimiser.step()
        marks.append(self.watch.mark())
        self.marks.append(marks)
        if len(self.marks) == 1:
            self.first_loss = float(loss.detach())
        return loss.detach()

    def parts(self, last: int) -> dict[str, float]:
        """Part -> median seconds over the last calls."""
        spent = [self.watch.between(marks) for marks in self.marks[-last:]]
        medians = map(statistics.median, zip(*spent, strict=True))
        return dict(zip(PARTS, medians, strict=True))


def enable_checkpointing(model: nn.Module) -> None:
    """Let a model compute its activations again in the backward pass, by timm's method.

    Raises:
        UserError: it cannot.
    """
    try:
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError) as error:
        raise UserError(f"{type(model).__name__} has no gradient checkpointing") from error
