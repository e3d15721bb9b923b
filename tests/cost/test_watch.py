"""What happens is booked on the module that runs."""

import pytest
import torch
from torch import nn

from vitrail.cost.watch import (
    ModuleTimes,
    OperatorLedger,
    Stopwatch,
    moves_memory,
    tensor_bytes,
    watch_modules,
)

aten = torch.ops.aten


class Shared(nn.Module):
    """One layer called by two others, and some work of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 4))
        self.second = nn.Sequential(self.first[0], nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)) @ torch.ones(4, 2)


class FakeWatch(Stopwatch):
    """One second passes between two marks."""

    def __init__(self) -> None:
        self.now = 0.0

    def mark(self) -> float:
        self.now += 1.0
        return self.now


def test_own_time_goes_to_the_innermost_module() -> None:
    model, diary = Shared(), ModuleTimes(FakeWatch())
    with watch_modules(model, diary.enter, diary.leave):
        model(torch.ones(1, 4))
    spent = diary.close()
    assert spent == {"": 3.0, "first": 2.0, "first.0": 2.0, "second": 3.0, "second.1": 1.0}
    assert diary.close() == {}


def test_hooks_are_taken_off_even_after_an_error() -> None:
    model, diary = Shared(), ModuleTimes(FakeWatch())
    with pytest.raises(RuntimeError), watch_modules(model, diary.enter, diary.leave):
        model(torch.ones(1, 3))
    assert diary.stack == []
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_ledger_books_multiply_adds_and_bytes() -> None:
    model, book = Shared(), OperatorLedger()
    with torch.no_grad(), watch_modules(model, book.enter, book.leave), book:
        model(torch.ones(3, 4))
    assert book.macs == {"first.0": 2 * 3 * 16, "": 3 * 8}
    linear = 4 * (3 * 4 + 16 + 4 + 3 * 4)
    assert book.traffic["first.0"] == 2 * linear
    assert book.traffic["second.1"] == 4 * (3 * 4 + 3 * 4)
    assert "second" not in book.traffic


def test_views_move_nothing() -> None:
    assert not moves_memory(aten.view.default)
    assert not moves_memory(aten.transpose.int)
    assert not moves_memory(aten.empty.memory_format)
    assert moves_memory(aten.add_.Tensor)
    assert moves_memory(aten.clone.default)


def test_an_expanded_tensor_is_read_as_what_it_expands() -> None:
    row = torch.zeros(1, 8)
    assert tensor_bytes(row.expand(100, 8)) == tensor_bytes(row) == 32
    assert tensor_bytes([row, {"more": row}, 3]) == 64
