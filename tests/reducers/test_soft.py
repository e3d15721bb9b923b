"""Soft clusters learn to tell what should be told apart."""

import torch
from torch import nn

from vitrail.reducers import ReducerSpec
from vitrail.specs import Place
from vitrail.testing import same


def test_clusters_come_to_follow_what_matters():
    """Two sorts of places lie at random; trained to give each back its own sort, shares part."""
    torch.manual_seed(0)
    module = ReducerSpec.parse("paca(clusters=2)").build(Place(dim=4, heads=1, grid=(6, 6)))
    optimizer = torch.optim.Adam(module.parameters(), 0.02)

    def loss():
        sort = torch.rand(16, 36, 1).gt(0.5).float()
        x = torch.cat((sort, 0.1 * torch.randn(16, 36, 3)), 2)
        z, plan = module(x, (6, 6), same)
        return nn.functional.mse_loss(plan.restore(z)[..., :1], sort)

    before = loss().item()
    for _ in range(60):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert before > 0.2 and loss().item() < 0.05  # 0.25 is what one cluster for all would miss
