"""Maps brought to a size and to values that can be shown."""

import pytest
import torch

from vitrail.attribution import ExplainError, normalise
from vitrail.attribution.scale import resize


def test_scales_for_display() -> None:
    maps = torch.tensor([[[-2.0, 0.0], [1.0, 2.0]]])
    assert normalise(maps).flatten().tolist() == [0, 0.5, 0.75, 1]
    assert normalise(maps, "abs").flatten().tolist() == [1, 0, 0.5, 1]
    assert normalise(maps, "positive").flatten().tolist() == [0, 0, 0.5, 1]
    assert normalise(maps, "p99").flatten().tolist() == [-1, 0, 0.5, 1]
    assert torch.isfinite(normalise(torch.zeros(1, 2, 2))).all()
    even = 3.0 + 1e-6 * torch.rand(1, 4, 4)
    assert normalise(even).abs().max() < 1e-5
    with pytest.raises(ExplainError, match="p99"):
        normalise(maps, "loud")


def test_resizing_keeps_the_middle_in_the_middle() -> None:
    hot = torch.zeros(1, 3, 3)
    hot[0, 1, 1] = 1
    large = resize(hot, (9, 9))
    torch.testing.assert_close(large, large.flip(1, 2))
