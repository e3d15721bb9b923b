"""Clustered attention: with as many clusters, or best keys, as tokens it is softmax attention."""

import pytest
import torch

from vitrail.layers.attend import attention_weights, split_heads
from vitrail.mixers import MixerSpec
from vitrail.mixers.clustered import cluster_queries
from vitrail.specs import Place, SpecError

GRID = (5, 7)


def built(text, extra=0):
    torch.manual_seed(0)
    return MixerSpec.parse(text).build(Place(dim=24, heads=3, grid=GRID, extra=extra)).eval()


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize(
    "text",
    [
        "clustered(clusters=35)",
        "improved_clustered(clusters=35, best=4)",
        "improved_clustered(clusters=3, best=36)",
    ],
)
def test_nothing_left_out_is_softmax_attention(text, extra):
    mixer, plain = built(text, extra), built("softmax", extra)
    plain.load_state_dict(mixer.state_dict(), strict=False)
    x = torch.randn(2, extra + 35, 24)
    torch.testing.assert_close(mixer(x, GRID), plain(x, GRID), rtol=1e-5, atol=1e-6)


def test_queries_of_one_cluster_hear_the_same():
    mixer = built("clustered(clusters=4)")
    x = torch.randn(1, 35, 24)
    parts = mixer.explain(x, GRID)
    for head, assignment in enumerate(parts["clusters"][0]):
        for cluster in assignment.unique():
            rows = parts["attention"][0, head, assignment == cluster]
            torch.testing.assert_close(rows, rows[:1].expand_as(rows))


def test_every_query_weighs_its_best_keys_and_leaves_the_others():
    """Equation 10: what the best keys got together is the cluster's, the shares are one's own."""
    mixer, x = built("improved_clustered(clusters=4, best=6)"), torch.randn(1, 35, 24)
    parts = mixer.explain(x, GRID)
    q, k, _ = (split_heads(t, 3) for t in mixer.qkv(x).chunk(3, 2))
    queries, _ = cluster_queries(mixer, q, 0, None)
    own, assignment = attention_weights(q, k)[0, 1], parts["clusters"][0, 1]
    for token in range(35):
        cluster = attention_weights(queries, k)[0, 1, assignment[token]]
        best = cluster.topk(6).indices
        wanted = cluster.clone()
        wanted[best] = own[token, best] / own[token, best].sum() * cluster[best].sum()
        torch.testing.assert_close(parts["attention"][0, 1, token], wanted, rtol=1e-4, atol=1e-6)


def test_improving_comes_nearer_to_softmax_attention():
    x, errors = 4 * torch.randn(4, 35, 24), []
    for text in ("clustered(clusters=4)", "improved_clustered(clusters=4, best=8)"):
        mixer, plain = built(text), built("softmax")
        plain.load_state_dict(mixer.state_dict(), strict=False)
        errors.append(float((mixer(x, GRID) - plain(x, GRID)).square().mean().detach()))
    assert errors[1] < errors[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clustered(clusters=0)", "an option is too small; try clusters=64"),
        ("improved_clustered(best=0)", "no best keys are left; try best=32"),
    ],
)
def test_options_without_meaning_are_refused(text, said):
    with pytest.raises(SpecError, match=said):
        built(text)
