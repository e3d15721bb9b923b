"""The choice itself is learned: not only what is done with what was chosen."""

import torch
from torch import nn

from vitrail.layers.blocks import Block, Blocks, attach_reducer
from vitrail.layers.feed import Mlp
from vitrail.mixers import MixerSpec
from vitrail.reducers import ReducerSpec
from vitrail.specs import Place

GRID, DIM, MARKED = (6, 6), 8, 6


def pictures(count):
    """Tokens of noise; six of 36 carry a mark and should be changed, the others left alone."""
    x = 0.5 * torch.randn(count, 36, DIM)
    marked = torch.rand(count, 36).argsort(1) < MARKED
    x[..., 0] = torch.where(marked, 2.0, -2.0)
    wanted = x.clone()
    wanted[..., 1:] += marked.unsqueeze(2).float()
    return x, wanted, marked


def trained(text, steps=200):
    torch.manual_seed(3)
    place = Place(dim=DIM, heads=2, grid=GRID, scattered=True)
    block = Block(DIM, MixerSpec.parse("softmax").build(place), Mlp(DIM, 2 * DIM))
    attach_reducer(block, ReducerSpec.parse(text).build(place), coarse=False)
    blocks = Blocks([block])
    optimizer = torch.optim.Adam(blocks.parameters(), 0.02)
    for _ in range(steps):
        x, wanted, _ = pictures(16)
        loss = nn.functional.mse_loss(blocks(x, GRID), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return blocks.eval()


def test_a_filter_learns_where_work_is_needed():
    (block,) = trained(f"filter(keep={MARKED / 36})")
    x, _, marked = pictures(16)
    _, plan = block.reducer(x, GRID, block.norm1)
    assert marked.gather(1, plan.index).float().mean() > 0.9  # by chance: 0.17
    assert plan.importance.shape == (16, 36)


def test_it_beats_a_random_choice_of_as_many():
    x, wanted, _ = pictures(64)
    losses = {
        text: nn.functional.mse_loss(trained(text)(x, GRID), wanted).item()
        for text in (f"filter(keep={MARKED / 36})", f"random(keep={MARKED / 36})")
    }
    chosen, drawn = losses.values()
    assert chosen < 0.5 * drawn


def test_the_gate_works_or_holds_back_and_passes_gradient():
    place = Place(dim=DIM, heads=2, grid=GRID)
    reducer = ReducerSpec.parse("filter(keep=1.0)").build(place)
    x, _, _ = pictures(20)
    z, plan = reducer(x, GRID, nn.LayerNorm(DIM))
    assert plan.gate is not None and set(plan.gate.unique().tolist()) == {0.0, 1.0}
    assert 0.15 < plan.gate.eq(0).float().mean() < 0.35
    plan.restore(z).sum().backward()
    assert reducer.score.weight.grad.abs().max() > 0
    assert reducer.eval()(x, GRID, nn.LayerNorm(DIM))[1].gate is None
