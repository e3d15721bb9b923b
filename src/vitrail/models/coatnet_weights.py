"""timm's CoAtNet weights under our names and in our layout.

timm writes attention with 1x1 convolutions, a head's query, key and value side by side, and a
layer scale of its own in the largest models. (Its flat table of offsets is unfolded by
:class:`~vitrail.mixers.relative.TableOffsets`, which knows its grid.)
"""

import re
from collections.abc import Mapping

from torch import Tensor

from vitrail.models.reader import State

RENAMES = (  # timm's name -> ours
    (r"^stem\.conv1\.", "stem.0."),
    (r"^stem\.norm1\.", "stem.1."),
    (r"^stem\.conv2\.", "stem.3."),
    (r"\.pre_norm\.", ".norm."),
    (r"\.conv1_1x1\.", ".widen."),
    (r"\.conv2_kxk\.", ".depthwise."),
    (r"\.se_early\.", ".early."),
    (r"\.se\.", ".late."),
    (r"\.conv3_1x1\.", ".narrow."),
    (r"\.shortcut\.expand\.", ".shortcut.proj."),
    (r"\.norm1\.norm\.", ".norm1."),
    (r"\.attn\.rel_pos\.relative_position_bias_table$", ".mixer.offsets.table"),
    (r"\.attn\.rel_pos\.mlp\.", ".mixer.offsets."),
    (r"\.attn\.", ".mixer."),
    (r"^head\.norm\.", "norm."),
    (r"^head\.pre_logits\.fc\.", "hidden."),
    (r"^head\.fc\.", "head."),
)


HEAD = 32
"""The width of a head in all of timm's."""


def convert(state: Mapping[str, Tensor]) -> State:
    """timm's tensors laid out as ours, under timm's names; what is not timm's passes as it is."""
    ours = {}
    for name, tensor in state.items():
        if re.search(r"\.(attn|mlp)\.", name) and tensor.dim() == 4:
            tensor = tensor.flatten(1)
        if ".attn.qkv." in name:
            tensor = by_projection(tensor, HEAD)
        ours[name] = tensor
    for name in [n for n in ours if n.endswith(".gamma")]:
        scale(ours, re.sub(r"ls(\d)\.gamma$", lambda m: LAST[m[1]], name), ours.pop(name))
    return ours


LAST = {"1": "attn.proj", "2": "mlp.fc2"}
"""What timm's layer scales multiply."""


def scale(state: State, layer: str, gamma: Tensor) -> None:
    """Multiply a linear layer's output by a vector, in its parameters."""
    state[f"{layer}.weight"] = state[f"{layer}.weight"] * gamma[:, None]
    state[f"{layer}.bias"] = state[f"{layer}.bias"] * gamma


def by_projection(tensor: Tensor, head_dim: int) -> Tensor:
    """Rows ordered head, (q, k, v), channel -> (q, k, v), head, channel."""
    return tensor.unflatten(0, (-1, 3, head_dim)).transpose(0, 1).flatten(0, 2)
