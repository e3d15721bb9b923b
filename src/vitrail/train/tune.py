"""Which part of a model a training changes: all of it, the head, or the last layers.

What is not trained gets no gradient and stays in evaluation mode, so that its batch norms keep
the statistics they came with and its dropout is off, whatever ``model.train()`` says. With
``freeze_norms`` all batch norms do so, though their scales and shifts learn.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vitrail.errors import UserError
from vitrail.hub.origin import origin_of
from vitrail.train.recipe import TUNE_ALL, TUNE_HEAD, Recipe


def freeze_parts(model: nn.Module, recipe: Recipe) -> None:
    """Freeze what ``recipe.tune`` leaves out, and norms where it asks for that. Twice is once.

    Raises:
        UserError: a model without a head or without layers to count, or with fewer layers.
    """
    if recipe.tune != TUNE_ALL:
        trained = head_parameters(model) if recipe.tune == TUNE_HEAD else last_layers(model, recipe)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained)
        _hold(model, _hold_frozen_in_evaluation)
    if recipe.freeze_norms and any(batch_norms(model)):
        _hold(model, _hold_norms_in_evaluation)


def batch_norms(model: nn.Module) -> Iterator[nn.Module]:
    """The parts that keep statistics over batches."""
    return (part for part in model.modules() if isinstance(part, _BatchNorm))


def _hold(model: nn.Module, hook: Callable[[nn.Module, Any], None]) -> None:
    """Let ``hook`` run before each training pass, and once now."""
    if hook not in model._forward_pre_hooks.values():
        model.register_forward_pre_hook(hook)
    hook(model, None)


def head_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters of the head, or of both heads of a model with two.

    Raises:
        UserError: the model does not say which its head is, or has none.
    """
    found = getattr(model, "get_classifier", nn.Identity)()
    heads: tuple[Any, ...] = found if isinstance(found, tuple) else (found,)
    heads = (*heads, getattr(model, "head_dist", nn.Identity()))
    own = {id(p) for head in heads if isinstance(head, nn.Module) for p in head.parameters()}
    if not own:
        raise UserError("this model has no head of its own to tune; leave out tune, or say all")
    return {name for name, parameter in model.named_parameters() if id(parameter) in own}


def has_new_head(model: nn.Module) -> bool:
    """Whether the head's first weights are random: none were loaded, or they were for others."""
    origin = origin_of(model)
    return origin is None or bool(head_parameters(model) & set(origin.new))


def last_layers(model: nn.Module, recipe: Recipe) -> set[str]:
    """Names of the parameters of the head and of the last N layers before it.

    Layers are those of ``model.group_matcher()``, as layer-wise decay counts them.

    Raises:
        UserError: the model does not count its layers, or has fewer.
    """
    from timm.models import group_parameters

    head = head_parameters(model)
    matcher = getattr(model, "group_matcher", None)
    if matcher is None:
        raise UserError(
            f"this model does not count its layers (group_matcher), so tune cannot be "
            f"{recipe.tune!r}; say all or head"
        )
    layer_of: dict[str, int] = group_parameters(model, matcher(coarse=False), reverse=True)
    layers = sorted({layer for name, layer in layer_of.items() if name not in head})
    top = max(layer_of.values())
    layers = [layer for layer in layers if layer < top] or layers
    if recipe.tuned_layers > len(layers):
        raise UserError(
            f"tune: {recipe.tune} asks for more layers than the {len(layers)} of this model; "
            "give fewer, or all"
        )
    first = layers[-recipe.tuned_layers]
    return head | {name for name, layer in layer_of.items() if layer >= first}


def frozen_parts(model: nn.Module) -> Iterator[nn.Module]:
    """The largest parts that have parameters and train none of them."""
    parameters = list(model.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        yield model
        return
    for child in model.children():
        yield from frozen_parts(child)


@torch.compiler.disable
def _hold_frozen_in_evaluation(model: nn.Module, _: Any) -> None:
    """Before each training pass: undo what ``model.train()`` did to frozen parts."""
    if not model.training:
        return
    for part in frozen_parts(model):
        if any(module.training for module in part.modules()):
            part.eval()


@torch.compiler.disable
def _hold_norms_in_evaluation(model: nn.Module, _: Any) -> None:
    """Before each training pass: undo what ``model.train()`` did to batch norms."""
    if model.training:
        for part in batch_norms(model):
            part.eval()
