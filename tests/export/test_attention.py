"""Attention taken apart: what is, what is not, and that its answers stay."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as fused

from vitrail.export import attention
from vitrail.export.graph import calls, capture, copy_graph


class Attention(nn.Module):
    """Pictures to ``(B, 2, 64, d)``, with a table for a mask or none, and whatever is asked."""

    def __init__(self, table: bool, **options: object) -> None:
        super().__init__()
        self.options = options
        offsets = torch.linspace(-2, 2, 64 * 64).view(1, 64, 64)
        self.register_buffer("table", offsets if table else None)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = x.flatten(2).view(x.shape[0], 3, 2, -1, 64).transpose(-2, -1).unbind(1)
        mask = {} if self.table is None else {"attn_mask": self.table.to(x.dtype)}
        return fused(q, k, v, **mask, **self.options)


def parted(model: nn.Module, dtype: torch.dtype, head: int = 32) -> tuple[int, nn.Module, Tensor]:
    x = torch.randn(2, 6 * head, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    graph = copy_graph(capture(model, x))
    return attention.split_attention(graph), graph, x


@pytest.mark.parametrize("at_once", [2**20, 2 * 2 * 2 * 64 * 7])
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("table", [False, True])
def test_the_answers_stay(table, scale, at_once, monkeypatch) -> None:
    monkeypatch.setattr(attention, "SCORE_BYTES", at_once)
    model = Attention(table, scale=scale)
    changed, graph, x = parted(model, torch.bfloat16)
    assert changed == 1
    assert not calls(graph, attention.FUSED)
    torch.testing.assert_close(graph(x), model(x), rtol=0.03, atol=0.03)


def test_a_mask_of_one_row_serves_all_queries(monkeypatch) -> None:
    monkeypatch.setattr(attention, "SCORE_BYTES", 1)
    q, k, v = torch.randn(3, 2, 2, 5, 4)
    mask = torch.randn(2, 1, 1, 5)
    torch.testing.assert_close(attention.attend(q, k, v, mask, None), fused(q, k, v, mask))


def test_float32_and_narrow_heads_stay_fused() -> None:
    assert parted(Attention(True), torch.float32)[0] == 0
    assert parted(Attention(True), torch.bfloat16, head=16)[0] == 0


@pytest.mark.parametrize("options", [{"is_causal": True}, {"enable_gqa": True}])
def test_more_than_attention_stays_fused(options) -> None:
    assert parted(Attention(False, **options), torch.bfloat16)[0] == 0
