"""Linformer: of full rank it is softmax attention, and any grid is averaged into its cells."""

import pytest
import torch

from vitrail.mixers import MixerSpec
from vitrail.specs import Place, SpecError


def built(text, **place):
    return MixerSpec.parse(text).build(Place(dim=24, heads=3, **place)).eval()


@pytest.mark.parametrize("extra", [0, 1])
def test_full_rank_is_softmax_attention(extra):
    mixer = built("linformer(rank=20, side=8)", grid=(4, 5), extra=extra)
    plain = built("softmax", grid=(4, 5), extra=extra)
    with torch.no_grad():
        mixer.mixtures.table.copy_(torch.eye(20).view(20, 4, 5).expand(2, -1, -1, -1))
        plain.qkv.weight.copy_(torch.cat((mixer.q.weight, mixer.kv.weight)))
        plain.qkv.bias.copy_(torch.cat((mixer.q.bias, mixer.kv.bias)))
        plain.proj.load_state_dict(mixer.proj.state_dict())
    x = torch.randn(2, extra + 20, 24)
    torch.testing.assert_close(mixer(x, (4, 5)), plain(x, (4, 5)), rtol=1e-5, atol=1e-6)


def test_a_finer_grid_of_equal_tokens_has_the_same_answer():
    mixer = built("linformer(rank=6, side=4)", grid=(4, 4))
    x = torch.randn(1, 24, 4, 4)
    fine = x.repeat_interleave(3, 2).repeat_interleave(2, 3)
    coarse = mixer(x.flatten(2).mT, (4, 4)).mT.unflatten(2, (4, 4))
    got = mixer(fine.flatten(2).mT, (12, 8)).mT.unflatten(2, (12, 8))
    torch.testing.assert_close(got[:, :, ::3, ::2], coarse, rtol=1e-5, atol=1e-6)


def test_weights_of_other_cells_are_resized_when_they_load():
    mixtures = built("linformer(rank=6, side=8)", grid=(8, 8)).mixtures
    coarse = torch.ones(2, 6, 4, 4)
    assert mixtures.fit_table(coarse).shape == (2, 6, 8, 8)
    torch.testing.assert_close(mixtures.fit_table(coarse).sum((2, 3)), coarse.sum((2, 3)))


def test_options_without_meaning_are_refused():
    with pytest.raises(SpecError, match="rank or side is below one; try rank=64"):
        built("linformer(rank=0)", grid=(4, 5))
