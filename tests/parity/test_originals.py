"""Equality with the original implementations: outputs, names, sizes, costs."""

import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import vitrail
from vitrail.errors import UserError
from vitrail.models import load_into
from vitrail.models.coat import PLAIN

timm = pytest.importorskip("timm")

VITS = {
    "vit_tiny": "vit_tiny_patch16_224",
    "vit_small": "vit_small_patch16_224",
    "vit_base": "vit_base_patch16_224",
    "vit_large": "vit_large_patch16_224",
}
TIMM = {**VITS, **{name: name for name in PLAIN}}

# reference pages: parameters and multiply-adds at 224 px (G), A5 of "CoaT", 1.1 of "ViT"
PUBLISHED = {
    "vit_tiny": (5_717_416, 1.254),
    "vit_small": (22_050_664, 4.599),
    "vit_base": (86_567_656, 17.564),
    "vit_large": (304_326_632, 61.555),
    "coat_lite_tiny": (5_721_960, 1.589),
    "coat_lite_mini": (11_011_560, 1.987),
    "coat_lite_small": (19_838_504, 3.944),
    "coat_lite_medium": (44_571_048, 9.771),
    "coat_tiny": (5_498_540, 4.316),
    "coat_mini": (10_337_004, 6.773),
    "coat_small": (21_693_908, 12.548),
}


def randomised(model):
    """Weights that make every part of the model matter."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            fan = p[0].numel() if p.dim() > 1 else 1
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(noise / fan**0.5 if p.dim() > 1 and p.shape[0] > 1 else p + 0.1 * noise)
    return model.eval()


@pytest.mark.parametrize("name", TIMM)
def test_equals_timm_on_the_same_weights(name):
    short = {"vit_base": 4, "vit_large": 2}  # all blocks are alike, and each is large
    depth = {"depth": short[name]} if name in short else {}
    theirs = randomised(timm.create_model(TIMM[name], num_classes=1000, **depth))
    ours = vitrail.create(name, **depth).eval()
    load_into(ours, theirs.state_dict())
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        wanted, got = theirs(x), ours(x)
    assert wanted.std() > 0.1  # the weights do something
    assert (got - wanted).abs().max() <= 1e-5 * max(1.0, wanted.abs().max())


@pytest.mark.parametrize("name", ["vit_tiny", "coat_lite_tiny", "coat_tiny"])
def test_equals_timm_at_another_size_by_mean_pooling_and_in_maps(name):
    options = {"global_pool": "avg", "class_token": False} if name == "vit_tiny" else {}
    theirs = randomised(timm.create_model(TIMM[name], img_size=(96, 160), num_classes=7, **options))
    ours = vitrail.create(name, image=(96, 160), classes=7, **({"pool": "mean"} if options else {}))
    load_into(ours.eval(), theirs.state_dict())
    x = torch.randn(2, 3, 96, 160)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
        if not options:
            maps = theirs.forward_intermediates(x, intermediates_only=True)
            for got, wanted in zip(ours.features(x), maps, strict=True):
                assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("name", ["coat_lite_tiny", "coat_tiny"])
def test_golden_outputs_of_the_official_code(name, shared, monkeypatch):
    monkeypatch.syspath_prepend(str(shared / "reference"))
    from golden_fill import golden_input, load_golden

    golden = load_golden(str(shared / "reference" / "golden" / f"{name}.npz"))
    ours = vitrail.create(name).eval()
    load_into(ours, {k: torch.from_numpy(v) for k, v in golden["state"].items()})
    with torch.no_grad():
        got = ours(torch.from_numpy(golden_input(2, golden["size"], golden["size"])))
    wanted = torch.from_numpy(golden["logits"])
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    sys.modules.pop("golden_fill")


@pytest.mark.parametrize("name", ["coat_lite_tiny", "coat_tiny"])
def test_official_names_are_taken_strictly(name, shared, monkeypatch):
    monkeypatch.syspath_prepend(str(shared / "reference"))
    from golden_fill import load_golden

    golden = load_golden(str(shared / "reference" / "golden" / f"{name}.npz"))
    state = {k: torch.from_numpy(v) for k, v in golden["state"].items()}
    sys.modules.pop("golden_fill")
    with pytest.raises(UserError, match="1 tensors unknown, such as stages.0.blocks.0.extra"):
        load_into(vitrail.create(name), {**state, "serial_blocks1.0.extra": torch.zeros(1)})
    del state["patch_embed1.proj.weight"]
    with pytest.raises(UserError, match="1 tensors missing, such as stages.0.embed.proj.weight"):
        load_into(vitrail.create(name), state)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds(name):
    with torch.device("meta"):
        model = vitrail.create(name).eval()
    parameters, gmacs = PUBLISHED[name]
    assert sum(p.numel() for p in model.parameters()) == parameters
    counter = FlopCounterMode(display=False)
    with counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(torch.empty(1, 3, 224, 224, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, abs=0.0006)


# reference page C4 (GMAC); it counts POOL's averages as N * d multiply-adds a block, we do not
@pytest.mark.parametrize(
    ("name", "image", "gmacs"),
    [
        ("coat_lite_tiny", 512, 8.280),
        ("coat_lite_tiny", 1024, 33.103),
        ("coat_lite_small", 1024, 82.029),
        ("pooled_coat_lite_tiny", 224, 0.553),
        ("pooled_coat_lite_tiny", 512, 2.866),
        ("pooled_coat_lite_tiny", 1024, 11.448),
        ("pooled_coat_lite_small", 512, 7.403),
    ],
)
def test_clustered_costs_are_the_references(name, image, gmacs):
    dims, depths = (
        PLAIN[name.removeprefix("pooled_")].dims,
        PLAIN[name.removeprefix("pooled_")].depths,
    )
    rows = zip(dims[:3], depths[:3], (4, 8, 16), strict=True)
    averages = sum(depth * (image // s) ** 2 * d for d, depth, s in rows) / 1e9
    counted = macs(name, image) + averages * name.startswith("pooled")
    assert counted == pytest.approx(gmacs, rel=1e-3)


@pytest.mark.parametrize(("image", "gmacs"), [(512, 3.263), (1024, 13.037)])
def test_token_prototypes_cost_less_than_the_dense_products_of_the_reference(image, gmacs):
    """C4 merges by one-hot products, 5 * 16 * N * d a block; ours gathers: only similarities."""
    products = sum(2 * 16 * (image // s) ** 2 * d for s, d in ((4, 64), (8, 128), (16, 256)))
    gathered = macs("clustering_coat_lite_tiny", image)
    assert gathered + 4 * products / 1e9 == pytest.approx(gmacs, rel=1e-3)


def macs(name, image):
    with torch.device("meta"):
        model = vitrail.create(name, image=image).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 3, image, image, device="meta"))
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize(
    "name", [n for n in vitrail.list_models() if n.endswith(("lite_tiny", "_qf")) and "tiny" in n]
)
def test_plain_weights_load_into_every_reading(name):
    plain = timm.create_model("coat_lite_tiny")
    model = vitrail.create(name)
    load_into(model, plain.state_dict())
    torch.testing.assert_close(
        model.stages[1].blocks[1].mlp.fc1.weight, plain.serial_blocks2[1].mlp.fc1.weight
    )


def test_one_cluster_a_token_is_the_plain_model():
    plain = randomised(timm.create_model("coat_lite_tiny", img_size=64))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = plain(x)
        for options in (
            {"reducer": "cluster(ratio=1)"},
            {"reducer": "pool(size=1)"},
            {"mixer": "prototype_conv(by='sort', ratio=1)"},
        ):
            model = vitrail.create("coat_lite_tiny", image=64, **options).eval()
            load_into(model, plain.state_dict())
            torch.testing.assert_close(model(x), wanted, rtol=1e-5, atol=1e-5)


def test_qf_is_the_plain_output_averaged_over_clusters():
    from vitrail.mixers import MixerSpec
    from vitrail.specs import Place
    from vitrail.tokens.assignment import count_members, scatter_to_tokens, sum_by_cluster

    place = Place(dim=16, heads=2, grid=(6, 6))
    plain = MixerSpec.parse("conv_attention").build(place)
    qf = MixerSpec.parse("prototype_conv(rounds=2, width=0.2)").build(place)
    qf.load_state_dict(plain.state_dict(), strict=False)
    silent = MixerSpec.parse("conv_attention").build_shared(place)
    with torch.no_grad():
        for p in silent.parameters():
            p.zero_()
        for mixer in (plain, qf):
            mixer.proj.weight.copy_(torch.eye(16))
            mixer.proj.bias.zero_()
    x = torch.randn(1, 36, 16)
    assignment = qf.explain(x, (6, 6), silent)["clusters"][0]
    assert 1 < assignment.max() < 35
    full = plain(x, (6, 6), silent).unflatten(2, (2, 8))[0].transpose(0, 1)
    count = int(assignment.max()) + 1
    mean = (
        sum_by_cluster(full, assignment, count)
        / count_members(assignment, count).clamp(min=1)[..., None]
    )
    wanted = scatter_to_tokens(mean, assignment).transpose(0, 1).flatten(1)
    torch.testing.assert_close(qf(x, (6, 6), silent)[0], wanted, rtol=1e-5, atol=1e-6)


def test_released_files_are_read_and_checked(tmp_path):
    theirs = timm.create_model("coat_lite_tiny", num_classes=11)
    state = theirs.state_dict()
    official = {**state, "norm1.weight": torch.ones(64), "norm1.bias": torch.zeros(64)}
    torch.save({"model": official, "epoch": 3}, tmp_path / "official.pth")
    ours = vitrail.create("coat_lite_tiny", classes=11, weights=tmp_path / "official.pth")
    torch.testing.assert_close(ours.head.weight, theirs.head.weight)
    other = vitrail.create(
        "coat_lite_tiny", classes=4, in_chans=1, weights=tmp_path / "official.pth"
    )
    torch.testing.assert_close(
        other.stages[0].embed.proj.weight, state["patch_embed1.proj.weight"].sum(1, keepdim=True)
    )
    state["serial_blocks1.1.cpe.proj.weight"] = state["cpe1.proj.weight"] + 1
    torch.save(state, tmp_path / "ported.pth")
    with pytest.raises(UserError, match="should be one shared tensor but differ"):
        vitrail.create("coat_lite_tiny", weights=tmp_path / "ported.pth")
    with pytest.raises(UserError, match="do not fit CoaT"):
        vitrail.create("coat_lite_mini", weights=tmp_path / "official.pth")
    (tmp_path / "text.pth").write_text("no")
    with pytest.raises(UserError, match="cannot be read as weights"):
        vitrail.create("coat_lite_tiny", weights=tmp_path / "text.pth")


def test_vit_weights_resize_to_another_size(tmp_path):
    theirs = randomised(timm.create_model("vit_tiny_patch16_224", num_classes=5))
    torch.save(theirs.state_dict(), tmp_path / "vit.pth")
    ours = vitrail.create(
        "vit_tiny", classes=5, image=(160, 224), weights=tmp_path / "vit.pth"
    ).eval()
    same = vitrail.create("vit_tiny", classes=5, weights=tmp_path / "vit.pth").eval()
    x = torch.randn(1, 3, 160, 224)
    torch.testing.assert_close(ours(x), same(x), rtol=1e-4, atol=1e-4)
    timms = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=(160, 224)).eval()
    from timm.models.vision_transformer import checkpoint_filter_fn

    timms.load_state_dict(checkpoint_filter_fn(theirs.state_dict(), timms))
    torch.testing.assert_close(ours(x), timms(x), rtol=1e-4, atol=1e-4)
