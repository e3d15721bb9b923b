"""The structures of the zoo, every part of them at work."""

from typing import Any

import torch
from tests.contracts.structures import HASHED, STRUCTURES, narrow
from tests.parity.measured import randomised
from torch import nn

IMAGE = 64


def smallest(name: str, **options: Any) -> nn.Module:
    """A narrow model wired like the variant, its weights drawn so that every part matters."""
    return randomised(narrow(name, **options))


def distinct() -> dict[str, list[str]]:
    """One name of each structure with static shapes -> all names that come to the same."""
    static = {
        first: [n for n in names if not n.endswith(HASHED)] for first, names in STRUCTURES.items()
    }
    return {names[0]: names for names in static.values() if names}


def pictures(batch: int, size: tuple[int, int] = (IMAGE, IMAGE), seed: int = 0) -> torch.Tensor:
    """Noise."""
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))
