"""Conv-attention: the schedule an eager CPU takes at inference gives what the formula gives."""

import pytest
import torch

from vitrail.layers.plan import Clusters, Plan
from vitrail.mixers.conv import NARROW, answer


def some_plan(images: int, tokens: int, full: int) -> Plan:
    owner = torch.arange(full).remainder(tokens - 1).expand(images, -1)
    counts = torch.nn.functional.one_hot(owner, tokens - 1).sum(1).float()
    return Clusters(grid=(1, full), extra=1, owner=owner, clusters=tokens - 1, counts=counts)


@pytest.mark.parametrize("width", [3, 8, NARROW])
@pytest.mark.parametrize("planned", [False, True])
def test_narrow_heads_meet_densely_and_alike(width: int, planned: bool) -> None:
    q, k, v = torch.randn(3, 2, 11, 4 * width, dtype=torch.float64)
    plan = some_plan(2, 11, 25) if planned else None
    alone = answer(q, k, v, 4, plan)
    with torch.inference_mode():
        together = answer(q, k, v, 4, plan)
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
