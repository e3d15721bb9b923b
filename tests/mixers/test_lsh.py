"""LSH attention: with one bucket and one run it is full attention, with more it is near to it."""

import pytest
import torch
import torch.nn.functional as F

from vitrail.layers.attend import attend, join_heads, split_heads
from vitrail.mixers import MixerSpec
from vitrail.specs import Place, SpecError


def built(text, **place):
    torch.manual_seed(0)
    return MixerSpec.parse(text).build(Place(dim=24, heads=3, **place)).eval()


def full(mixer, x):
    """Shared queries and keys, the latter of length one; nobody attends to itself."""
    q, v = (split_heads(t, 3) for t in (mixer.qk(x), mixer.v(x)))
    others = ~torch.eye(x.shape[1], dtype=torch.bool)
    return mixer.proj(join_heads(attend(q, F.normalize(q, dim=3), v, others)))


@pytest.mark.parametrize("extra", [0, 2])
@pytest.mark.parametrize("rounds", [1, 3])
def test_one_bucket_and_one_run_is_full_attention(extra, rounds):
    mixer = built(f"lsh(rounds={rounds}, buckets=1, run=64)", grid=(5, 7), extra=extra)
    x = torch.randn(2, extra + 35, 24)
    torch.testing.assert_close(mixer(x, (5, 7)), full(mixer, x), rtol=1e-5, atol=1e-6)


def test_one_bucket_in_two_runs_is_still_full():
    mixer = built("lsh(rounds=2, buckets=1, run=20)", grid=(5, 7))
    x = torch.randn(2, 35, 24)
    torch.testing.assert_close(mixer(x, (5, 7)), full(mixer, x), rtol=1e-5, atol=1e-6)


def test_more_rounds_come_nearer_to_full_attention():
    x, errors = torch.randn(4, 64, 24), []
    for rounds in (1, 4, 16):
        mixer = built(f"lsh(rounds={rounds}, buckets=4, run=32)", grid=(8, 8))
        errors.append(float((mixer(x, (8, 8)) - full(mixer, x)).square().mean().detach()))
    assert errors[0] > errors[1] > errors[2]


def test_a_token_alone_in_its_bucket_attends_to_itself():
    mixer = built("lsh(rounds=1, buckets=2, run=4)", grid=(2, 2))
    with torch.no_grad():
        mixer.qk.weight.copy_(torch.eye(24))
        mixer.qk.bias.zero_()
    x = torch.ones(1, 4, 24)
    x[:, 0] *= -1
    weights = mixer.explain(x, (2, 2))["attention"]
    assert torch.equal(weights[0, :, 0, 0], torch.ones(3))
    assert weights[0, :, 1:, 1:].diagonal(dim1=1, dim2=2).eq(0).all()


def test_buckets_follow_from_the_grid_it_was_built_for():
    spec = MixerSpec.parse("lsh(run=8)")
    for side, buckets in ((2, 1), (4, 2), (8, 8), (9, 12)):
        assert spec.bucket_count(Place(dim=24, heads=3, grid=(side, side))) == buckets


def test_options_without_meaning_are_refused():
    with pytest.raises(SpecError, match="an option is below one; try rounds=4"):
        built("lsh(rounds=0)", grid=(4, 5))
