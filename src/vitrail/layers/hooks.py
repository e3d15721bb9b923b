"""Who could tell that a layer was not called, or that its memory was taken.

Fast paths do the work of several layers in one call: they use a layer's weights without calling
it, write where its output lies, or call it once for each slice. Someone can tell who hooked the
layer, or put another in its place: LoRA's, a parametrised one, a quantised one. There the layers
are called one by one, as they stand.
"""

from torch import nn

TORCHS = (nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.GELU, nn.SiLU)
"""Layers whose work is known; a subclass may do something else."""

PASSIVE = "passive"
"""Attribute of hooks that only look at the clock (``vitrail cost --by-layer``) and shall see the
model as it runs without them."""


def plain(*layers: nn.Module) -> bool:
    """Whether these are torch's own layers without hooks."""
    return all(type(layer) in TORCHS for layer in layers) and not hooked(*layers)


def hooked(*layers: nn.Module) -> bool:
    """Whether one of these layers has a hook, forward or backward, that is not :data:`PASSIVE`."""
    return any(
        not getattr(hook, PASSIVE, False)
        for layer in layers
        for hooks in (
            layer._forward_hooks,
            layer._forward_pre_hooks,
            layer._backward_hooks,
            layer._backward_pre_hooks,
        )
        for hook in hooks.values()
    )
