"""Linear attention against the paper's sums, token by token."""

import torch
import torch.nn.functional as F

from vitrail.layers.attend import join_heads, split_heads
from vitrail.mixers import MixerSpec
from vitrail.mixers.linear import kernel
from vitrail.specs import Place


def test_it_is_the_papers_sum_over_keys():
    mixer = MixerSpec.parse("linear").build(Place(dim=24, heads=3, grid=(4, 5)))
    x = torch.randn(2, 20, 24)
    q, k, v = (split_heads(t, 3) for t in mixer.qkv(x).chunk(3, 2))
    q, k = F.elu(q) + 1, F.elu(k) + 1
    above = torch.einsum("bhid,bhjd,bhje->bhie", q, k, v)
    wanted = mixer.proj(join_heads(above / torch.einsum("bhid,bhjd->bhi", q, k).unsqueeze(3)))
    torch.testing.assert_close(mixer(x, (4, 5)), wanted, rtol=1e-5, atol=1e-6)


def test_the_kernel_never_vanishes_in_half_precision():
    x = torch.tensor([-20.0, -1.0, 0.0, 3.0])
    torch.testing.assert_close(kernel(x), F.elu(x) + 1, rtol=0, atol=1e-6)
    assert kernel(x.bfloat16()).gt(0).all() and not (F.elu(x.bfloat16()) + 1).gt(0).all()


def test_sums_over_many_tokens_stay_in_range():
    mixer = MixerSpec.parse("linear").build(Place(dim=8, heads=1, grid=(2, 2))).half()
    k = torch.full((1, 1, 70_000, 8), 4.0, dtype=torch.half)
    assert mixer.weigh_keys(k, None).sum(2).isfinite().all()
