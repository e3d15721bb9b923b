"""Every registered mixer keeps the laws."""

import pytest
import torch

from vitrail.mixers import MixerSpec
from vitrail.specs import Place, SpecError
from vitrail.testing import GRID, MixerLaws, pairs_plan


class TestSoftmax(MixerLaws):
    specs = ["softmax", "softmax(bias=False)"]


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


class TestLocality(MixerLaws):
    specs = ["lsa", "lsa(bias=True)"]


class TestGated(MixerLaws):
    specs = ["gated", "gated(strength=0.5)"]


class TestSpatial(MixerLaws):
    specs = ["spatial(ratio=1)", "spatial", "spatial(ratio=4)"]


class TestProjected(MixerLaws):
    specs = ["projected", "projected(stride=1)"]


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


@pytest.mark.parametrize("name", ["lsa", "spatial", "projected"])
def test_attention_maps_are_the_fast_path_spelled_out(name):
    place = MixerLaws.places[0]
    x = torch.randn(2, place.tokens, place.dim)
    mixer = MixerSpec.parse(name).build(place).eval()
    weights = mixer.explain(x, GRID)["attention"]
    v = mixer.project(x)[2] if name == "lsa" else mixer.project(x, GRID)[2]
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 8, place.tokens))
    mixed = mixer.proj((weights @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixed, mixer(x, GRID), rtol=1e-4, atol=1e-5)


def test_locality_attention_never_looks_at_itself_and_twins_still_meet():
    place = MixerLaws.places[0]
    mixer = MixerSpec.parse("lsa").build(place)
    weights = mixer.explain(torch.randn(1, place.tokens, place.dim), GRID)["attention"]
    assert weights.diagonal(dim1=2, dim2=3).eq(0).all()
    plan = pairs_plan(1)
    z = torch.randn(2, 25, place.dim)
    merged = mixer.explain(z, GRID, None, plan)["attention"].diagonal(dim1=2, dim2=3)
    assert merged[:, :, 0].eq(0).all()  # the class token stands for itself alone
    assert merged[:, :, 1:].gt(0).all()


@pytest.mark.parametrize("extra", [0, 1])
def test_gated_attention_is_the_papers_formula(extra):
    """A = (1 - g) C + g P, with P formed as the paper writes it."""
    place = Place(dim=32, heads=8, grid=GRID, extra=extra)
    mixer = MixerSpec.parse("gated").build(place)
    with torch.no_grad():
        mixer.position.add_(torch.randn_like(mixer.position) * 0.3)
        mixer.gate.add_(torch.randn(8))
    x = torch.randn(2, place.tokens, 32)
    rows, columns = (t.flatten() for t in torch.meshgrid(*map(torch.arange, GRID), indexing="ij"))
    dx, dy = columns[None] - columns[:, None], rows[None] - rows[:, None]
    scores = torch.stack((dx, dy, dx**2 + dy**2), -1).float() @ mixer.position.T
    position = scores.softmax(1).permute(2, 0, 1)
    parts = mixer.explain(x, GRID)
    torch.testing.assert_close(parts["position"], position)
    whole, gate = parts["content"].clone(), parts["gate"].view(-1, 1, 1)
    whole[:, :, extra:] *= 1 - gate
    whole[:, :, extra:, extra:] += gate * position
    v = mixer.v(x).unflatten(2, (8, 4)).transpose(1, 2)
    wanted = mixer.proj((whole @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixer(x, GRID), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("heads", "kernel"), [(4, 2), (9, 3), (16, 4)])
def test_gated_attention_starts_as_a_convolution(heads, kernel):
    """The gate is sigma(1); each head peaks at one tap; sharp enough, it is that convolution."""
    dim = heads * 2
    mixer = MixerSpec.parse("gated(strength=40)").build(Place(dim=dim, heads=heads, grid=(7, 7)))
    torch.testing.assert_close(
        mixer.gate.sigmoid(), torch.full((heads,), 0.7311), atol=1e-4, rtol=0
    )
    position = mixer.explain(torch.randn(1, 49, dim), (7, 7))["position"]
    middle = position[:, 24].detach().unflatten(1, (7, 7))
    weights = torch.zeros(dim, 1, 7, 7)
    weights[:] = middle.repeat_interleave(2, 0).unsqueeze(1)
    centres = [(m.sum(1) @ torch.arange(7.0), m.sum(0) @ torch.arange(7.0)) for m in middle]
    taps = {(round(2 * float(y)), round(2 * float(x))) for y, x in centres}
    start = 6 - (kernel - 1 if kernel % 2 == 0 else 2 * (kernel // 2))
    assert taps == {(start + 2 * i, start + 2 * j) for i in range(kernel) for j in range(kernel)}
    with torch.no_grad():
        mixer.gate.fill_(50.0)
        mixer.proj.weight.copy_(torch.eye(dim))
        mixer.proj.bias.zero_()
    image = torch.zeros(1, dim, 7, 7)
    image[:, :, 2:5, 2:5] = torch.randn(1, dim, 3, 3)  # far from the edges, where P renormalises
    got = mixer(image.flatten(2).mT, (7, 7)).mT.unflatten(2, (7, 7))
    wanted = torch.nn.functional.conv2d(image, weights, padding=3, groups=dim)
    torch.testing.assert_close(got[:, :, 2:5, 2:5], wanted[:, :, 2:5, 2:5], rtol=1e-3, atol=1e-3)


def test_spatial_reduction_pads_what_pvt_would_drop():
    place = MixerLaws.places[1]
    mixer = MixerSpec.parse("spatial(ratio=4)").build(place)
    assert mixer.explain(torch.randn(1, 35, 24), (5, 7))["attention"].shape[-1] == 2 * 2
    with pytest.raises(SpecError, match="ratio is below one; use ratio=1"):
        MixerSpec.parse("spatial(ratio=0)").build(place)


def test_projected_attention_scales_by_all_channels_and_passes_the_class_token_by():
    place = MixerLaws.places[0]
    mixer = MixerSpec.parse("projected").build(place).eval()
    assert mixer.scale == place.dim**-0.5
    x = torch.randn(1, place.tokens, place.dim)
    q, k, _ = mixer.project(x, GRID)
    assert k.shape[2] == 1 + 3 * 4
    torch.testing.assert_close(q[:, :, 0].flatten(1), mixer.proj_q(x[:, 0]))


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
