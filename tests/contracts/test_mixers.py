"""Every registered mixer keeps the laws."""

from contextlib import suppress
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from tests.contracts.structures import is_ours

from vitrail.layers.attend import join_heads, split_heads
from vitrail.mixers import Mixer, MixerSpec
from vitrail.mixers.conv_attention import add_position
from vitrail.mixers.prototype import attend_linear
from vitrail.specs import Place, SpecError
from vitrail.testing import GRID, MixerLaws, case, pairs_plan


class TestSoftmax(MixerLaws):
    specs = ["softmax", "softmax(bias=False)"]
    traces = False


class TestConv(MixerLaws):
    specs = ["conv_attention", "conv_attention(windows=(3,), shares=(1,))"]
    traces = False

    def spelled_out(self, mixer, x, grid, shared, plan=None):
        q, _, v = mixer.qkv(x).chunk(3, 2)
        mixed = join_heads(mixer.explain(x, grid, shared)["content"] @ split_heads(v, mixer.heads))
        return mixer.proj(add_position(mixed, q, v, grid, shared, None))


class TestRelative(MixerLaws):
    specs = ["relative", "relative(after=True)", "relative(by='mlp', hidden=16)"]
    traces = False


class TestReduced(MixerLaws):
    specs = ["reduced", "reduced(ratio=1)", "reduced(ratio=4)"]
    traces = False


class TestPrototypes(MixerLaws):
    specs = [
        f"prototype_{kind}(by={by!r}, ratio=4)"
        for kind in ("conv", "softmax")
        for by in ("sort", "window")
    ]
    traces = False
    half_error = 0.5

    def spelled_out(self, mixer, x, grid, shared, plan=None):
        q, k, v = mixer.qkv(x).chunk(3, 2)
        extra = x.shape[1] - grid[0] * grid[1]
        one_hot = F.one_hot(mixer.explain(x, grid, shared)["clusters"]).float()
        alike = one_hot @ (one_hot / one_hot.sum(2, keepdim=True).clamp(min=1)).mT
        asked, keys, values = (split_heads(t, mixer.heads) for t in (q, k, v))
        asked = torch.cat((asked[:, :, :extra], alike @ asked[:, :, extra:]), 2)
        logits = asked @ (keys.softmax(2) if mixer.core is attend_linear else keys).mT
        weights = logits * asked.shape[3] ** -0.5
        weights = weights if mixer.core is attend_linear else weights.softmax(3)
        return mixer.proj(add_position(join_heads(weights @ values), q, v, grid, shared, None))


class TestHashedPrototypes(TestPrototypes):
    specs = ["prototype_conv", "prototype_softmax(rounds=4, width=2.0)"]
    exact_macs = False


class TestLocality(MixerLaws):
    specs = ["lsa", "lsa(bias=True)"]
    traces = False


class TestGated(MixerLaws):
    specs = ["gated", "gated(strength=0.5)"]
    traces = False


class TestSpatial(MixerLaws):
    specs = ["spatial", "spatial(ratio=1)", "spatial(ratio=4)"]
    traces = False


class TestProjected(MixerLaws):
    specs = ["projected", "projected(stride=1)"]
    traces = False


class TestLinear(MixerLaws):
    specs = ["linear"]


class TestLinformer(MixerLaws):
    specs = ["linformer(rank=6, side=4)", "linformer"]


class TestWindow(MixerLaws):
    specs = ["window(size=4)", "window(size=3, shift=0)", "window(size=5, shift=1)", "window"]


class TestGrid(MixerLaws):
    specs = ["grid(size=3)", "grid(size=5)", "grid"]


class TestSliding(MixerLaws):
    specs = ["sliding(radius=1, globals=2)", "sliding", "sliding(radius=2, globals=0)"]


class TestLsh(MixerLaws):
    specs = ["lsh(run=8)", "lsh(rounds=2, buckets=4, run=10)", "lsh"]
    counts_exactly = False
    half_error = 0.5


class TestClustered(MixerLaws):
    specs = ["clustered(clusters=6, bits=16, steps=2)", "clustered"]
    counts_exactly = False
    half_error = 0.5


class TestImproved(TestClustered):
    specs = ["improved_clustered(clusters=6, bits=16, best=5)", "improved_clustered(clusters=4)"]


class TestDeformable(MixerLaws):
    specs = ["deformable", "deformable(stride=1, kernel=3)", "deformable(stride=4, reach=2.0)"]
    half_error = 0.1  # a rounded point reads beside its place


class TestGroupedDeformable(MixerLaws):
    specs = ["deformable(groups=4)"]
    traces = False
    places: ClassVar[list[Place]] = MixerLaws.places[:1]


class Unlearned(MixerLaws):
    learns = False

    def spelled_out(self, mixer, x, grid, shared, plan=None):
        return mixer.explain(x, grid, shared, plan)["operator"] @ x


class TestPooling(Unlearned):
    specs = ["pooling", "pooling(size=5)"]


class TestIdentity(Unlearned):
    specs = ["identity"]


def suites(laws=MixerLaws):
    """All suites, those of suites included."""
    return [s for sub in laws.__subclasses__() for s in (sub, *suites(sub))]


def test_all_are_under_law():
    tested = {MixerSpec.parse(spec).name for laws in suites() for spec in laws.specs}
    assert tested >= {n for n, spec in MixerSpec.known.items() if is_ours(spec)}


def first_specs():
    """One spec of every mixer."""
    return {MixerSpec.parse(laws.specs[0]).name: laws for laws in reversed(suites()) if laws.specs}


def serving_scattered():
    """Suites whose first mixer serves scattered tokens and whose matrix says all."""
    place = Place(dim=32, heads=8, grid=GRID, extra=1, scattered=True)
    for name, laws in first_specs().items():
        with suppress(SpecError):
            spec = MixerSpec.parse(laws.specs[0])
            spec.build(place)
            if name != "conv_attention":  # its position is beside the matrix
                yield name, spec, laws


def test_explanations_know_what_working_tokens_stand_for():
    plan, served = pairs_plan(1), []
    for name, spec, laws in serving_scattered():
        mixer = spec.build(Place(dim=32, heads=8, grid=GRID, extra=1, scattered=True)).eval()
        z = torch.randn(2, 25, 32)
        spelled = laws().spelled_out(mixer, z, GRID, None, plan)
        with case(name):
            torch.testing.assert_close(spelled, mixer(z, GRID, None, plan), rtol=1e-4, atol=1e-5)
        served.append(name)
    hashed = ["clustered", "improved_clustered", "lsh"]
    assert sorted(served) == sorted([*hashed, "gated", "identity", "linear", "lsa", "softmax"])


def test_which_mixers_do_not_care_for_order():
    place = MixerLaws.places[1]
    x, order = torch.randn(1, place.tokens, place.dim), torch.randperm(place.tokens)
    free = []
    for name, laws in first_specs().items():
        _, _, mixer, shared = laws().build(laws.specs[0], place)
        moved, whole = mixer(x[:, order], GRID, shared), mixer(x, GRID, shared)
        free += [name] * torch.allclose(moved, whole[:, order], rtol=1e-4, atol=1e-5)
    assert sorted(free) == ["identity", "linear", "lsa", "softmax"]


def test_a_bias_of_grid_tokens_lies_behind_the_class_tokens():
    place = replace(MixerLaws.places[0], extra=2)
    bias = MixerSpec.parse("reduced").build_shared(place)
    behind, alone = bias(place.grid, 2), bias(place.grid, 0)
    assert torch.equal(behind[..., 2:, 2:], alone)
    assert not behind[..., :2, :].any() and not behind[..., :2].any()


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
    for name in ("softmax", "relative", "conv_attention"):
        spec = MixerSpec.parse(name)
        mixer, shared = spec.build_between(place, 40, 56), spec.build_shared(place)
        assert mixer(x, GRID, shared).shape == (2, place.tokens, 56)
        assert mixer.explain(x, GRID, shared)


def test_a_mixer_need_not_explain_itself():
    class Silent(Mixer):
        def forward(self, x, grid, shared=None, plan=None):
            return x

    mixer, x = Silent(), torch.randn(1, 4, 2)
    assert torch.equal(mixer(x, (2, 2)), x)
    with pytest.raises(NotImplementedError):
        mixer.explain(x, (2, 2))
    with pytest.raises(TypeError, match="abstract"):
        Mixer()
