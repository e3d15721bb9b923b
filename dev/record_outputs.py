"""What every model computes, recorded by one version of the code and compared by another.

::

    git worktree add ../old 0972ca9
    PYTHONPATH=../old/src:../old python dev/record_outputs.py outputs.pt          # by the old code
    PYTHONPATH=src:. python dev/record_outputs.py outputs.pt --check              # by this one

For each structure of the zoo, narrow, and for mixers beside reducers: logits and maps of two image
sizes, in one pass, in slices and with gradients; the gradients of the image and of every
parameter; parameters and losses of three training steps; two explanations. Initial weights come
from a seed and are recorded too, then every tensor is filled from its own name, so that a changed
order of construction shows in one line and nowhere else. Equal means equal to the bit, on one
machine with one thread; else the largest difference relative to the largest number is printed.
"""

import argparse
import contextlib
import importlib
import sys
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Record = dict[str, Any]
SIZES = ((64, 64), (75, 101))
SLICE = 2**10
"""Bytes of a hidden layer in a slice: narrow models never fill a real one."""
PAIRED = ("vit_tiny", "coat_lite_tiny")
"""Models in which mixers stand beside reducers: without a local step, and with one."""


def structures() -> Any:
    """The narrow models of the suite."""
    return importlib.import_module("tests.contracts.structures")


def cases() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, model and options of everything that is recorded."""
    from vitrail.mixers import MixerSpec
    from vitrail.reducers import ReducerSpec

    for name in structures().STRUCTURES:
        yield name, name, {}
    reducers = [*ReducerSpec.registry(), "cluster(by='sort')", "pool(hold=2)", "random(hold=2)"]
    pairs = [("softmax", r) for r in reducers] + [("conv_attention", r) for r in reducers]
    pairs += [(m, r) for m in MixerSpec.registry() for r in ("all", "pool", "random", "cluster")]
    for model in PAIRED:
        for mixer, reducer in dict.fromkeys(pairs):
            yield f"{model} {mixer} {reducer}", model, {"mixer": mixer, "reducer": reducer}
    held = {"depths": (3, 2, 2, 2), "reducer": "random(hold=2)"}
    yield "coat_lite_tiny held", "coat_lite_tiny", held
    yield (
        "coatnet_0 held",
        "coatnet_0",
        {"depths": (1, 1, 3, 3), "reducer": ("all",) * 2 + ("random(hold=2)",) * 2},
    )
    yield (
        "convit_tiny held",
        "convit_tiny",
        {"depth": 5, "reducer": ("pool(hold=2)", "random(hold=2)")},
    )
    for model in ("cmt_ti", "ceit_tiny", "cct_7_3x2", "mobilevit_xxs", "filtervit_v2_xxs"):
        for reducer in ("pool", "random", "cluster"):
            yield f"{model} {reducer}", model, {"reducer": reducer}


@torch.no_grad()
def fill(model: nn.Module) -> None:
    """Every parameter and statistic from its own name, of about its own size."""
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        seed = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        noise = torch.randn(tensor.shape, generator=seed)
        if name.endswith("running_var"):
            tensor.copy_(1 + 0.2 * noise.abs())
        else:
            tensor.add_((0.2 if tensor.dim() < 2 else 0.02) * noise.to(tensor))


def images(size: tuple[int, int]) -> Tensor:
    """Two images of noise."""
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(3))


@contextlib.contextmanager
def narrow_slices() -> Iterator[None]:
    """Feed-forwards in slices, whatever file holds their size."""
    names = ("vitrail.layers.feed", "vitrail.layers.fused")
    found = [sys.modules[name] for name in names if name in sys.modules]
    before = [(module, module.SLICE_BYTES) for module in found if hasattr(module, "SLICE_BYTES")]
    try:
        for module, _ in before:
            module.SLICE_BYTES = SLICE
        yield
    finally:
        for module, value in before:
            module.SLICE_BYTES = value


def inference(model: nn.Module) -> Record:
    """Logits and maps without gradients."""
    found: Record = {}
    with torch.no_grad():
        for size in SIZES:
            x = images(size)
            found[f"logits {size}"] = model(x)
            for i, m in enumerate(model.features(x)):
                found[f"map {i} {size}"] = m
        with narrow_slices():
            found["logits in slices"] = model(images(SIZES[0]))
    return found


def gradients(model: nn.Module) -> Record:
    """Logits with gradients, and the gradients."""
    x = images(SIZES[0]).requires_grad_()
    logits = model(x)
    logits.square().sum().backward()
    found = {"logits with gradients": logits.detach(), "gradient of the image": x.grad}
    found |= {f"gradient of {n}": p.grad for n, p in model.named_parameters()}
    model.zero_grad()
    return found


def training(model: nn.Module) -> Record:
    """Losses and parameters of three steps."""
    found: Record = {}
    learner = torch.optim.AdamW(model.parameters(), lr=1e-3)
    labels = torch.tensor([1, 3])
    for step in range(3):
        torch.manual_seed(step)
        loss = nn.functional.cross_entropy(model.train()(images(SIZES[0])), labels)
        loss.backward()
        learner.step()
        learner.zero_grad()
        found[f"loss {step}"] = loss.detach()
    return found | {f"trained {n}": t.clone() for n, t in model.state_dict().items()}


def explanations(model: nn.Module) -> Record:
    """Rollout and Grad-CAM of the class of largest score."""
    import vitrail

    found: Record = {}
    for method in ("rollout", "grad_rollout", "gradcam"):
        try:
            done = vitrail.explain(model, images(SIZES[0]), method=method, target=1)
            found[method] = done.map
        except vitrail.UserError as refusal:
            found[method] = str(refusal)
    return found


def record(model: str, options: dict[str, Any], explain: bool) -> Record:
    """One case; where the model refuses its parts, the words it refuses them with."""
    import vitrail

    torch.manual_seed(0)
    try:
        built = structures().narrow(model, **{"drop_path": 0.1, **options})
    except vitrail.UserError as refusal:
        return {"refused": str(refusal)}
    found: Record = {f"initial {n}": t.clone() for n, t in built.state_dict().items()}
    fill(built)
    built.eval()
    found |= inference(built) | gradients(built)
    if explain:
        found |= explanations(built)
    return found | training(built)


KINDS = ("initial", "logits", "map", "gradient", "loss", "trained")
"""First words of what is recorded; the rest are explanations."""


def kind_of(name: str) -> str:
    """What a recorded tensor is."""
    return next((kind for kind in KINDS if name.startswith(kind)), "explanation")


def apart(new: Any, old: Any, size: float) -> float:
    """The largest difference as a part of ``size``; 0 where equal to the bit."""
    if not isinstance(new, Tensor) or not isinstance(old, Tensor):
        return 0.0 if not isinstance(new, Tensor) and new == old else float("inf")
    if new.shape != old.shape or new.dtype != old.dtype:
        return float("inf")
    if torch.equal(new, old):
        return 0.0
    return float((new.double() - old.double()).abs().max()) / max(size, 1e-30)


def check(new: Record, old: Record) -> dict[str, tuple[float, str]]:
    """By kind the largest difference of a case, and where.

    Gradients, and trained tensors, are measured by the largest of the case: many a bias has none
    but rounding, since a softmax or a norm does not see it.
    """
    worst: dict[str, tuple[float, str]] = {}
    sizes: dict[str, float] = {}
    for name, value in old.items():
        if isinstance(value, Tensor) and value.numel():
            kind = kind_of(name)
            group = kind if kind in ("gradient", "trained") else name
            sizes[group] = max(sizes.get(group, 0.0), float(value.double().abs().max()))
    for name in dict.fromkeys((*old, *new)):
        kind = kind_of(name)
        size = sizes.get(kind, sizes.get(name, 0.0))
        found = (new[name], old[name]) if name in new and name in old else ("", None)
        gap = apart(*found, size)
        if gap > worst.get(kind, (0.0, ""))[0]:
            worst[kind] = gap, name
    return worst


def with_todays_names(recorded: dict[str, Record]) -> dict[str, Record]:
    """Cases recorded when the mixer ``conv_attention`` was called ``conv``."""
    found = {}
    for name, values in recorded.items():
        words = {
            k: v.replace("'conv'", "'conv_attention'")
            for k, v in values.items()
            if isinstance(v, str)
        }
        found[name.replace(" conv ", " conv_attention ")] = values | words
    return found


def main() -> int:
    """Record all cases, or compare them; 1 where a difference is above the bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--only", default="", help="cases whose name begins so")
    parser.add_argument("--bound", type=float, default=0.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    old = with_todays_names(torch.load(args.file)) if args.check else {}
    found, equal, failed = {}, 0, 0
    for name, model, options in cases():
        if not name.startswith(args.only):
            continue
        found[name] = record(model, options, explain=not options)
        if args.check:
            gaps = check(found[name], old.get(name, {}))
            equal += not gaps
            failed += any(gap > args.bound for gap, _ in gaps.values())
            parts = (f"{kind} {gap:.1e} ({where})" for kind, (gap, where) in gaps.items())
            print(*([name, *parts] if gaps else []), sep="  ", end="\n" if gaps else "", flush=True)
    if args.check:
        print(f"{equal} of {len(found)} cases equal to the bit, {failed} beyond {args.bound:g}")
        return int(failed > 0)
    torch.save(found, args.file)
    print(f"{len(found)} cases in {args.file} ({args.file.stat().st_size / 2**20:.0f} MiB)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
