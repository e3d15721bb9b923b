"""The points of a backbone's contract, each a function of something that builds the model.

``build(**options)`` gives a fresh model of 5 classes, in training mode. The suite builds narrow
models, ``benchmarks.contract_sweep`` whole ones.
"""

import tempfile
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitrail.models.backbone import Backbone

Build = Callable[..., Backbone]
SIZES = ((64, 64), (96, 64), (75, 101), (160, 224))
LARGE = ((257, 512), (64, 512))
HEART, STEPS, ROUND = 32, 120, 15
"""Pixels; steps in which a model learns pictures by heart; steps of one fall of the rate."""
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def pictures(count: int, size: tuple[int, int] = (64, 64), in_chans: int = 3) -> Tensor:
    return torch.randn(count, in_chans, *size, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def any_size(build: Build) -> None:
    """Maps at strides 4 to 32 and logits for 64 to 512 pixels, square or not.

    Large pictures are seen by a model without numbers (the meta device).
    """
    model = build().eval()
    with torch.device("meta"):
        plan = build().eval()
    for size in SIZES:
        check_maps(model, pictures(1, size))
    for size in LARGE:
        check_maps(plan, pictures(1, size).to("meta"))


def check_maps(model: Backbone, x: Tensor) -> None:
    """Channels, sides and, where there are numbers, finite ones."""
    assert model.strides == (4, 8, 16, 32) and len(model.channels) == 4
    maps, last = model.features_and_last(x)
    for m, channels, stride in zip(maps, model.channels, model.strides, strict=True):
        assert m.shape[:2] == (1, channels)
        for side, pixels in zip(m.shape[2:], x.shape[2:], strict=True):
            assert pixels // stride <= side <= -(-pixels // stride)
    logits = model.forward_head(last)
    assert logits.shape == (1, 5)
    assert x.is_meta or all(t.isfinite().all() for t in (logits, *maps))


@torch.no_grad()
def any_channels_and_no_classes(build: Build) -> None:
    """One channel or four; pooled features with ``classes=0`` and after ``reset_classifier(0)``."""
    for in_chans in (1, 4):
        x = pictures(2, in_chans=in_chans)
        model = build(in_chans=in_chans).eval()
        assert model(x).shape == (2, 5)
        pooled = model.forward_head(model.forward_features(x), pre_logits=True)
        model.reset_classifier(0)
        torch.testing.assert_close(model(x), pooled)
        assert pooled.shape == (2, model.width)
    assert build(classes=0).eval()(pictures(2)).shape == (2, model.width)


def maps_feed_a_pyramid(build: Build) -> None:
    """torchvision's FPN takes the maps, and gradients come back to the picture."""
    from torchvision.ops import FeaturePyramidNetwork

    model = build()
    x = pictures(2, (96, 64)).requires_grad_()
    fpn = FeaturePyramidNetwork(list(model.channels), 8)
    levels = fpn(OrderedDict((str(i), m) for i, m in enumerate(model.features(x))))
    assert [tuple(m.shape) for m in levels.values()] == [
        (2, 8, 96 // s, 64 // s) for s in model.strides
    ]
    sum(m.square().sum() for m in levels.values()).backward()
    assert x.grad is not None and x.grad.isfinite().all() and x.grad.any()


def checkpointing_changes_memory_only(build: Build) -> None:
    """Equal logits and gradients; every parameter has one."""
    model, x = build(), pictures(2)
    found = []
    for _ in range(2):
        torch.manual_seed(1)  # some models drop or draw in training
        logits = model(x)
        logits.square().sum().backward()
        assert [n for n, p in model.named_parameters() if p.grad is None] == []
        found.append((logits.detach(), {n: p.grad for n, p in model.named_parameters()}))
        model.zero_grad()
        model.set_grad_checkpointing()
    torch.testing.assert_close(found[1][0], found[0][0], **TOLERANCE)
    for name, grad in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], grad, **TOLERANCE)


@torch.no_grad()
def safetensors_keep_it(build: Build) -> None:
    """A state dict without shared tensors, which gives the same model again."""
    model, other, x = build().eval(), build().eval(), pictures(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.safetensors"
        save_file(model.state_dict(), path)
        other.load_state_dict(load_file(path))
    assert torch.equal(model(x), other(x))


@torch.no_grad()
def exports(build: Build) -> None:
    """``torch.export`` with a free batch."""
    model, x, three = build().eval(), pictures(2), pictures(3)
    free = ({0: torch.export.Dim.DYNAMIC},)
    exported = torch.export.export(model, (x,), dynamic_shapes=free)
    torch.testing.assert_close(exported.module()(three), model(three), **TOLERANCE)


@torch.no_grad()
def compiles(build: Build) -> None:
    """``torch.compile(fullgraph=True)``: one graph, as dynamo finds it; ``exports`` traces on."""
    torch.compiler.reset()  # each model alone: together they pass the limit of recompilations
    model, x = build().eval(), pictures(2)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), model(x), **TOLERANCE)


@torch.no_grad()
def halves_are_finite(build: Build) -> None:
    """bfloat16 and float16 weights and pictures; float32 weights under autocast."""
    x = pictures(2, (96, 64))
    for kind in (torch.bfloat16, torch.float16):
        model = build().eval()
        with torch.autocast("cpu", kind):
            assert model(x).isfinite().all()
        logits = model.to(kind)(x.to(kind))
        assert logits.dtype == kind and logits.isfinite().all()


@torch.no_grad()
def images_are_apart_and_answers_repeat(build: Build) -> None:
    """No picture sees another of its batch; evaluation draws nothing."""
    model, x = build().eval(), pictures(3)
    together = model(x)
    assert torch.equal(together, model(x))
    torch.testing.assert_close(together[1:2], model(x[1:2]), **TOLERANCE)


def slices_change_nothing(build: Build) -> None:
    """What inference works through in slices, training does whole."""
    model, x = build().eval(), pictures(2, (128, 96))
    with torch.no_grad():
        sliced = model(x)
    torch.testing.assert_close(sliced, model(x).detach(), **TOLERANCE)


@cache
def clothes(size: int) -> tuple[Tensor, Tensor]:
    """16 photographs of clothes of 5 kinds, from the built-in sample."""
    from vitrail.data import Preprocess, open_dataset

    sample = open_dataset("fashion")
    items = [item for item in sample.split("train") if item.label < 5][:16]
    transform = Preprocess(image=size, crop=1.0).transform()
    images = torch.stack([transform(sample.read(item)) for item in items])
    return images, torch.tensor([item.label for item in items])


def learns_by_heart(build: Build) -> None:
    """Every one of 16 real pictures right, in evaluation, after at most 120 steps."""
    images, labels = clothes(HEART)
    torch.manual_seed(0)
    model = build(image=HEART)
    learner = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    right = torch.zeros(())
    for step in range(STEPS):
        peak = 4e-3 / (1 + step // ROUND / 2)  # a restart must not undo what was learned
        learner.param_groups[0]["lr"] = peak * (1 - step % ROUND / ROUND)
        torch.nn.functional.cross_entropy(model.train()(images), labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        learner.step()
        learner.zero_grad()
        if (step + 1) % ROUND == 0:
            with torch.no_grad():
                right = (model.eval()(images).argmax(1) == labels).float().mean()
            if right == 1:
                return
    raise AssertionError(f"{right:.0%} of 16 pictures after {STEPS} steps")


POINTS: dict[str, Callable[[Build], None]] = {
    point.__name__: point
    for point in (
        any_size,
        any_channels_and_no_classes,
        maps_feed_a_pyramid,
        checkpointing_changes_memory_only,
        safetensors_keep_it,
        exports,
        compiles,
        halves_are_finite,
        images_are_apart_and_answers_repeat,
        slices_change_nothing,
        learns_by_heart,
    )
}
STATIC = ("exports", "compiles")
"""Points that need shapes which do not depend on the picture."""
