"""CoAtNet against timm on shared weights, and against the sizes its paper prints."""

import pytest
import torch
from tests.parity.test_originals import randomised
from torch.utils.flop_counter import FlopCounterMode

import vitrail
from vitrail.errors import UserError
from vitrail.models import load_into
from vitrail.models.coatnet_rw import CONFIGS

timm = pytest.importorskip("timm")

SHORT = {"depths": (2, 1, 2, 2)}  # wiring, not size, is compared: both are cut alike
DIMS, STEM = (32, 64, 96, 128), (16, 32)  # own widths: test_sizes_are_*, test_timm_adapter
MAX = {"conv_pool_type": "max2", "transformer_pool_type": "max2"}  # timm's default averages
HEAD = {"head_hidden_size": DIMS[-1]}
PAPER = {"conv_stride_mode": "1x1", **MAX, **HEAD}  # ... and halves in the depthwise convolution
TIMM = {
    **{name: {} for name in CONFIGS},
    **{f"coatnet_{i}": PAPER for i in range(4)},
    "coatnet_0(style='dagger')": {**MAX, **HEAD},
}

# parameters and multiply-adds (G) at 224 px: published (arXiv 2106.04803, tables 4, 5, 11), ours
PUBLISHED = {
    "coatnet_0": (25e6, 4.2, 25_036_820, 4.142),
    "coatnet_1": (42e6, 8.4, 42_225_776, 8.239),
    "coatnet_2": (75e6, 15.7, 74_684_744, 15.502),
    "coatnet_3": (168e6, 34.7, 166_966_264, 34.372),
    "coatnet_4": (275e6, None, 275_425_288, 60.236),
    "coatnet_5": (688e6, None, 687_052_952, 142.181),
    "coatnet_7": (2.44e9, None, 2_441_972_728, 457.873),
}
# the reference page, section 1.2
RELEASED = {
    "coatnet_nano_rw": (15_141_244, 2.383),
    "coatnet_0_rw": (27_435_562, 4.406),
    "coatnet_1_rw": (41_721_502, 7.992),
}


def theirs_and_ours(name, size, **options):
    base = name.split("(")[0]
    theirs = timm.create_model(
        f"{base}_224",
        num_classes=7,
        img_size=size,
        embed_dim=DIMS,
        stem_width=STEM,
        **SHORT,
        **TIMM[name],
        **options,
    )
    ours = vitrail.create(name, classes=7, image=size, dims=DIMS, stem=STEM, **SHORT).eval()
    return randomised_with_statistics(theirs), ours


def randomised_with_statistics(model):
    """Batch norms, biases and layer scales must matter too; tables of unit size."""
    randomised(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in [*model.named_buffers(), *model.named_parameters()]:
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            if name.endswith(("running_mean", "gamma", "bias_table")):
                tensor.copy_(noise)
    return model


@pytest.mark.parametrize("name", TIMM)
def test_equals_timm_on_the_same_weights(name):
    theirs, ours = theirs_and_ours(name, (64, 96))
    load_into(ours, theirs.state_dict())
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        wanted, got = theirs(x), ours(x)
        assert wanted.std() > 0.1  # the weights do something
        assert (got - wanted).abs().max() <= 1e-5 * max(1.0, wanted.abs().max())
        maps = theirs.forward_intermediates(x, indices=[1, 2, 3, 4], intermediates_only=True)
        for ours_map, theirs_map in zip(ours.features(x), maps, strict=True):
            assert (ours_map - theirs_map).abs().max() <= 1e-5 * max(1.0, theirs_map.abs().max())


def test_equals_timm_at_full_depth_and_size():
    theirs = randomised_with_statistics(timm.create_model("coatnet_nano_rw_224", num_classes=7))
    ours = vitrail.create("coatnet_nano_rw", classes=7).eval()
    load_into(ours, theirs.state_dict())
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        wanted = theirs(x)
        assert (ours(x) - wanted).abs().max() <= 1e-5 * max(1.0, wanted.abs().max())


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_the_papers(name):
    parameters, gmacs, own_parameters, own_gmacs = PUBLISHED[name]
    counted = counts(name)
    assert counted == (own_parameters, pytest.approx(own_gmacs, abs=6e-4))
    assert own_parameters == pytest.approx(parameters, rel=0.01)
    if gmacs:
        assert own_gmacs == pytest.approx(gmacs, rel=0.02)


def test_the_sixth_misses_its_published_size():
    """Table 12 gives 1.35 G parameters, table 5 prints 1.47 G: what 3072 channels in S4 give."""
    assert parameters(meta("coatnet_6")) == 1_348_435_040
    assert parameters(meta("coatnet_6(dims=(192, 384, 768, 1536, 3072))")) == 1_471_125_232


@pytest.mark.parametrize("name", RELEASED)
def test_sizes_are_timms(name):
    with torch.device("meta"):
        theirs = timm.create_model(f"{name}_224")
    assert counts(name) == (RELEASED[name][0], pytest.approx(RELEASED[name][1], abs=6e-4))
    assert sum(p.numel() for p in theirs.parameters()) == RELEASED[name][0]


def counts(name):
    model = meta(name).eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(torch.empty(1, 3, 224, 224, device="meta"))
    return parameters(model), counter.get_total_flops() / 2e9


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_weights_resize_to_another_size_and_classes(tmp_path):
    theirs, ours = theirs_and_ours("coatnet_0_rw", 64)
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    load_into(ours, theirs.state_dict())
    other = vitrail.create(
        "coatnet_0_rw",
        classes=3,
        image=(96, 128),
        weights=tmp_path / "timm.pth",
        dims=DIMS,
        stem=STEM,
        **SHORT,
    ).eval()
    x = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        # resized once when loading, or at every call: the same bilinear picture
        torch.testing.assert_close(other.forward_features(x), ours.forward_features(x))
    assert other.head.out_features == 3


def test_own_weights_round_trip(tmp_path):
    ours = vitrail.create("coatnet_0", classes=4, image=64, **SHORT).eval()
    torch.save(ours.state_dict(), tmp_path / "ours.pth")
    again = vitrail.create(
        "coatnet_0", classes=4, image=64, weights=tmp_path / "ours.pth", **SHORT
    ).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(x), ours(x))


def test_bias_is_looked_up_by_offset():
    """The strided copy against the definition: w[i - j] for every pair of places."""
    from vitrail.mixers.relative import reversed_bias

    height, width = 3, 4
    picture = torch.randn(2, 2 * height - 1, 2 * width - 1)
    bias = reversed_bias(picture, (height, width), 1)[0].flip(2)
    assert not bias[:, 0].any() and not bias[:, :, 0].any()
    for i in range(height * width):
        for j in range(height * width):
            down, right = i // width - j // width, i % width - j % width
            wanted = picture[:, down + height - 1, right + width - 1]
            assert torch.equal(bias[:, i + 1, j + 1], wanted)


def test_layouts_and_stages():
    kinds = {
        name: "".join("C" if type(s).__name__ == "ConvStage" else "T" for s in model.stages)
        for name in ("coatnet_cccc", "coatnet_ccct", "coatnet_0", "coatnet_cttt", "coatnet_6")
        for model in [meta(name)]
    }
    assert list(kinds.values()) == ["CCCC", "CCCT", "CCTT", "CTTT", "CCCTT"]
    six = meta("coatnet_6")
    assert six.channels == (192, 384, 1536, 2048)
    assert six.stages[3].blocks[0].mixer.heads == 12  # heads of 128


def meta(name):
    with torch.device("meta"):
        return vitrail.create(name)


def test_ablations_of_the_bias_are_specs():
    tiny = {"image": 64, "dims": (32, 64, 64, 64), "depths": (1, 1, 2, 1), "stem": (8, 16)}
    relative = vitrail.create("coatnet_0", **tiny)
    plain = vitrail.create("coatnet_0", mixer="softmax", **tiny)
    tables = {n for n, _ in relative.named_parameters() if ".offsets." in n}
    assert len(tables) == 3 and tables == relative.no_weight_decay()
    ours = {n for n, _ in plain.named_parameters()}
    assert ours == {n for n, _ in relative.named_parameters()} - tables
    after = vitrail.create("coatnet_0", mixer="relative(after=True)", **tiny)
    after.load_state_dict(relative.state_dict())
    x = torch.randn(2, 3, 64, 64)
    assert not torch.allclose(after.eval()(x), relative.eval()(x))
    with torch.no_grad():
        for name, p in [*relative.named_parameters(), *after.named_parameters()]:
            if name in tables:
                p.zero_()
    plain.load_state_dict({n: t for n, t in relative.state_dict().items() if n not in tables})
    for model in (relative, after):
        torch.testing.assert_close(model(x), plain.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": "tf"}, "style is one of paper, dagger"),
        ({"kinds": "CCT"}, "kinds has C or T for each of 4 dims"),
        ({"mixer": ("softmax", "native", "native", "native")}, "stage 1 .* is MBConv .*'native'"),
        ({"mixer": ("native", "native")}, "2 mixers for 4 stages"),
        ({"reducer": ("all", "pool", "all", "all")}, "stage 2 .* is MBConv"),
        ({"reducer": "cluster"}, "'relative' cannot serve coatnet's stage 3 .*; use mixer"),
    ],
)
def test_what_cannot_be_is_said_in_words(options, message):
    with pytest.raises(UserError, match=message):
        vitrail.create("coatnet_0", **options)


def test_reducers_begin_behind_the_entering_block():
    model = vitrail.create(
        "coatnet_0",
        image=128,
        mixer="softmax",
        reducer="cluster",
        dims=(32, 64, 64, 64),
        depths=(1, 1, 3, 2),
    )
    reduced = [n for n, m in model.named_modules() if hasattr(m, "reducer")]
    assert reduced == ["stages.2.blocks.1", "stages.2.blocks.2", "stages.3.blocks.1"]
