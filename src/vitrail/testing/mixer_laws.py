"""The laws every mixer keeps; a new mixer gets them by subclassing with its specs.

class TestMine(MixerLaws):
    specs = ["mine", "mine(option=2)"]
"""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vitrail.layers.attend import join_heads
from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.mixers import Mixer, MixerSpec
from vitrail.specs import Place, SpecError
from vitrail.testing.cases import case, leave_out
from vitrail.tokens.plans import Clusters

GRID = (6, 8)
Built = tuple[MixerSpec, Place, Any, nn.Module | None]


def for_all(law: Callable[[Any, Built], None]) -> Callable[[Any], None]:
    """Hold a law of one built mixer for all ``specs`` of its suite in all ``places``."""

    @wraps(law)
    def test(self: "MixerLaws") -> None:
        for text in self.specs:
            for place in self.places:
                with case(text, place):
                    law(self, self.build(text, place))

    del test.__wrapped__  # pytest asks it for the fixtures
    return test


class MixerLaws:
    """Laws of :mod:`vitrail.mixers.base`."""

    specs: ClassVar[list[str]] = []
    places: ClassVar[list[Place]] = [
        Place(dim=32, heads=8, grid=GRID, extra=1, index=1),
        Place(dim=24, heads=3, grid=GRID),
    ]
    exact_macs = True  # whether macs() is a count, not an upper bound
    half_error = 0.05  # relative; more where a rounded score may choose another cluster
    learns = True  # whether it has parameters
    traces = True  # to one graph that compiles and exports; False, too, where a model shows it
    counts_exactly = True  # whether a token of size n is n equal tokens

    def __init_subclass__(cls) -> None:
        """Leave out what does not speak of these specs.

        A suite with its own ``spelled_out`` has other parts than attention and values.
        """
        super().__init_subclass__()
        if not cls.traces:
            leave_out(cls, "test_one_graph_and_export")
        if cls.spelled_out is not MixerLaws.spelled_out:
            leave_out(cls, "test_keys_are_means_of_tokens")

    def build(self, text: str, place: Place) -> Built:
        """A mixer and what it shares, every parameter moved away from where it starts."""
        spec = MixerSpec.parse(text)
        torch.manual_seed(0)
        mixer, shared = spec.build(place).eval(), spec.build_shared(place)
        with torch.no_grad():
            for p in mixer.parameters():
                p.add_(torch.randn_like(p) * 0.2)
        return spec, place, mixer, shared

    def test_text_round_trip(self) -> None:
        for spec in map(MixerSpec.parse, self.specs):
            assert MixerSpec.parse(str(spec)) == spec

    @for_all
    def test_serves_any_grid(self, built: Built) -> None:
        _, place, mixer, shared = built
        for grid in (place.grid, (1, 1), (3, 5), (7, 7), (16, 12)):
            x = torch.randn(2, place.extra + grid[0] * grid[1], place.dim)
            y = mixer(x, grid, shared)
            assert y.shape == x.shape and y.isfinite().all(), grid

    @for_all
    def test_images_do_not_see_each_other(self, built: Built) -> None:
        """Nor does an answer change when it is asked for twice."""
        _, place, mixer, shared = built
        x = torch.randn(3, place.tokens, place.dim)
        together = mixer(x, place.grid, shared)
        alone = torch.cat([mixer(image[None], place.grid, shared) for image in x])
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
        assert torch.equal(mixer(x, place.grid, shared), together)

    @for_all
    def test_every_parameter_learns(self, built: Built) -> None:
        _, place, mixer, shared = built
        x = torch.randn(2, place.tokens, place.dim, requires_grad=True)
        mixer(x, place.grid, shared).square().sum().backward()
        assert x.grad is not None and x.grad.isfinite().all() and x.grad.any()
        parameters = [*mixer.named_parameters(), *(shared.named_parameters() if shared else [])]
        assert bool(parameters) == self.learns
        assert [n for n, p in parameters if p.grad is None or not p.grad.any()] == []

    @for_all
    def test_gradient_is_right(self, built: Built) -> None:
        _, place, mixer, shared = built
        mixer = mixer.double()
        shared = shared.double() if shared else None
        grid = (2, 3)
        x = torch.randn(1, place.extra + 6, place.dim, dtype=torch.float64, requires_grad=True)
        probe = torch.randn_like(x)

        def value(x: Tensor) -> Tensor:
            return (mixer(x, grid, shared) * probe).sum()

        torch.autograd.gradcheck(value, x, fast_mode=True)

    @for_all
    def test_cost_formula_is_what_it_costs(self, built: Built) -> None:
        spec, place, mixer, shared = built
        x = torch.randn(1, place.tokens, place.dim)
        counter = FlopCounterMode(display=False)
        with counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            mixer(x, place.grid, shared)
        counted = counter.get_total_flops() / 2
        if self.exact_macs:
            assert spec.macs(place) == pytest.approx(counted, rel=1e-3)
        else:
            assert counted <= spec.macs(place)

    @for_all
    def test_half_precision_is_finite(self, built: Built) -> None:
        _, place, mixer, shared = built
        x = 3 * torch.randn(1, place.tokens, place.dim)
        wanted = mixer(x, place.grid, shared)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = mixer(x, place.grid, shared).float()
        assert got.isfinite().all()
        assert (got - wanted).abs().mean() < self.half_error * wanted.abs().mean() + 0.02

    @for_all
    def test_working_tokens_or_a_remedy(self, built: Built) -> None:
        """Scattered tokens are either served, with sizes that count, or refused in words."""
        spec, place, *_ = built
        scattered = replace(place, grid=GRID, scattered=True)
        try:
            mixer, shared = spec.build(scattered).eval(), spec.build_shared(scattered)
        except SpecError as error:
            assert str(spec) in str(error) and ";" in str(error)
            return
        plan = pairs_plan(place.extra)
        z = torch.randn(2, place.extra + GRID[0] * GRID[1] // 2, place.dim)
        assert mixer(z, GRID, shared, plan).shape == z.shape
        if not self.counts_exactly:
            assert not torch.equal(
                mixer(z, GRID, shared, plan), mixer(z, GRID, shared, single(plan))
            )
            return
        full = plan.restore(z)
        torch.testing.assert_close(
            plan.restore(mixer(z, GRID, shared, plan)),
            plan.restore(plan.reduce(mixer(full, GRID, shared))),
            rtol=1e-4,
            atol=1e-5,
        )

    def spelled_out(
        self,
        mixer: Any,
        x: Tensor,
        grid: Grid,
        shared: nn.Module | None,
        plan: Plan | None = None,
    ) -> Tensor:
        """The answer put together from ``explain``; override it where that has other parts."""
        parts = mixer.explain(x, grid, shared, plan)
        return mixer.proj(join_heads(parts["attention"] @ parts["values"]))

    @for_all
    def test_keys_are_means_of_tokens(self, built: Built) -> None:
        _, place, mixer, shared = require_explanation(built)
        x = torch.randn(2, place.tokens, place.dim)
        parts = mixer.explain(x, place.grid, shared)
        rows = mixer.make_keys(torch.ones(2, place.tokens, 1), place.grid)[:, :, 0]
        if "sources" in parts:
            rows = parts["sources"].sum(3)[:, 0]
        torch.testing.assert_close(rows, torch.ones(2, parts["values"].shape[2]))

    @for_all
    def test_explanation_is_the_fast_path_spelled_out(self, built: Built) -> None:
        _, place, mixer, shared = require_explanation(built)
        for grid in (place.grid, (5, 9)):
            x = torch.randn(2, place.extra + grid[0] * grid[1], place.dim)
            wanted = mixer(x, grid, shared)
            torch.testing.assert_close(
                self.spelled_out(mixer, x, grid, shared), wanted, rtol=1e-4, atol=1e-5
            )

    def test_one_graph_and_export(self) -> None:
        """Of the first spec: tracing is slow, and options change little."""
        _, place, mixer, shared = self.build(self.specs[0], self.places[0])
        whole = OnGrid(mixer, shared, place.grid)
        two, three = (torch.randn(b, place.tokens, place.dim) for b in (2, 3))
        torch.compiler.reset()
        with torch.no_grad():
            dynamic = ({0: torch.export.Dim.DYNAMIC},)
            exported = torch.export.export(whole, (two,), dynamic_shapes=dynamic).module()
            torch.testing.assert_close(exported(three), whole(three), rtol=1e-4, atol=1e-5)
            compiled = torch.compile(whole, fullgraph=True, backend="eager")
            torch.testing.assert_close(compiled(two), whole(two), rtol=1e-4, atol=1e-5)


def require_explanation(built: Built) -> Built:
    """A built mixer that explains itself; one that does not is left alone: it need not."""
    if type(built[2]).explain is Mixer.explain:
        pytest.skip("it has no explanation")
    return built


class OnGrid(nn.Module):
    """A mixer as a function of its tokens."""

    def __init__(self, mixer: Mixer, shared: nn.Module | None, grid: Grid) -> None:
        super().__init__()
        self.mixer, self.shared, self.grid = mixer, shared, grid

    def forward(self, x: Tensor) -> Tensor:
        return self.mixer(x, self.grid, self.shared)


def single(plan: Clusters) -> Clusters:
    """The same plan, with working tokens that stand for one token each."""
    return replace(plan, counts=torch.ones_like(plan.counts))


def pairs_plan(extra: int) -> Clusters:
    """Neighbours in a row are one cluster."""
    tokens = GRID[0] * GRID[1]
    assignment = (torch.arange(tokens) // 2).expand(2, -1)
    counts = torch.full((2, tokens // 2), 2.0)
    return Clusters(
        grid=GRID, extra=extra, cluster_of=assignment, clusters=tokens // 2, counts=counts
    )
