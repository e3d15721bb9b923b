import pytest
import torch
from torch import nn

from vitrail.layers.blocks import Block, Blocks, Chain, attach_reducer
from vitrail.layers.feed import Mlp
from vitrail.mixers import MixerSpec
from vitrail.reducers import ReducerSpec
from vitrail.specs import Place

PLACE = Place(dim=8, heads=2, grid=(4, 4))


def block(drop_path: float = 0.0) -> Block:
    return Block(8, MixerSpec.parse("softmax").build(PLACE), Mlp(8, 16), drop_path)


def test_blocks_in_training_mode_without_gradients_drop_whole_images():
    layer, x = block(0.5).train(), torch.randn(64, 16, 8)
    with torch.no_grad():
        untouched = (layer(x, (4, 4)) == x).flatten(1)
    assert torch.equal(untouched.all(1), untouched.any(1)) and 0 < untouched.all(1).sum() < 64


def look(x, grid):
    return x + grid[0]


@torch.no_grad()
@pytest.mark.parametrize(("reducer", "coarse"), [("pool", True), ("random(keep=0.5)", False)])
def test_a_stage_is_its_blocks_one_by_one(reducer, coarse):
    """Spelled out: a local step, working tokens, their update restored."""
    spec, x, layer = ReducerSpec.parse(reducer), torch.randn(2, 16, 8), block()
    attach_reducer(layer, spec.build(PLACE), coarse)
    stage = Blocks([layer, block()]).eval()
    start = x if coarse else look(x, (4, 4))
    z, plan = layer.reducer(start, (4, 4), layer.norm1)
    grid = plan.coarse if coarse else (4, 4)
    worked = layer(look(z, grid), grid) if coarse else layer(z, grid, None, plan)
    first = start + plan.restore(worked - z)
    second = stage[1](look(first, (4, 4)), (4, 4))
    torch.testing.assert_close(stage(x, (4, 4), local=look), second)
    states = stage.states(x, (4, 4), local=look)
    torch.testing.assert_close(states, [first, second])
    part = stage(x, (4, 4), local=look, last=1)
    torch.testing.assert_close(part, first)
    torch.testing.assert_close(stage(part, (4, 4), local=look, first=1), second)


def test_a_chain_recomputes_what_it_is_asked_to():
    calls = []

    class Counted(nn.Linear):
        def forward(self, x):
            calls.append(1)
            return super().forward(x)

    chain, x = Chain([Counted(3, 3), Counted(3, 3)]), torch.randn(1, 3)
    wanted = chain(x)
    chain.checkpointing = True
    calls.clear()
    out = chain(x)
    out.sum().backward()
    torch.testing.assert_close(out, wanted)
    assert len(calls) == 4
    with torch.no_grad():
        calls.clear()
        chain(x)
    assert len(calls) == 2
