"""Optimiser and schedule, from timm: which parameter learns how fast, and when."""

from typing import Any

from torch import nn
from torch.optim import Optimizer

from vitrail.errors import UserError, unknown
from vitrail.train.recipe import Recipe

#: In a run measured in seconds the schedule has this many steps.
TICKS = 10_000
_FIRST = 1e-3


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Every trained parameter in exactly one group.

    Biases, norms and ``model.no_weight_decay()`` get no weight decay; with ``layer_decay`` below
    1 the groups of ``model.group_matcher()`` get a smaller learning rate the nearer they are to
    the image (BEiT). A parameter that stands under two names counts under its first.
    """
    from timm.optim import param_groups_layer_decay, param_groups_weight_decay

    exempt: set[str] = getattr(model, "no_weight_decay", set)()
    if recipe.layer_decay < 1:
        return param_groups_layer_decay(
            model,
            recipe.weight_decay,
            no_weight_decay_list=exempt,
            layer_decay=recipe.layer_decay,
        )
    return param_groups_weight_decay(model, recipe.weight_decay, no_weight_decay_list=exempt)


def create_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """The optimiser that the recipe names.

    Raises:
        UserError: timm has no such optimiser, or it does not work here.
    """
    from timm.optim import create_optimizer_v2

    check_name(recipe.optimizer)
    try:
        return create_optimizer_v2(
            parameter_groups(model, recipe),
            opt=recipe.optimizer,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
        )
    except (AssertionError, ImportError, RuntimeError) as error:  # those of bitsandbytes and apex
        why = " ".join(str(error).split())
        raise UserError(f"the optimizer {recipe.optimizer!r} does not work here: {why}") from error


def check_name(name: str) -> None:
    """Refuse optimisers that there are not, or that need derivatives twice (adahessian).

    Raises:
        UserError: the name is of such a one.
    """
    from timm.optim import get_optimizer_info, list_optimizers

    if name not in list_optimizers():
        raise unknown("optimizer", name, list_optimizers())
    if get_optimizer_info(name).second_order:
        raise UserError(f"the optimizer {name!r} needs second derivatives; choose another")


class Schedule:
    """Cosine with warm-up: the learning rate as a pure function of how far the run is.

    ``total`` is the number of updates, or :data:`TICKS` where a run is measured in seconds.
    """

    def __init__(self, optimizer: Optimizer, recipe: Recipe, total: int) -> None:
        from timm.scheduler.cosine_lr import CosineLRScheduler

        self.total = max(total, 2)
        self.cosine = CosineLRScheduler(
            optimizer,
            t_initial=self.total,
            lr_min=recipe.min_lr,
            warmup_t=round(recipe.warmup * self.total),
            warmup_lr_init=min(recipe.lr * _FIRST, recipe.min_lr),
            t_in_epochs=False,
        )

    def set(self, done: float) -> None:
        """Set the learning rates for the share ``done`` (0 to 1) of the run."""
        self.cosine.step_update(round(done * self.total))
