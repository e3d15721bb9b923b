"""The zoo at its smallest, every part of it at work."""

from dataclasses import fields

import torch

import vitrail
from tests.contracts.test_backbones import HASHED, RATES, narrow
from tests.parity.measured import randomised
from vitrail.models.zoo import ZOO, configure

IMAGE = 64
STATIC = [name for name in vitrail.list_models() if name in ZOO and not name.endswith(HASHED)]


def options(name: str) -> dict:
    """Options for the smallest model wired like the variant, with its own mixers and reducers."""
    return {"classes": 5, "image": IMAGE, **narrow(name, "native", "native")}


def smallest(name: str) -> torch.nn.Module:
    """That model, its weights and statistics drawn so that every part matters."""
    return randomised(vitrail.create(name, **options(name)))


def distinct() -> dict[str, list[str]]:
    """One name of each wiring -> all names that come to the same small model."""
    groups: dict[tuple, list[str]] = {}
    for name in STATIC:
        config = configure(name, **options(name))
        same = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in RATES}
        groups.setdefault((ZOO[name].model, str(same)), []).append(name)
    return {names[0]: names for names in groups.values()}


def pictures(batch: int, size: tuple[int, int] = (IMAGE, IMAGE), seed: int = 0) -> torch.Tensor:
    """Noise."""
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))
