"""``torch.fx`` sees a node for each block, and its graph gives the model's numbers."""

import pytest
import torch
from tests.contracts.structures import kinds, narrow
from torch import nn
from torch.fx import symbolic_trace

from vitrail.errors import UserError
from vitrail.layers.grid import pad_to
from vitrail.layers.trace import above, one_node

SIZES = ((64, 64), (75, 101))


@pytest.mark.parametrize("name", kinds())
def test_one_graph_serves_all_sizes_to_the_bit(name):
    model = narrow(name).eval()
    graph = symbolic_trace(model)
    for size in SIZES:
        x = torch.randn(2, 3, *size)
        with torch.no_grad():
            assert torch.equal(graph(x), model(x))
    called = {node.target for node in graph.graph.nodes if node.op == "call_module"}
    blocks = {id(block) for chain in model.chains() for block in chain}
    seen = {name for name, module in model.named_modules() if id(module) in blocks}
    assert seen <= called


@pytest.mark.parametrize("reducer", ["random", "cluster", "pool"])
def test_blocks_with_a_reducer(reducer):
    model = narrow("vit_tiny", reducer=reducer).eval()
    x = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        assert torch.equal(symbolic_trace(model)(x), model(x))


def test_a_model_inside_another():
    inner = narrow("cmt_ti").eval()
    outer = nn.Sequential(nn.Identity(), inner)
    graph, x = symbolic_trace(outer), torch.randn(1, 3, 64, 64)
    assert torch.equal(graph(x), outer(x))
    assert "1.stages.0.blocks.0" in {node.target for node in graph.graph.nodes}


def test_the_graph_refuses_what_the_model_refuses():
    graph = symbolic_trace(narrow("vit_tiny"))
    with pytest.raises(UserError, match="takes images"):
        graph(torch.zeros(1, 4, 64, 64))


def test_a_function_is_one_node_also_where_only_a_part_of_a_tuple_is_traced():
    @one_node
    def grown(grid, *, by):
        return grid if by == (1, 1) else tuple(g * b for g, b in zip(grid, by, strict=True))

    class Grown(nn.Module):
        def forward(self, x):
            return grown((2, 3), by=[(x.shape[-1], 2)][0]), pad_to(x, 4)

    grid, padded = symbolic_trace(Grown())(torch.ones(1, 1, 5, 5))
    assert grid == (10, 6) and padded.shape == (1, 1, 8, 8)
    assert grown((2, 3), by=(1, 1)) == (2, 3)


def test_modules_above_some_parts():
    inner = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    outer = nn.Sequential(inner, nn.Linear(1, 1))
    assert above(outer, {inner[0]}) == {outer, inner, inner[0]}
