"""Each folding step changes what it should, and no output."""

import pytest
import torch
from tests.parity.measured import randomised
from torch import nn

from vitrail.export import fold
from vitrail.export.graph import aten, calls, capture, copy_graph


def folded(model: nn.Module, step, shape=(2, 6, 8, 8)) -> tuple[int, nn.Module]:
    """How much a step changed, after outputs were found equal."""
    model = randomised(model)
    x = torch.randn(3, *shape[1:])
    before = capture(model, x)
    after = copy_graph(before)
    changed = step(after)
    with torch.no_grad():
        torch.testing.assert_close(after(x), model(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(before(x), model(x), rtol=1e-4, atol=1e-5)
    return changed, after


@pytest.mark.parametrize("bias", [True, False])
def test_a_batch_norm_goes_into_the_convolution_before_it(bias) -> None:
    model = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1, groups=2, bias=bias), nn.BatchNorm2d(8))
    changed, graph = folded(model, fold.fold_batch_norms)
    assert changed == 1
    assert not calls(graph, aten.batch_norm.default)


def test_a_batch_norm_goes_into_the_pointwise_convolution_behind_it() -> None:
    pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
    model = nn.Sequential(nn.BatchNorm2d(6), pool, nn.Conv2d(6, 9, 1))
    assert folded(model, fold.fold_batch_norms, (2, 6, 7, 7))[0] == 1


@pytest.mark.parametrize(
    "behind", [nn.Conv2d(6, 6, 3, padding=1), nn.GELU(), nn.Conv2d(6, 6, 1, padding=1)]
)
def test_a_batch_norm_stays_where_folding_would_not_be_exact(behind) -> None:
    changed, graph = folded(nn.Sequential(nn.BatchNorm2d(6), behind), fold.fold_batch_norms)
    assert changed == 0
    assert len(calls(graph, aten.batch_norm.default)) == 1


class Sum(nn.Module):
    """What is added to a convolution of it."""

    def __init__(self, *args, **options):
        super().__init__()
        self.conv = nn.Conv2d(6, 6, *args, **options)

    def forward(self, x):
        return x + self.conv(x)


@pytest.mark.parametrize(("kernel", "groups", "changes"), [(3, 6, 1), (5, 6, 1), (3, 3, 0)])
def test_what_is_added_to_its_depthwise_convolution_goes_into_it(kernel, groups, changes) -> None:
    model = Sum(kernel, padding=kernel // 2, groups=groups)
    changed, graph = folded(model, fold.fold_identities)
    assert changed == changes and len(calls(graph, aten.add.Tensor)) == 1 - changes


def test_a_convolution_that_others_read_keeps_its_weights() -> None:
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + y

    assert folded(Both(), fold.fold_batch_norms)[0] == 0


def test_a_convolution_that_serves_twice_is_folded_for_each_norm() -> None:
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(6, 6, 1)
            self.first, self.second = nn.BatchNorm2d(6), nn.BatchNorm2d(6)

        def forward(self, x):
            return self.second(self.conv(self.first(self.conv(x))))

    assert folded(Twice(), fold.fold_batch_norms)[0] == 2


def tokens(x):
    return x.flatten(2).transpose(1, 2)


def test_a_layer_norms_affine_goes_into_all_its_readers() -> None:
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.a, self.b = nn.LayerNorm(6), nn.Linear(6, 4), nn.Linear(6, 4, False)

        def forward(self, x):
            y = self.norm(tokens(x))
            return self.a(y) + self.b(y[:, :1])

    changed, graph = folded(Heads(), fold.fold_layer_norms)
    assert changed == 1
    (norm,) = calls(graph, aten.layer_norm.default)
    assert norm.args[2:4] == (None, None)


def test_a_layer_norm_that_others_read_keeps_its_affine() -> None:
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.linear = nn.LayerNorm(6), nn.Linear(6, 6)

        def forward(self, x):
            y = self.norm(tokens(x))
            return y + self.linear(y)

    assert folded(Residual(), fold.fold_layer_norms)[0] == 0


def test_what_no_picture_changes_is_computed_once() -> None:
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(1, 6, 4, 4))

        def forward(self, x):
            tap = self.table.new_zeros(self.table.shape)
            tap[..., 0, 0] = 1  # writes into a constant
            table = nn.functional.interpolate(self.table + tap, x.shape[2:], mode="bilinear")
            return x * table.softmax(1) + torch.arange(x.shape[3])

    changed, graph = folded(Table(), fold.fold_constants)
    assert changed == 2
    assert len([n for n in graph.graph.nodes if n.op == "call_function"]) <= 2


def test_chance_and_large_tables_are_left_alone(monkeypatch) -> None:
    class Random(nn.Module):
        def forward(self, x):
            return x + 0 * torch.rand(x.shape[1:])

    assert folded(Random(), fold.fold_constants)[0] == 0

    class Wide(nn.Module):
        def forward(self, x):
            return x + torch.arange(8).float().sin()

    assert folded(Wide(), fold.fold_constants)[0] == 1
    monkeypatch.setattr(fold, "LARGEST", 16)
    assert folded(Wide(), fold.fold_constants)[0] == 0


def test_products_for_attention_become_one() -> None:
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(6, 8, bias=i != 1) for i in range(3))

        def forward(self, x):
            x = tokens(x)
            q, k, v = (f(x).unflatten(2, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
            return nn.functional.scaled_dot_product_attention(q, k, v)

    changed, graph = folded(Attention(), fold.fuse_projections)
    assert changed == 1
    assert len(calls(graph, aten.linear.default)) == 1


def test_products_that_others_read_stay_apart() -> None:
    class Apart(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x):
            x = tokens(x)
            return self.a(x) * self.b(x)

    assert folded(Apart(), fold.fuse_projections)[0] == 0


def test_constants_get_the_type_they_are_used_in_and_memory_of_their_own() -> None:
    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(12, 6))

        def forward(self, x):
            first, second = self.weight.chunk(2)
            return nn.functional.linear(tokens(x), first) * nn.functional.linear(tokens(x), second)

    model = randomised(Parts())
    graph = capture(model, torch.randn(2, 6, 8, 8))
    assert fold.fold_constants(graph) == 2
    assert fold.materialise_constants(graph) == 2
    assert all(c.untyped_storage().nbytes() == c.nbytes for c in graph.buffers())
    half = capture(
        model.bfloat16(), torch.randn(2, 6, 8, 8).bfloat16(), {"weight": model.weight.float()}
    )
    assert fold.materialise_constants(half) == 1
    assert {c.dtype for c in half.buffers()} == {torch.bfloat16}
