"""The laws every reducer keeps; a new reducer gets them by subclassing with its specs.

class TestMine(ReducerLaws):
    specs = ["mine", "mine(option=2)"]
    identities = ["mine(option=1)"]  # those with K = N
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vitrail.layers.grid import Grid
from vitrail.reducers import Reducer, ReducerSpec
from vitrail.specs import Place
from vitrail.testing.cases import case, leave_out

GRIDS = [(8, 8), (6, 10), (7, 5), (1, 1), (16, 4)]
DIM = 12


def same(x: Tensor) -> Tensor:
    """A look that changes nothing."""
    return x


def constant(x: Tensor) -> Tensor:
    """A look that passes no gradient."""
    return x.detach()


def for_all_grids(law: Callable[..., None]) -> Callable[[Any], None]:
    """Hold a law for all ``specs`` of its suite on all ``GRIDS``."""

    @wraps(law)
    def test(self: "ReducerLaws") -> None:
        for spec in map(ReducerSpec.parse, self.specs):
            for grid in GRIDS:
                with case(spec, grid):
                    law(self, spec, grid)

    del test.__wrapped__  # pytest asks it for the fixtures
    return test


def for_all(law: Callable[..., None]) -> Callable[[Any], None]:
    """Hold a law for all ``specs`` of its suite."""

    @wraps(law)
    def test(self: "ReducerLaws") -> None:
        for spec in map(ReducerSpec.parse, self.specs):
            with case(spec):
                law(self, spec)

    del test.__wrapped__  # pytest asks it for the fixtures
    return test


class ReducerLaws:
    """Laws of :mod:`vitrail.reducers.base`, for a partition: every token has one cluster."""

    specs: ClassVar[list[str]] = []
    identities: ClassVar[list[str]] = []  # specs whose K is N
    traces = True  # to one graph; not where counts depend on the image

    def __init_subclass__(cls) -> None:
        """Leave out what does not speak of these specs."""
        super().__init_subclass__()
        if not cls.traces:
            leave_out(cls, "test_one_graph")

    def build(self, spec: ReducerSpec, grid: Grid, extra: int = 1) -> Reducer:
        """Built twice it is the same module: what is learned begins with the same weights."""
        torch.manual_seed(7)
        return spec.build(self.place(grid, extra)).eval()

    @staticmethod
    def place(grid: Grid = (8, 8), extra: int = 1) -> Place:
        return Place(dim=DIM, heads=3, grid=grid, extra=extra)

    def reduce_noise(
        self, spec: ReducerSpec, grid: Grid, extra: int = 1, images: int = 2
    ) -> tuple[Tensor, Tensor, Any]:
        """Noise, its working tokens and their plan."""
        x = torch.randn(images, extra + grid[0] * grid[1], DIM)
        return x, *self.build(spec, grid, extra)(x, grid, same)

    @for_all
    def test_text_round_trip(self, spec: ReducerSpec) -> None:
        assert ReducerSpec.parse(str(spec)) == spec

    @for_all_grids
    def test_sizes_sum_to_all_and_none_is_empty(self, spec: ReducerSpec, grid: Grid) -> None:
        for extra in (0, 1):
            _, z, plan = self.reduce_noise(spec, grid, extra, images=1)
            assert plan.sizes.shape == z.shape[:2]
            assert plan.sizes.sum(1).tolist() == [extra + grid[0] * grid[1]]
            assert (plan.sizes >= 1).all()

    @for_all_grids
    def test_working_count_follows_from_the_grid(self, spec: ReducerSpec, grid: Grid) -> None:
        _, z, _ = self.reduce_noise(spec, grid)
        promised = spec.working(self.place(grid))
        assert z.shape[1] == promised if spec.static else z.shape[1] <= promised

    @for_all_grids
    def test_class_tokens_pass_untouched(self, spec: ReducerSpec, grid: Grid) -> None:
        x, z, plan = self.reduce_noise(spec, grid)
        assert torch.equal(z[:, 0], x[:, 0]) and torch.equal(plan.restore(z)[:, 0], x[:, 0])

    @for_all_grids
    def test_restore_gives_every_token_its_own_working_token(
        self, spec: ReducerSpec, grid: Grid
    ) -> None:
        """A plan without an assignment gives each token itself."""
        _, z, plan = self.reduce_noise(spec, grid)
        places = grid[0] * grid[1]
        assignment = (
            torch.arange(places).expand(2, -1) if plan.assignment is None else plan.assignment
        )
        assert assignment.shape == (2, places)
        assert assignment.min() >= 0 and assignment.max() < z.shape[1] - 1
        assert torch.equal(
            plan.restore(z)[:, 1:], torch.stack([z[b, 1:][assignment[b]] for b in range(2)])
        )

    @for_all_grids
    def test_reducing_what_was_restored_gives_it_back(self, spec: ReducerSpec, grid: Grid) -> None:
        """In evaluation, where tokens then may go on as they are."""
        _, z, plan = self.reduce_noise(spec, grid, images=1)
        assert plan.exact
        torch.testing.assert_close(plan.reduce(plan.restore(z)), z)

    @for_all_grids
    def test_images_do_not_see_each_other(self, spec: ReducerSpec, grid: Grid) -> None:
        x, _, plan = self.reduce_noise(spec, grid, images=3)
        module = self.build(spec, grid)
        for b in range(3):
            z, alone = module(x[b : b + 1], grid, same)
            torch.testing.assert_close(
                plan.restore(plan.reduce(x))[b : b + 1], alone.restore(z), rtol=1e-5, atol=1e-6
            )

    @for_all_grids
    def test_answers_the_same_twice(self, spec: ReducerSpec, grid: Grid) -> None:
        x, z, _ = self.reduce_noise(spec, grid)
        assert torch.equal(z, self.build(spec, grid)(x, grid, same)[0])

    @for_all_grids
    def test_constant_image_is_kept(self, spec: ReducerSpec, grid: Grid) -> None:
        x = torch.ones(1, 1 + grid[0] * grid[1], DIM)
        z, plan = spec.build(self.place(grid)).eval()(x, grid, same)
        torch.testing.assert_close(plan.restore(z), x)
        assert (plan.sizes >= 1).all() and plan.sizes.sum() == x.shape[1]

    look = staticmethod(constant)  # of the gradient check: clusters are found without gradient

    @for_all
    def test_gradient_is_right(self, spec: ReducerSpec) -> None:
        grid = (4, 6)
        module = spec.build(self.place(grid)).double().eval()
        x = torch.randn(1, 25, DIM, dtype=torch.float64, requires_grad=True)
        probe = torch.randn_like(x)

        def value(x: Tensor) -> Tensor:
            z, plan = module(x, grid, self.look)
            return (plan.restore(z.square()) * probe).sum()

        torch.autograd.gradcheck(value, x, fast_mode=True)

    @for_all_grids
    def test_cost_formula_is_what_it_costs(self, spec: ReducerSpec, grid: Grid) -> None:
        x = torch.randn(1, 1 + grid[0] * grid[1], DIM)
        module = spec.build(self.place(grid)).eval()
        with FlopCounterMode(display=False) as counter:
            module(x, grid, same)
        assert spec.macs(self.place(grid)) == counter.get_total_flops() / 2

    def test_identity_to_the_bit(self) -> None:
        """Where K is N."""
        for text in self.identities:
            for grid in GRIDS:
                with case(text, grid):
                    x, z, plan = self.reduce_noise(ReducerSpec.parse(text), grid)
                    assert torch.equal(z, x) and torch.equal(plan.restore(z), x)
                    assert torch.equal(plan.reduce(x), x) and plan.sizes.eq(1).all()

    def test_one_graph(self) -> None:
        """Of the first spec: tracing is slow, and options change little."""
        spec, grid = ReducerSpec.parse(self.specs[0]), (8, 8)
        whole = ThereAndBack(spec.build(self.place(grid)).eval(), grid)
        x = torch.randn(2, 65, DIM)
        exported = torch.export.export(whole, (x,), strict=True)
        assert torch.equal(exported.module()(x), whole(x))


class ThereAndBack(torch.nn.Module):
    """A reducer with its way back: ``(B, N, C)`` -> the same shape."""

    def __init__(self, module: Reducer, grid: Grid) -> None:
        super().__init__()
        self.module, self.grid = module, grid

    def forward(self, x: Tensor) -> Tensor:
        """Reduce and restore."""
        z, plan = self.module(x, self.grid, same)
        return plan.restore(z)


class SelectionLaws(ReducerLaws):
    """Where a choice differs from a partition: the others stand for nobody and receive nothing."""

    @for_all_grids
    def test_restore_gives_every_token_its_own_working_token(
        self, spec: ReducerSpec, grid: Grid
    ) -> None:
        """And nothing to a token that was not chosen."""
        _, z, plan = self.reduce_noise(spec, grid)
        assert plan.assignment is None
        wanted = torch.zeros(2, grid[0] * grid[1], DIM)
        for image, chosen, working in zip(wanted, plan.index, z[:, 1:], strict=True):
            image[chosen] = working
        assert torch.equal(plan.restore(z)[:, 1:], wanted)

    @for_all_grids
    def test_sizes_sum_to_all_and_none_is_empty(self, spec: ReducerSpec, grid: Grid) -> None:
        """A chosen token stands for itself alone, so sizes sum to the working count."""
        for extra in (0, 1):
            _, z, plan = self.reduce_noise(spec, grid, extra, images=1)
            assert plan.single and plan.sizes.shape == z.shape[:2]
            assert plan.sizes.eq(1).all()
            assert plan.sizes.sum() == spec.working(self.place(grid, extra))

    @for_all_grids
    def test_constant_image_is_kept(self, spec: ReducerSpec, grid: Grid) -> None:
        """Nothing is averaged: a constant comes back where it worked, and zero elsewhere."""
        x = torch.ones(1, 1 + grid[0] * grid[1], DIM)
        z, plan = self.build(spec, grid)(x, grid, same)
        assert z.eq(1).all()
        back = plan.restore(z)
        assert set(back.unique().tolist()) <= {0.0, 1.0}
        assert back[..., 0].sum() == spec.working(self.place(grid))

    @for_all_grids
    def test_places_are_distinct_and_rise(self, spec: ReducerSpec, grid: Grid) -> None:
        _, _, plan = self.reduce_noise(spec, grid)
        assert (plan.index.diff(dim=1) > 0).all()
        assert plan.index.min() >= 0 and plan.index.max() < grid[0] * grid[1]


class DrawLaws(SelectionLaws):
    """Where the choice is drawn in training."""

    @for_all
    def test_training_draws_anew(self, spec: ReducerSpec) -> None:
        grid = (8, 8)
        module = self.build(spec, grid).train()
        x = torch.randn(2, 65, DIM)
        one, two = module(x, grid, same)[1], module(x, grid, same)[1]
        assert not torch.equal(one.index, two.index)
        assert not torch.equal(one.index[0], one.index[1])
        assert torch.equal(one.restore(one.reduce(x)).ne(0), one.restore(one.reduce(x + 9)).ne(0))


class SoftLaws(ReducerLaws):
    """Where shares differ from a partition: sizes are real numbers, and the way back smooths."""

    look = staticmethod(same)  # shares are differentiable: the gradient check goes through them

    @for_all_grids
    def test_sizes_sum_to_all_and_none_is_empty(self, spec: ReducerSpec, grid: Grid) -> None:
        """Column sums of shares that sum to one in each row."""
        for extra in (0, 1):
            _, z, plan = self.reduce_noise(spec, grid, extra, images=1)
            assert plan.sizes.shape == z.shape[:2] and (plan.sizes > 0).all()
            wanted = torch.tensor([float(extra + grid[0] * grid[1])])
            torch.testing.assert_close(plan.sizes.sum(1), wanted)
            torch.testing.assert_close(plan.weights.sum(2), torch.ones(1, grid[0] * grid[1]))

    @for_all_grids
    def test_restore_gives_every_token_its_own_working_token(
        self, spec: ReducerSpec, grid: Grid
    ) -> None:
        """What comes back is the mean of working tokens, weighted by the token's shares."""
        _, z, plan = self.reduce_noise(spec, grid)
        wanted = torch.einsum("bnk,bkc->bnc", plan.weights, z[:, 1:])
        torch.testing.assert_close(plan.restore(z)[:, 1:], wanted)
        assert plan.assignment.max() < z.shape[1] - 1

    @for_all_grids
    def test_reducing_what_was_restored_gives_it_back(self, spec: ReducerSpec, grid: Grid) -> None:
        """It does not, but nothing is lost on the whole: the mean over all tokens stays."""
        x, z, plan = self.reduce_noise(spec, grid, images=1)
        assert not plan.exact
        torch.testing.assert_close(
            (z * plan.sizes.unsqueeze(2)).sum(1), x.sum(1), rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(plan.restore(z).sum(1), x.sum(1), rtol=1e-4, atol=1e-4)

    @for_all_grids
    def test_constant_image_is_kept(self, spec: ReducerSpec, grid: Grid) -> None:
        x = torch.ones(1, 1 + grid[0] * grid[1], DIM)
        z, plan = self.build(spec, grid)(x, grid, same)
        torch.testing.assert_close(plan.restore(z), x)

    @for_all
    def test_the_choice_learns(self, spec: ReducerSpec) -> None:
        """Every parameter hears the loss."""
        module = self.build(spec, (6, 10)).train()
        z, plan = module(torch.randn(2, 61, DIM), (6, 10), same)
        (plan.restore(z.tanh()) * torch.randn(2, 61, DIM)).sum().backward()
        assert [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []
