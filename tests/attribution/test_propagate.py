"""Propagation of a field through one layer: grids, class tokens, and fields kept aside."""

import torch
from tests.attribution.models import build, pictures

from vitrail.attribution.mixing import operator
from vitrail.attribution.propagate import SHARES, Propagation, masses_by_layer
from vitrail.attribution.record import mixer_calls, parts_of, recording


def propagate(text: str, share: str = "half") -> Propagation:
    model = build(text).eval()
    with torch.no_grad(), recording(model, parts_of(model)) as calls:
        model(pictures())
    fields = Propagation(operators=operator, share=SHARES[share])
    fields.run(mixer_calls(calls))
    return fields


def test_a_new_grid_takes_means_and_new_class_tokens() -> None:
    fields = Propagation(operators=operator, share=SHARES["half"])
    like = torch.zeros(2, 1, 1)
    fine = fields.enter("a", (4, 6), 1, like)
    assert fine.tokens.shape == (2, 25, 1)
    fields.leave("a", fine)
    coarse = fields.enter("b", (2, 3), 1, like)
    assert coarse.tokens.shape == (2, 7, 1)
    found = masses_by_layer(fields, coarse.tokens[:, 1][:, 0] + coarse.tokens[:, 0, 0])
    first, aside = found["a"]
    assert first[0, 0] == 0  # the class token of the fine grid is not that of the coarse
    assert first[0, 1:].unflatten(0, (4, 6))[:2, :2].tolist() == [[0.25, 0.25], [0.25, 0.25]]
    assert aside[0, 0] == 1  # what was read off the new class token
    assert found["b"][1].sum() == 0


def test_coats_scales_are_all_walked_back() -> None:
    fields = propagate("coat_tiny")
    assert len(fields.scales) == 3
    read = torch.stack([s.tokens[:, 0, 0] for s in fields.scales]).mean(0)
    found = masses_by_layer(fields, read)
    for many in found.values():
        assert torch.allclose(sum(m.sum(1) for m in many), torch.ones(2), atol=1e-5)
    assert found["stages.3.blocks.0.mixer"][-1].min() > 0.1  # scales 2 and 3 pass stage 4 by


def test_shares_by_length_differ_from_halves() -> None:
    half, norm = (propagate("vit_tiny", share).state.tokens for share in ("half", "norm"))
    assert half.shape == norm.shape and torch.allclose(half, norm, atol=1e-5)  # a field of ones
    tokens = propagate("vit_tiny", "norm")
    read = tokens.state.tokens[:, 0, 0]
    one = masses_by_layer(tokens, read)["blocks.0.mixer"][0]
    two_walk = propagate("vit_tiny")
    two = masses_by_layer(two_walk, two_walk.state.tokens[:, 0, 0])["blocks.0.mixer"][0]
    assert not torch.allclose(one, two, atol=1e-3)
