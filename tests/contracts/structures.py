"""One narrow model for each way in which the zoo wires one.

Points of the contract that are dear (export, compiling, gradients twice, large pictures) are held
by these; what is cheap is held by every variant at its own widths (``test_backbones``), and all of
it at full width and depth by ``python -m benchmarks.contract_sweep``. Variants whose configs are
the same once narrowed are one structure; what each stands for is printed by

    python -m tests.contracts.structures

The dearest points are held by :func:`kinds`, one structure of each that has other parts, and what
is traced or written as a file by :data:`WIRINGS`.
"""

from dataclasses import fields, replace
from functools import cache
from typing import Any

import vitrail
from vitrail.models.backbone import Backbone
from vitrail.models.zoo import ZOO, configure

HASHED = ("_qf", "_qs")  # how many clusters there are depends on the picture: no static shapes
RATES = ("drop_path", "dropout", "drop")  # no wiring
VIT = {"depth": 4, "dim": 48, "heads": 3}
FOUR = {"depths": (1, 1, 1, 1)}
COATNET = {"stem": (8, 16), "dims": (16, 32, 48, 64), "depths": (1, 1, 2, 1), "head_dim": 16}
SPLIT = {"dims": (16, 32, 48, 64, 64), "depths": (1, 1, 1, 2, 1), "head_dim": 16}
NARROW = {
    "vit": VIT,
    "sl_vit": VIT,
    "deit": VIT,
    "convit": {"depth": 4, "local": 3, "dim": 144},  # 4, 9 or 16 heads: so many taps
    "ceit": {**VIT, "stem": 16},
    "cvt": {"dims": (12, 24, 48), "heads": (1, 2, 4), "depths": (1, 1, 2)},
    "cct": {**VIT, "mlp_ratio": 2, "stem": 16},
    "coat_lite": {**FOUR, "dims": (16, 32, 40, 64), "ratios": (2, 2, 2, 2)},
    "coat": {**FOUR, "dims": (16, 24, 24, 24), "ratios": (2, 2, 2, 2), "parallel": 2},
    "coatnet": COATNET,
    "coatnet_6": SPLIT,
    "coatnet_7": SPLIT,
    "cmt": {**FOUR, "dims": (16, 32, 64, 128), "stem": 8, "mlp_ratio": 2.0},
    "mobilevit": {
        "dims": (8, 16, 16, 24, 24),
        "widths": (16, 24, 24),
        "ratio": 2,
        "final": 48,
        "depths": (1, 1, 1),
    },
    "filtervit": {"resample": 0, "stem": 16, "hidden": 32},  # and rows: see options_of
    "dropoutvit": {"resample": 0, "stem": 16, "hidden": 32},
    "filtervit_v2": {**FOUR, "dims": (16, 32, 32, 64), "stem": 8, "hidden": 32, "head_dim": 16},
}
NARROW["dropoutvit_v2"] = NARROW["filtervit_v2"]


def family_of(name: str) -> str:
    """The row of :data:`NARROW` that serves a variant."""
    known = [f for f in NARROW if name.startswith(f)]
    return "coat_lite" if "coat_lite" in name else max(known, key=len)


def options_of(name: str) -> dict[str, Any]:
    """What makes a variant narrow."""
    options = dict(NARROW[family_of(name)])
    rows = getattr(ZOO[name].config, "rows", ())
    if rows:
        options["rows"] = tuple(replace(r, dim=r.dim // 4, heads=2, depth=1) for r in rows)
    return {"classes": 5, "image": 64, **options}


def narrow(name: str, **options: Any) -> Backbone:
    """A variant's wiring and specs with few channels and blocks, 5 classes, for 64 pixels."""
    return vitrail.create(name, **{**options_of(name), **options})


def structures() -> dict[str, tuple[str, ...]]:
    """A name for each structure, with all variants that come to it when narrowed."""
    found: dict[tuple[type, str], list[str]] = {}
    for name in sorted(ZOO, key=lambda n: (len(n), n)):
        config = configure(name, **options_of(name))
        wiring = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in RATES}
        found.setdefault((ZOO[name].model, str(wiring)), []).append(name)
    return {names[0]: tuple(names) for names in found.values()}


STRUCTURES = structures()


WIRINGS = (  # plain; in stages; norms in batches; windows and maps between; tokens chosen
    *("vit_rel_tiny", "cvt_13", "coat_lite_mini", "coatnet_bn_0_rw", "cmt_b"),
    *("mobilevit_s", "filtervit_xxs"),
)
"""Backbones with the least in common. What traces them (compiling, optimising, files) is asked of
these; of all by ``benchmarks.contract_sweep`` and ``benchmarks.export_parity``."""


def is_ours(spec: type) -> bool:
    """Whether a mixer or reducer is the library's; other tests of the process register more."""
    return spec.__module__.startswith("vitrail.")


@cache
def kinds() -> tuple[str, ...]:
    """Of structures with the same kinds of parts, the one with the fewest parameters."""
    found: dict[tuple[str, frozenset[str]], list[tuple[int, str]]] = {}
    for name in STRUCTURES:
        model = narrow(name)
        parts = frozenset(type(m).__qualname__ for m in model.modules())
        size = sum(p.numel() for p in model.parameters())
        found.setdefault((type(model).__name__, parts), []).append((size, name))
    return tuple(min(each)[1] for each in found.values())


def one_each() -> tuple[str, ...]:
    """Of :func:`kinds`, one for each backbone with each of its own reducers."""
    found = {(ZOO[n].model, frozenset(ZOO[n].config.reducer)): n for n in reversed(kinds())}
    return tuple(found.values())


def one_a_backbone() -> tuple[str, ...]:
    """Of :func:`kinds`, one for each backbone; reducers are traced by their own laws."""
    return tuple({ZOO[name].model: name for name in reversed(kinds())}.values())


if __name__ == "__main__":
    for first, names in STRUCTURES.items():
        print(f"{first:28} {' '.join(names[1:])}")
