"""The sliding window against masked and plain softmax attention."""

import pytest
import torch

from vitrail.layers.attend import attend, join_heads, split_heads
from vitrail.mixers import MixerSpec
from vitrail.specs import Place, SpecError


def built(text, **place):
    return MixerSpec.parse(text).build(Place(dim=24, heads=3, **place)).eval()


@pytest.mark.parametrize("grid", [(7, 10), (3, 5), (1, 9), (6, 6)])
@pytest.mark.parametrize("radius", [0, 1, 3])
def test_it_is_softmax_attention_under_a_mask(grid, radius):
    mixer = built(f"sliding(radius={radius}, globals=0)", grid=grid)
    places = [(i, j) for i in range(grid[0]) for j in range(grid[1])]
    near = torch.tensor(
        [[max(abs(i - k), abs(j - m)) <= radius for k, m in places] for i, j in places]
    )
    x = torch.randn(2, len(places), 24)
    q, k, v = (split_heads(t, 3) for t in mixer.qkv(x).chunk(3, 2))
    wanted = mixer.proj(join_heads(attend(q, k, v, near)))
    torch.testing.assert_close(mixer(x, grid), wanted, rtol=1e-5, atol=1e-6)


def test_a_radius_over_all_is_softmax_attention():
    mixer = built("sliding(radius=9, globals=0)", grid=(5, 7), extra=1)
    plain = built("softmax", grid=(5, 7), extra=1)
    plain.load_state_dict(mixer.state_dict())
    x = torch.randn(2, 36, 24)
    torch.testing.assert_close(mixer(x, (5, 7)), plain(x, (5, 7)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("globals_", "extra"), [(1, 0), (0, 1)])
def test_global_tokens_carry_news_across_the_grid(globals_, extra):
    """Without them a token at one corner does not reach the other."""
    x = torch.randn(1, extra + 64, 24)
    moved = x.clone()
    moved[:, -1] += 5
    reach = []
    for count in (0, globals_):
        mixer = built(f"sliding(radius=1, globals={count})", grid=(8, 8), extra=extra)
        change = (mixer(x, (8, 8)) - mixer(moved, (8, 8))).abs().amax(2)[0]
        reach.append((change[extra] > 1e-7, change[:extra].gt(1e-7).all()))
    assert not reach[0][0] and bool(reach[1][0]) == bool(globals_)
    assert all(heard for _, heard in reach)  # a class token sees all by itself


def test_options_without_meaning_are_refused():
    with pytest.raises(SpecError, match="an option is negative; try radius=3"):
        built("sliding(radius=-1)", grid=(8, 8))
