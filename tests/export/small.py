"""The zoo at its smallest, every part of it at work."""

from dataclasses import fields

import torch
from tests.contracts.structures import HASHED, RATES
from tests.contracts.test_backbones import narrow
from tests.parity.measured import randomised

import vitrail
from vitrail.models.zoo import ZOO, configure

IMAGE = 64
NARROW = {  # widths only: with them a family's sizes come to one model
    "ceit": {"dim": 48, "heads": 3, "stem": 16},
    "cct": {"dim": 48, "heads": 4, "mlp_ratio": 2, "stem": 16, "depth": 2},
    "cvt": {"dims": (16, 32, 64), "heads": (1, 2, 4)},
    "cmt": {"dims": (16, 32, 48, 64), "stem": 16, "mlp_ratio": 4.0, "last": 64},
    "mobilevit": {"dims": (8, 16, 16, 24, 32), "widths": (16, 24, 32), "final": 64},
    "filtervit_v2": {"stem": 16, "dims": (32, 32, 64, 64), "hidden": 32},
    "dropoutvit_v2": {"stem": 16, "dims": (32, 32, 64, 64), "hidden": 32},
}
STATIC = [name for name in vitrail.list_models() if name in ZOO and not name.endswith(HASHED)]


def options(name: str) -> dict:
    """Options for the smallest model wired like the variant, with its own mixers and reducers."""
    widths = next((NARROW[f] for f in NARROW if name.startswith(f)), {})
    return {"classes": 5, "image": IMAGE, **narrow(name, "native", "native"), **widths}


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
