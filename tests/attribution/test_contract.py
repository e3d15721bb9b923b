"""What every method promises, for every wiring: it joins by being registered."""

import pytest
import torch
from tests.attribution.models import CLUSTERS, FILTERS, SIZE, TEXTS, build, pictures
from torch import Tensor, nn

import vitrail
from vitrail.attribution import ExplainError, methods
from vitrail.attribution.base import Need

OPTIONS = {  # few draws are enough to show what is promised; so small a grid may speak against
    "rise": {"masks": 4, "cells": 3},
    "occlusion": {"window": 32, "stride": 32},
    **dict.fromkeys(("gradcam", "hirescam", "layercam"), {"positive": False}),
    "smoothgrad": {"samples": 2},
    "integrated_gradients": {"steps": 3, "most": 3},
    "dropout_frequency": {"draws": 2},
}
ZEROS = torch.zeros(2)
FEW = ["vit_tiny", "coat_lite_tiny", "coatnet_0", "filtervit_v2_xxs"]  # tokens, maps, both, draws
FOR_SOME = {
    "filter_mask": FILTERS,
    "dropout_frequency": ("dropoutvit", "filtervit_v2"),
    "cluster_map": CLUSTERS,
}


def traces(model: nn.Module) -> list[object]:
    """All that an explanation must leave as it was."""
    return [
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [None if p.grad is None else id(p.grad) for p in model.parameters()],
        [b.clone() for b in model.buffers()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        [vars(m).get("chance") for m in model.modules()],
        [m.forward.__func__ for m in model.modules()],
    ]


def same(before: list[object], after: list[object]) -> bool:
    equal = [torch.equal(b, a) for b, a in zip(before[3], after[3], strict=True)]
    return all(equal) and before[:3] + before[4:] == after[:3] + after[4:]


def ask(model: nn.Module, images: Tensor, name: str, **options: object) -> object:
    return vitrail.explain(model, images, method=name, **OPTIONS.get(name, {}), **options)


def serves(name: str, text: str) -> bool:
    return name not in FOR_SOME or text.startswith(FOR_SOME[name])


def wirings(name: str) -> list[str]:
    """Those a method can tell apart: all where it reads layers or changes their gradients."""
    return [*TEXTS] if methods()[name].needs >= {Need.LAYERS} or name == "lrp" else FEW


@pytest.mark.parametrize(("name", "text"), [(n, t) for n in methods() for t in wirings(n)])
def test_promises(name: str, text: str) -> None:
    model, images, method = build(text), pictures(), methods()[name]
    model.train()  # as a caller in the middle of training would have it
    before = traces(model)
    if not serves(name, text):
        with pytest.raises(ExplainError, match="this is for"):
            ask(model, images, name)
        assert same(before, traces(model))
        return
    with torch.inference_mode(), torch.autocast("cpu"):
        found = ask(model, images, name)
    assert same(before, traces(model))
    assert found.map.shape == (2, *SIZE) and found.map.dtype == torch.float32
    assert found.map.isfinite().all() and found.map.flatten(1).any(1).all()
    assert found.class_specific == method.class_specific
    assert found.signed or (found.map >= 0).all()
    assert found.native.dim() == 3 and set(OPTIONS.get(name, {})) <= set(found.params)
    again = ask(model, images, name)
    assert torch.equal(found.map, again.map)
    if not method.random:
        alone = ask(model, images[1:], name, target=found.target[1])
        # a map far below what its score is made of is what rounding leaves of large terms
        scale = found.map[1:].abs().max().maximum(1e-4 * found.check.get("score", ZEROS)[1].abs())
        torch.testing.assert_close(alone.map / scale, found.map[1:] / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", methods())
def test_a_broken_target_leaves_no_trace(name: str) -> None:
    text = next(t for t in reversed(TEXTS) if serves(name, t))
    model, calls = build(text).train(), []
    before = traces(model)

    def broken(output: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 2 or not methods()[name].class_specific:
            raise KeyError("inside")
        return output[:, 0]

    with pytest.raises(KeyError, match="inside"):
        ask(model, pictures(), name, target=broken)
    assert same(before, traces(model))


@pytest.mark.parametrize("name", [n for n, m in methods().items() if m.needs])
def test_what_cannot_be_looked_into_is_refused(name: str) -> None:
    compiled = torch.compile(build("vit_tiny"), backend="eager")
    with pytest.raises(ExplainError, match=f"{name}.*compiled.*eager model"):
        ask(compiled, pictures(), name)


@pytest.mark.parametrize("name", [n for n, m in methods().items() if not m.needs])
def test_what_needs_outputs_only_explains_any_callable(name: str) -> None:
    model = build("vit_tiny").eval()
    found = ask(lambda x: model(x).detach(), pictures(), name)
    torch.testing.assert_close(found.map, ask(model, pictures(), name).map)


@pytest.mark.parametrize("name", [n for n, m in methods().items() if m.class_specific])
def test_the_target_matters(name: str) -> None:
    model = build("vit_tiny(pool='mean')").eval()
    first, second = (ask(model, pictures(), name, target=t).map for t in (0, 3))
    assert not torch.allclose(first, second, rtol=1e-3)
