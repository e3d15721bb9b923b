"""Every registered mixer keeps the laws."""

import torch
from tests.contracts.mixer_laws import GRID, MixerLaws

from vitrail.mixers import MixerSpec


class TestSoftmax(MixerLaws):
    specs = ["softmax"]


class TestConv(MixerLaws):
    specs = ["conv", "conv(windows=(3,), shares=(1,))"]


class TestRelative(MixerLaws):
    specs = ["relative", "relative(after=True)", "relative(by='mlp', hidden=16)"]


class TestReduced(MixerLaws):
    specs = ["reduced", "reduced(ratio=1)", "reduced(ratio=4)"]


class TestPrototypes(MixerLaws):
    specs = [
        f"prototype_{kind}(by={by!r}, ratio=4)"
        for kind in ("conv", "softmax")
        for by in ("sort", "window")
    ]
    half_error = 0.5


class TestHashedPrototypes(MixerLaws):
    specs = ["prototype_conv", "prototype_softmax(rounds=4, width=2.0)"]
    exact_macs = False
    half_error = 0.5


def test_all_are_under_law():
    tested = {
        MixerSpec.parse(spec).name for laws in MixerLaws.__subclasses__() for spec in laws.specs
    }
    assert tested >= set(MixerSpec.known)


def test_softmax_does_not_care_for_order():
    place = MixerLaws.places[1]
    mixer = MixerSpec.parse("softmax").build(place).eval()
    x, order = torch.randn(1, place.tokens, place.dim), torch.randperm(place.tokens)
    torch.testing.assert_close(mixer(x[:, order], GRID), mixer(x, GRID)[:, order])


def test_explanations_are_the_fast_path_spelled_out():
    place = MixerLaws.places[0]
    x = torch.randn(2, place.tokens, place.dim)
    for name, key in (("softmax", "attention"), ("conv", "content")):
        spec = MixerSpec.parse(name)
        mixer, shared = spec.build(place).eval(), spec.build_shared(place)
        q, _, v = mixer.qkv(x).chunk(3, 2)
        weights = mixer.explain(x, GRID, shared)[key]
        mixed = (weights @ v.unflatten(2, (8, 4)).transpose(1, 2)).transpose(1, 2).flatten(2)
        if shared is not None:
            mixed[:, 1:] += q[:, 1:] * shared(v[:, 1:], GRID)
        torch.testing.assert_close(mixer.proj(mixed), mixer(x, GRID, shared), rtol=1e-4, atol=1e-5)


def test_placed_explanations_are_the_fast_path_spelled_out():
    place = MixerLaws.places[0]
    x = torch.randn(2, place.tokens, place.dim)
    for name in ("relative", "relative(after=True)", "reduced"):
        spec = MixerSpec.parse(name)
        mixer, shared = spec.build(place).eval(), spec.build_shared(place)
        if shared is None:
            torch.nn.init.normal_(mixer.offsets.table)
            v = mixer.qkv(x).chunk(3, 2)[2]
        else:
            v = mixer.v(mixer.keys(x, GRID))
        weights = mixer.explain(x, GRID, shared)["attention"]
        mixed = (weights @ v.unflatten(2, (8, 4)).transpose(1, 2)).transpose(1, 2).flatten(2)
        torch.testing.assert_close(mixer.proj(mixed), mixer(x, GRID, shared), rtol=1e-4, atol=1e-5)
        assert torch.allclose(weights.sum(3), torch.tensor(1.0), atol=1e-5) != ("after" in name)


def test_a_learned_bias_stays_on_the_fused_kernel_at_inference():
    from torch.nn.attention import SDPBackend, sdpa_kernel

    place = MixerLaws.places[0]
    for name in ("relative", "reduced"):
        spec = MixerSpec.parse(name)
        mixer, shared = spec.build(place).eval(), spec.build_shared(place)
        x = torch.randn(2, place.tokens, place.dim)
        with torch.no_grad(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            mixer(x, place.grid, shared)  # raises where the kernel cannot serve


def test_a_mixer_between_two_widths():
    place = MixerLaws.places[1]
    x = torch.randn(2, place.tokens, 40)
    for name in ("softmax", "relative", "conv"):
        spec = MixerSpec.parse(name)
        mixer, shared = spec.build_between(place, 40, 56), spec.build_shared(place)
        assert mixer(x, GRID, shared).shape == (2, place.tokens, 56)
        assert mixer.explain(x, GRID, shared)
