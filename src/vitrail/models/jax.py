"""ViT weights as JAX wrote them, in the shapes and names of a PyTorch ViT.

The original (google-research/vision_transformer) and big_vision keep flat ``.npz`` files. A linear
kernel is ``(in, out)``, a convolution's ``(H, W, in, out)``; projections of q, k and v are three
tensors cut by heads. The tanh GELU they were trained with differs from ours by up to 5e-4 per
activation: expect logits to differ by about 1e-3.
"""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

State = dict[str, Tensor]
PREFIXES = ("opt/target/", "params/img/", "params/", "")
"""Training checkpoints, big_vision's two-tower and plain files, the original's released files."""

ATTENTION = r"^Transformer/encoderblock_(\d+)/MultiHeadDotProductAttention_\d/"
BLOCK = r"^Transformer/encoderblock_(\d+)/"


def as_is(x: Tensor) -> Tensor:
    """Vectors, tokens and position tables."""
    return x


def as_convolution(x: Tensor) -> Tensor:
    """``(H, W, in, out)`` -> ``(out, in, H, W)``."""
    return x.permute(3, 2, 0, 1)


def as_linear(x: Tensor) -> Tensor:
    """``(in, out)`` -> ``(out, in)``."""
    return x.mT


def join_out(x: Tensor) -> Tensor:
    """``(in, heads, d)`` -> ``(heads * d, in)``."""
    return x.flatten(1).mT


def join_in(x: Tensor) -> Tensor:
    """``(heads, d, out)`` -> ``(out, heads * d)``."""
    return x.flatten(0, 1).mT


# fmt: off
LAYOUT: tuple[tuple[str, str, Callable[[Tensor], Tensor]], ...] = (
    (r"^embedding/kernel$",                              "patch.weight", as_convolution),
    (r"^embedding/bias$",                                "patch.bias", as_is),
    (r"^cls$",                                           "cls", as_is),
    (r"^(?:Transformer/posembed_input/)?pos_embedding$", "position", as_is),
    (ATTENTION + r"(query|key|value)/kernel$",           r"blocks.\1.mixer.\2.weight", join_out),
    (ATTENTION + r"(query|key|value)/bias$",             r"blocks.\1.mixer.\2.bias", torch.flatten),
    (ATTENTION + r"out/kernel$",                         r"blocks.\1.mixer.proj.weight", join_in),
    (ATTENTION + r"out/bias$",                           r"blocks.\1.mixer.proj.bias", as_is),
    (BLOCK + r"LayerNorm_0/scale$",                      r"blocks.\1.norm1.weight", as_is),
    (BLOCK + r"LayerNorm_0/bias$",                       r"blocks.\1.norm1.bias", as_is),
    (BLOCK + r"LayerNorm_[12]/scale$",                   r"blocks.\1.norm2.weight", as_is),
    (BLOCK + r"LayerNorm_[12]/bias$",                    r"blocks.\1.norm2.bias", as_is),
    (BLOCK + r"MlpBlock_\d/Dense_0/kernel$",             r"blocks.\1.mlp.fc1.weight", as_linear),
    (BLOCK + r"MlpBlock_\d/Dense_0/bias$",               r"blocks.\1.mlp.fc1.bias", as_is),
    (BLOCK + r"MlpBlock_\d/Dense_1/kernel$",             r"blocks.\1.mlp.fc2.weight", as_linear),
    (BLOCK + r"MlpBlock_\d/Dense_1/bias$",               r"blocks.\1.mlp.fc2.bias", as_is),
    (r"^Transformer/encoder_norm/scale$",                "norm.weight", as_is),
    (r"^Transformer/encoder_norm/bias$",                 "norm.bias", as_is),
    (r"^head/kernel$",                                   "head.weight", as_linear),
    (r"^head/bias$",                                     "head.bias", as_is),
)
# fmt: on
DROPPED = r"^pre_logits/|^opt/(?!target/)"
"""The tanh layer of the 21k pre-training, which no fine-tuned model has; an optimiser's state."""


def from_jax(state: Mapping[str, Tensor]) -> State:
    """Our names and shapes for a JAX ViT; any other state dict passes through.

    Names the layout does not know are kept: loading will refuse them by name.
    """
    prefix = next((p for p in PREFIXES if f"{p}embedding/kernel" in state), None)
    if prefix is None:
        return dict(state)
    kept = {n: t for n, t in state.items() if not re.search(DROPPED, n)}
    flat = {n.removeprefix(prefix): t for n, t in kept.items()}
    flat = {n: t for n, t in flat.items() if not re.search(DROPPED, n)}
    ours = dict(translate(name, tensor) for name, tensor in unroll(flat).items())
    return join_projections(ours)


def unroll(state: State) -> State:
    """big_vision's scanned models keep one block with a leading layer axis: one block each."""
    one = "Transformer/encoderblock/"
    flat = {n: t for n, t in state.items() if not n.startswith(one)}
    for name, stacked in state.items():
        if name.startswith(one):
            for i, layer in enumerate(stacked):
                flat[name.replace("encoderblock/", f"encoderblock_{i}/")] = layer
    return flat


def translate(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """The first line of the layout that knows the name."""
    for pattern, into, shape in LAYOUT:
        if re.match(pattern, name):
            return re.sub(pattern, into, name), shape(tensor).contiguous()
    return name, tensor


def join_projections(state: State) -> State:
    """Queries, keys and values of one block in one tensor, in that order."""
    joined = {n: t for n, t in state.items() if not re.search(r"\.(query|key|value)\.", n)}
    for name in state:
        if ".query." in name:
            parts = [state[name.replace("query", part)] for part in ("query", "key", "value")]
            joined[name.replace("query", "qkv")] = torch.cat(parts)
    return joined
