"""CeiT against outputs of the official code, and the published sizes."""

import pytest
import torch
from tests.parity import golden
from tests.parity.measured import assert_equal, parameters_and_macs

import vitrail
from vitrail.models import load_into
from vitrail.specs import SpecError

# reference page "ViT", 2.4: parameters, multiply-adds at 224 px (G)
PUBLISHED = {
    "ceit_tiny": (6_356_904, 1.395),
    "ceit_small": (24_204_840, 4.760),
    "ceit_base": (94_405_416, 17.749),
}


def test_official_names_load_and_give_the_official_outputs():
    state, x, wanted = golden.load("ceit_tiny")
    model = vitrail.create("ceit_tiny(depth=3)", classes=7, image=64).eval()
    load_into(model, state)
    with torch.no_grad():
        assert_equal(model(x), wanted)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds(name):
    parameters, macs = parameters_and_macs(name)
    assert parameters == PUBLISHED[name][0]
    assert macs / 1e9 == pytest.approx(PUBLISHED[name][1], abs=0.0006)


def test_the_class_token_passes_every_convolution():
    model = vitrail.create("ceit_tiny(depth=1)", image=32).eval()
    x = torch.randn(1, 5, 192)
    assert torch.equal(model.blocks[0].leff(x, (2, 2))[:, 0], x[:, 0])


def test_layer_attention_asks_with_the_last_token_only():
    lca = vitrail.create("ceit_tiny(depth=3)", image=32).lca
    tokens = torch.randn(2, 3, 192)
    normed = lca.norm1(tokens)
    q, k, v = (t.unflatten(2, (3, 64)).transpose(1, 2) for t in lca.qkv(normed).chunk(3, 2))
    every = ((q @ k.mT / 8).softmax(-1) @ v).transpose(1, 2).flatten(2)
    x = (tokens + lca.proj(every))[:, -1]
    torch.testing.assert_close(lca(tokens), x + lca.mlp(lca.norm2(x)), rtol=1e-4, atol=1e-5)


def test_a_coarser_grid_serves_and_scattered_tokens_are_refused():
    state = vitrail.create("ceit_tiny(depth=2)", classes=3, image=64).state_dict()
    coarse = vitrail.create("ceit_tiny(depth=2)", classes=3, image=64, reducer="pool").eval()
    load_into(coarse, state)
    assert coarse(torch.randn(1, 3, 64, 64)).isfinite().all()
    same = vitrail.create("ceit_tiny(depth=2)", classes=3, image=64, reducer="pool(size=1)").eval()
    plain = vitrail.create("ceit_tiny(depth=2)", classes=3, image=64).eval()
    for model in (same, plain):
        load_into(model, state)
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(same(x), plain(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(SpecError, match="looks over a grid; use reducer 'pool' or 'all'"):
        vitrail.create("ceit_tiny", reducer="cluster")
