"""A budget follows the picture, and nobody's neighbours."""

import torch

from vitrail.layers.blocks import Block, Blocks, attach_reducer
from vitrail.layers.feed import Mlp
from vitrail.mixers import MixerSpec
from vitrail.reducers import ReducerSpec
from vitrail.reducers.budget import coarsest, variance_loss
from vitrail.specs import Place, SpecError
from vitrail.testing import case, same
from vitrail.tokens.assignment import assign_to_cells

GRID = (8, 8)
PLACE = ReducerSpec.parse("budget").place(Place(dim=6, heads=2, grid=GRID, extra=1))


def pictures():
    """One of four flat quarters, one of noise: 4 tokens would do, and none is too many."""
    flat = torch.randn(2, 2, 6).repeat_interleave(4, 0).repeat_interleave(4, 1).reshape(64, 6)
    grid = torch.stack((flat, torch.randn(64, 6)))
    return torch.cat((torch.randn(2, 1, 6), grid), 1)


def built(text="budget(menu=(4, 16), max_variance_loss=0.2)"):
    return ReducerSpec.parse(text).build(PLACE).eval()


def test_a_flat_picture_takes_fewer_than_a_rich_one():
    x, module = pictures(), built()
    assert module(x[:1], GRID, same)[0].shape[1] == 1 + 4
    assert module(x[1:], GRID, same)[0].shape[1] == 1 + 16
    z, plan = module(x, GRID, same)
    assert z.shape[1] == 1 + 16
    assert plan.sizes[0].gt(0).sum() == 1 + 4 and plan.sizes[1].gt(0).all()
    assert plan.sizes.sum(1).tolist() == [65.0, 65.0]
    assert built().to("meta")(x[:1].to("meta"), GRID, same)[0].shape[1] == 1 + 16


def blocks(mixer):
    block = Block(6, mixer, Mlp(6, 12))
    attach_reducer(block, built(), coarse=False)
    return Blocks([block])


SMALL = ("clustered(clusters=3)", "improved_clustered(clusters=3, best=2)", "lsh(run=4)")


def test_padding_is_nobody_to_the_mixer():
    """A picture's answer is the same beside a richer one, to whom its working tokens are padded."""
    served = []
    for name in [*sorted(MixerSpec.known), *SMALL]:
        torch.manual_seed(0)
        x, spec = pictures(), MixerSpec.parse(name)
        try:
            mixer, shared = spec.build(PLACE), spec.build_shared(PLACE)
        except SpecError:
            continue  # it takes no scattered tokens, or none that are padded
        stage = blocks(mixer).eval()
        together = stage(x, GRID, shared=shared)
        alone = stage(x[:1], GRID, shared=shared)
        with case(name):
            assert together.isfinite().all()
            torch.testing.assert_close(together[:1], alone, rtol=1e-5, atol=1e-5)
        served.append(name)
    assert served == ["conv_attention", "gated", "identity", "linear", "lsa", "softmax"]


def test_compiled_and_exported_it_answers_the_same_at_the_finest():
    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            spec = MixerSpec.parse("softmax")
            self.blocks = blocks(spec.build(PLACE))

        def forward(self, x):
            return self.blocks(x, GRID)

    model, x = Whole().eval(), pictures()
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x[:1]), model(x[:1]), rtol=1e-5, atol=1e-5)
        exported = torch.export.export(model, (x,)).module()
        torch.testing.assert_close(exported(x), model(x), rtol=1e-5, atol=1e-5)


def test_lost_variance_is_what_the_means_miss():
    x = torch.randn(3, 64, 6)
    assignment = assign_to_cells(GRID, (2, 2), x.device).expand(3, -1)
    pooled = x.unflatten(1, (4, 2, 4, 2)).mean((2, 4), keepdim=True).expand(3, 4, 2, 4, 2, 6)
    missed = (x - pooled.reshape(3, 64, 6)).square().sum((1, 2))
    wanted = missed / (x - x.mean(1, keepdim=True)).square().sum((1, 2))
    torch.testing.assert_close(variance_loss(x, assignment, 16), wanted)
    assert variance_loss(torch.ones(1, 64, 6), assignment[:1], 16).item() == 0.0


def test_the_coarsest_that_fits_or_else_the_finest():
    fits = torch.tensor([[True, True, False], [False, False, False], [False, True, True]])
    assert coarsest(fits).tolist() == [1, 0, 2]
