"""Batch norm needs two values a channel: one image at a time with maps of 1 x 1 is too few."""

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vitrail.errors import UserError
from vitrail.train.recipe import Recipe
from vitrail.train.sampling import BatchSchedule


def check_batch_norm(
    model: nn.Module, name: str, shape: tuple[int, int, int], *, recipe: Recipe, count: int,
    world: int = 1,
) -> None:  # fmt: skip
    """Refuse a training that its first update would end.

    Args:
        model: about to be trained; not touched.
        name: what people call it.
        shape: of one image, ``(C, H, W)``.
        recipe: its batch is cut into ``accumulate`` parts in each of ``world`` processes.
        count: training images.

    Raises:
        UserError: a part of a batch is one image, and a batch norm would see one value a channel;
            or the images are too few for the parts.
    """
    batch_schedule = BatchSchedule.create(
        count=count, batch=recipe.batch, accumulate=recipe.accumulate, world=world, rank=0, seed=0
    )
    if batch_schedule.microbatch_size > 1 or not any(
        isinstance(part, _BatchNorm) for part in model.modules()
    ):
        return
    try:
        _forward_one(model, shape)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        slots = batch_schedule.batch
        raise UserError(
            f"{name} cannot be trained on one picture at a time: its batch norm needs two values "
            f"or more, and its smallest map is 1 x 1. {count} training pictures in batches of "
            f"{recipe.batch}, each in {slots} parts, make parts of one picture; give at least "
            f"{2 * slots} pictures and a batch of {2 * slots} or more, or a larger image"
        ) from error


def _forward_one(model: nn.Module, shape: tuple[int, int, int]) -> None:
    """One blank image through a copy in training mode; chance and running figures stay."""
    like = next(model.parameters())
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        copy.deepcopy(model).train()(torch.zeros(1, *shape, device=like.device, dtype=like.dtype))
