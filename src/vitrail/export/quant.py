"""Linear layers in 8 bits: weights by output channel, activations by what each call brings."""

from torch.fx import GraphModule


def quantize_linears(module: GraphModule) -> int:
    """Later."""
    return 0
