"""Conv-attention: the schedule an eager CPU takes at inference gives what the formula gives."""

import pytest
import torch

from vitrail.layers.attend import attend_factorised, softmax_over_tokens
from vitrail.layers.fused import NARROW_HEAD
from vitrail.layers.plan import Plan
from vitrail.tokens.plans import Clusters


def some_plan(images: int, tokens: int, full: int) -> Plan:
    assignment = torch.arange(full).remainder(tokens - 1).expand(images, -1)
    counts = torch.nn.functional.one_hot(assignment, tokens - 1).sum(1).float()
    return Clusters(
        grid=(1, full), extra=1, cluster_of=assignment, clusters=tokens - 1, counts=counts
    )


@pytest.mark.parametrize("width", [3, 8, NARROW_HEAD])
@pytest.mark.parametrize("planned", [False, True])
def test_narrow_heads_meet_densely_and_alike(width: int, planned: bool) -> None:
    q, k, v = torch.randn(3, 2, 11, 4 * width, dtype=torch.float64)
    sizes = some_plan(2, 11, 25).sizes if planned else None
    alone = attend_factorised(q, *softmax_over_tokens(k, sizes), v, 4)
    with torch.inference_mode():
        together = attend_factorised(q, *softmax_over_tokens(k, sizes), v, 4)
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
