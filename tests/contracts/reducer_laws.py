"""The laws every reducer keeps; a new reducer gets them by subclassing with its specs."""

from typing import ClassVar

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vitrail.reducers import ReducerSpec
from vitrail.specs import Place

GRIDS = [(8, 8), (6, 10), (7, 5), (1, 1), (16, 4)]


def same(x):
    return x


class ReducerLaws:
    """Laws of :mod:`vitrail.reducers.base`."""

    specs: ClassVar[list[str]] = []
    identities: ClassVar[list[str]] = []  # specs whose K is N

    def pytest_generate_tests(self, metafunc):
        if "spec" in metafunc.fixturenames:
            metafunc.parametrize("spec", [ReducerSpec.parse(s) for s in self.specs], ids=str)
        if "identity" in metafunc.fixturenames:
            metafunc.parametrize("identity", [ReducerSpec.parse(s) for s in self.identities])
        if "grid" in metafunc.fixturenames:
            metafunc.parametrize("grid", GRIDS, ids=str)

    def build(self, spec, grid, extra=1):
        """Built twice it is the same module: what is learned begins with the same weights."""
        torch.manual_seed(7)
        return spec.build(self.place(grid, extra)).eval()

    @staticmethod
    def place(grid=(8, 8), extra=1) -> Place:
        return Place(dim=12, heads=3, grid=grid, extra=extra)

    def reduced(self, spec, grid, extra=1, images=2, dtype=torch.float32):
        x = torch.randn(images, extra + grid[0] * grid[1], 12, dtype=dtype)
        return x, *self.build(spec, grid, extra)(x, grid, same)

    def test_text_round_trip(self, spec):
        assert ReducerSpec.parse(str(spec)) == spec

    @pytest.mark.parametrize("extra", [0, 1])
    def test_sizes_sum_to_all_and_none_is_empty(self, spec, grid, extra):
        _, z, plan = self.reduced(spec, grid, extra, images=1)
        assert plan.sizes.shape == z.shape[:2]
        assert plan.sizes.sum(1).tolist() == [extra + grid[0] * grid[1]]
        assert (plan.sizes >= 1).all()

    def test_working_count_follows_from_the_grid(self, spec, grid):
        _, z, _ = self.reduced(spec, grid)
        promised = spec.working(self.place(grid))
        assert z.shape[1] == promised if spec.static else z.shape[1] <= promised

    def test_class_tokens_pass_untouched(self, spec, grid):
        x, z, plan = self.reduced(spec, grid)
        assert torch.equal(z[:, 0], x[:, 0]) and torch.equal(plan.restore(z)[:, 0], x[:, 0])

    def test_restore_gives_every_token_its_own_working_token(self, spec, grid):
        _, z, plan = self.reduced(spec, grid)
        owner = plan.assignment
        if owner is None:
            return
        assert owner.min() >= 0 and owner.max() < z.shape[1] - 1
        assert torch.equal(
            plan.restore(z)[:, 1:], torch.stack([z[b, 1:][owner[b]] for b in range(2)])
        )

    def test_reducing_what_was_restored_gives_it_back(self, spec, grid):
        _, z, plan = self.reduced(spec, grid, images=1)
        torch.testing.assert_close(plan.reduce(plan.restore(z)), z)

    def test_images_do_not_see_each_other(self, spec, grid):
        x, _, plan = self.reduced(spec, grid, images=3)
        module = self.build(spec, grid)
        for b in range(3):
            z, alone = module(x[b : b + 1], grid, same)
            torch.testing.assert_close(
                plan.restore(plan.reduce(x))[b : b + 1], alone.restore(z), rtol=1e-6, atol=1e-6
            )

    def test_answers_the_same_twice(self, spec, grid):
        x, z, _ = self.reduced(spec, grid)
        assert torch.equal(z, self.build(spec, grid)(x, grid, same)[0])

    def test_constant_image_is_kept(self, spec, grid):
        x = torch.ones(1, 1 + grid[0] * grid[1], 12)
        z, plan = spec.build(self.place(grid)).eval()(x, grid, same)
        torch.testing.assert_close(plan.restore(z), x)
        assert (plan.sizes >= 1).all() and plan.sizes.sum() == x.shape[1]

    def test_gradient_is_right(self, spec):
        grid = (4, 6)
        module = spec.build(self.place(grid)).double().eval()
        x = torch.randn(1, 25, 12, dtype=torch.float64, requires_grad=True)
        probe = torch.randn_like(x)

        def value(x):
            z, plan = module(x, grid, torch.Tensor.detach)
            return (plan.restore(z.square()) * probe).sum()

        torch.autograd.gradcheck(value, x, fast_mode=True)

    def test_cost_formula_is_what_it_costs(self, spec, grid):
        x = torch.randn(1, 1 + grid[0] * grid[1], 12)
        module = spec.build(self.place(grid)).eval()
        with FlopCounterMode(display=False) as counter:
            module(x, grid, same)
        assert spec.macs(self.place(grid)) == counter.get_total_flops() / 2

    def test_identity_to_the_bit(self, identity, grid):
        x, z, plan = self.reduced(identity, grid)
        assert torch.equal(z, x) and torch.equal(plan.restore(z), x)
        assert torch.equal(plan.reduce(x), x) and plan.sizes.eq(1).all()

    def test_one_graph(self, spec):
        if not spec.static:
            pytest.skip("data-dependent counts do not compile, and say so")
        grid = (8, 8)
        module = spec.build(self.place(grid)).eval()

        class Whole(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.module = module

            def forward(self, x):
                z, plan = self.module(x, grid, same)
                return plan.restore(z)

        x = torch.randn(2, 65, 12)
        exported = torch.export.export(Whole(), (x,), strict=True)
        assert torch.equal(exported.module()(x), Whole()(x))


class SelectionLaws(ReducerLaws):
    """Where a choice differs from a partition: the others stand for nobody and receive nothing."""

    @pytest.mark.parametrize("extra", [0, 1])
    def test_sizes_sum_to_all_and_none_is_empty(self, spec, grid, extra):
        """A chosen token stands for itself alone, so sizes sum to the working count."""
        _, z, plan = self.reduced(spec, grid, extra, images=1)
        assert plan.single and plan.sizes.shape == z.shape[:2]
        assert plan.sizes.eq(1).all()
        assert plan.sizes.sum() == spec.working(self.place(grid, extra))

    def test_constant_image_is_kept(self, spec, grid):
        """Nothing is averaged: a constant comes back where it worked, and zero elsewhere."""
        x = torch.ones(1, 1 + grid[0] * grid[1], 12)
        z, plan = self.build(spec, grid)(x, grid, same)
        assert z.eq(1).all()
        back = plan.restore(z)
        assert set(back.unique().tolist()) <= {0.0, 1.0}
        assert back[..., 0].sum() == spec.working(self.place(grid))

    def test_places_are_distinct_and_rise(self, spec, grid):
        _, _, plan = self.reduced(spec, grid)
        assert (plan.index.diff(dim=1) > 0).all()
        assert plan.index.min() >= 0 and plan.index.max() < grid[0] * grid[1]

    def test_training_draws_anew(self, spec):
        grid = (8, 8)
        module = self.build(spec, grid).train()
        x = torch.randn(2, 65, 12)
        one, two = module(x, grid, same)[1], module(x, grid, same)[1]
        assert not torch.equal(one.index, two.index)
        assert not torch.equal(one.index[0], one.index[1])
        assert torch.equal(one.restore(one.reduce(x)).ne(0), one.restore(one.reduce(x + 9)).ne(0))
