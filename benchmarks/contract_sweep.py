"""The backbones' contract at full width and depth: every model, point by point.

python -m benchmarks.contract_sweep                    # all models of at most 100 M parameters
python -m benchmarks.contract_sweep --models "coat*" vit_tiny --points exports compiles
python -m benchmarks.contract_sweep --at-most 400      # larger ones too

The suite holds the same points (``tests/contracts/points.py``) for narrow models of every
structure. Prints a line a model, with seconds a point; the exit status is 1 if any fails.
"""

import argparse
import fnmatch
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from tests.contracts.points import POINTS, STATIC
from tests.contracts.structures import HASHED

import vitrail

WIDTH = 30


def select_models(patterns: Sequence[str], at_most: float) -> list[str]:
    """Names that fit a pattern and have at most so many million parameters."""
    names = [n for n in vitrail.list_models() if any(fnmatch.fnmatch(n, p) for p in patterns)]
    return [name for name in names if millions(name) <= at_most]


def millions(name: str) -> float:
    with torch.device("meta"):
        model = vitrail.create(name)
    return sum(p.numel() for p in model.parameters()) / 1e6


def try_point(name: str, point: str, build: Callable[..., vitrail.Backbone]) -> tuple[str, str]:
    """What to print for a point (seconds, ``no``, or ``-`` where it cannot be), and why not."""
    if point in STATIC and name.endswith(HASHED):
        return "-", ""
    torch.manual_seed(0)
    began = time.perf_counter()
    try:
        POINTS[point](build)
    except Exception as error:  # noqa: BLE001 - whatever a point raises is its failure
        return (
            "no",
            f"{name}: {point}: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
        )
    return f"{time.perf_counter() - began:.1f}", ""


def sweep(names: Sequence[str], points: Sequence[str]) -> list[str]:
    """Try all, a line a model; the failures in words."""
    heads = [point.split("_")[0][:9] for point in points]
    print(f"{'seconds':{WIDTH}}" + "".join(f"{head:>10}" for head in heads))
    failures = []
    for name in names:
        print(f"{name:{WIDTH}}", end="", flush=True)
        for point in points:
            word, why = try_point(name, point, partial(vitrail.create, name, classes=5))
            print(f"{word:>10}", end="", flush=True)
            failures += [why] if why else []
        print(flush=True)
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["*"], help="names or patterns")
    parser.add_argument("--points", nargs="+", default=list(POINTS), choices=list(POINTS))
    parser.add_argument("--at-most", type=float, default=100.0, help="million parameters")
    wanted = parser.parse_args()
    names = select_models(wanted.models, wanted.at_most)
    failures = sweep(names, wanted.points)
    print(f"{len(names)} models, {len(failures)} failures")
    for failure in failures:
        print(failure)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
