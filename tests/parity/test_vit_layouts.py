"""ViT reads the layouts in the field, timm's, torchvision's and JAX's, and resizes their tables."""

import numpy
import pytest
import torch
from tests.parity import golden
from tests.parity.measured import assert_equal, parameters_and_macs, randomised

import vitrail
from vitrail.errors import UserError
from vitrail.layers.position import resize_table
from vitrail.mixers import MixerSpec
from vitrail.models import load_into
from vitrail.specs import Place

timm = pytest.importorskip("timm")


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    return randomised(
        timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=5)
    )


def ours(**options):
    return vitrail.create("vit_tiny(depth=2)", **{"image": 64, "classes": 5} | options).eval()


def as_jax(model, *, big_vision=False):
    """A timm ViT in the layout of the original, or of big_vision, as NumPy arrays."""
    heads, dim = model.blocks[0].attn.num_heads, model.embed_dim
    norm2, attention, mlp = ("LayerNorm_1", 0, 0) if big_vision else ("LayerNorm_2", 1, 3)
    table = "pos_embedding" if big_vision else "Transformer/posembed_input/pos_embedding"
    out = {
        "embedding/kernel": model.patch_embed.proj.weight.permute(2, 3, 1, 0),
        "embedding/bias": model.patch_embed.proj.bias,
        table: model.pos_embed,
        "Transformer/encoder_norm/scale": model.norm.weight,
        "Transformer/encoder_norm/bias": model.norm.bias,
        "head/kernel": model.head.weight.T,
        "head/bias": model.head.bias,
    }
    if model.cls_token is not None:
        out["cls"] = model.cls_token
    for i, block in enumerate(model.blocks):
        at = f"Transformer/encoderblock_{i}/"
        meet = f"{at}MultiHeadDotProductAttention_{attention}/"
        weights, biases = block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3)
        for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            out[f"{meet}{part}/kernel"] = weight.T.reshape(dim, heads, -1)
            out[f"{meet}{part}/bias"] = bias.reshape(heads, -1)
        out[f"{meet}out/kernel"] = block.attn.proj.weight.T.reshape(heads, -1, dim)
        out[f"{meet}out/bias"] = block.attn.proj.bias
        for name, norm in (("LayerNorm_0", block.norm1), (norm2, block.norm2)):
            out[f"{at}{name}/scale"], out[f"{at}{name}/bias"] = norm.weight, norm.bias
        for name, linear in (("Dense_0", block.mlp.fc1), ("Dense_1", block.mlp.fc2)):
            out[f"{at}MlpBlock_{mlp}/{name}/kernel"] = linear.weight.T
            out[f"{at}MlpBlock_{mlp}/{name}/bias"] = linear.bias
    return {name: t.detach().numpy().copy() for name, t in out.items()}


@pytest.mark.parametrize("prefix", ["", "opt/target/"])
def test_npz_of_the_original(theirs, tmp_path, prefix):
    arrays = {prefix + n: a for n, a in as_jax(theirs).items()}
    dim = theirs.embed_dim
    arrays[f"{prefix}pre_logits/kernel"] = numpy.zeros((dim, dim), numpy.float32)
    arrays[f"{prefix}pre_logits/bias"] = numpy.zeros(dim, numpy.float32)
    numpy.savez(tmp_path / "vit.npz", **arrays)
    model = ours(weights=tmp_path / "vit.npz")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert_equal(model(x), theirs(x))


@pytest.mark.parametrize("scanned", [False, True])
@pytest.mark.parametrize("prefix", ["params/", "params/img/"])
def test_npz_of_big_vision(tmp_path, prefix, scanned):
    options = {"class_token": False, "global_pool": "avg", "fc_norm": False}
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, depth=2, num_classes=5, **options
    )
    model = randomised(model)
    arrays = as_jax(model, big_vision=True)
    if scanned:
        first = [n for n in arrays if "encoderblock_0" in n]
        for name in first:
            both = [arrays.pop(name), arrays.pop(name.replace("block_0", "block_1"))]
            arrays[name.replace("encoderblock_0", "encoderblock")] = numpy.stack(both)
    numpy.savez(tmp_path / "vit.npz", **{prefix + n: a for n, a in arrays.items()})
    mine = ours(pool="mean", weights=tmp_path / "vit.npz")
    assert torch.equal(mine.position, model.pos_embed)
    assert torch.equal(mine.blocks[1].mixer.qkv.weight, model.blocks[1].attn.qkv.weight)
    assert torch.equal(mine.patch.weight, model.patch_embed.proj.weight)


def test_npz_loads_as_timm_loads_it(theirs, tmp_path):
    numpy.savez(tmp_path / "vit.npz", **as_jax(theirs))
    other = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=5).eval()
    other.load_pretrained(str(tmp_path / "vit.npz"))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert_equal(ours(weights=tmp_path / "vit.npz")(x), other(x))


def test_npz_with_other_classes_and_another_size(theirs, tmp_path):
    numpy.savez(tmp_path / "vit.npz", **as_jax(theirs))
    model = ours(classes=3, image=96, resize="corner", weights=tmp_path / "vit.npz")
    assert model.head.weight.shape == (3, 192) and model.position.shape == (1, 37, 192)
    assert torch.equal(model.position[:, 0], theirs.pos_embed[:, 0])


def test_npz_that_is_no_vit_or_holds_objects_is_refused(theirs, tmp_path):
    arrays = as_jax(theirs)
    arrays["MAPHead_0/probe"] = numpy.zeros((1, 1, 192), numpy.float32)
    numpy.savez(tmp_path / "map.npz", **arrays)
    with pytest.raises(UserError, match="1 tensors unknown, such as MAPHead_0/probe"):
        ours(weights=tmp_path / "map.npz")
    numpy.savez(tmp_path / "objects.npz", x=numpy.array([{}], dtype=object))
    with pytest.raises(UserError, match="cannot be read as weights"):
        ours(weights=tmp_path / "objects.npz")


def test_torchvisions_layout():
    torchvision = pytest.importorskip("torchvision")
    sizes = {"hidden_dim": 192, "mlp_dim": 768, "num_layers": 2, "num_heads": 3}
    model = torchvision.models.VisionTransformer(
        image_size=64, patch_size=16, num_classes=5, **sizes
    )
    mine = ours()
    load_into(mine, randomised(model).state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert_equal(mine(x), model(x))


def test_a_table_of_no_square_is_said_in_words(theirs):
    state = theirs.state_dict()
    with pytest.raises(UserError, match="no square grid with 0 tokens in front"):
        load_into(ours(pool="mean"), state)


# ---- position tables at another size (reference page "ViT", 1.4) --------------------------------


def test_corner_is_what_jax_does():
    ndimage = pytest.importorskip("scipy.ndimage")
    table = torch.randn(1, 1 + 14 * 14, 8)
    grid = table[0, 1:].view(14, 14, 8).double().numpy()
    wanted = ndimage.zoom(grid, (24 / 14, 24 / 14, 1), order=1)
    got = resize_table(table, (14, 14), (24, 24), 1, "corner")
    torch.testing.assert_close(
        got[0, 1:].view(24, 24, 8), torch.from_numpy(wanted).float(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("how", "options"),
    [
        ("bicubic", {}),
        ("bilinear", {"interpolation": "bilinear", "antialias": False}),
    ],
)
def test_bicubic_and_bilinear_are_what_timm_does(how, options):
    from timm.layers import resample_abs_pos_embed

    table = torch.randn(1, 1 + 36, 8)
    wanted = resample_abs_pos_embed(table, (4, 9), (6, 6), num_prefix_tokens=1, **options)
    torch.testing.assert_close(resize_table(table, (6, 6), (4, 9), 1, how), wanted)


@pytest.mark.parametrize("how", ["bicubic", "bilinear", "corner"])
def test_resizing_keeps_what_it_should(how):
    table = torch.randn(1, 2 + 16, 8)
    assert resize_table(table, (4, 4), (4, 4), 2, how) is table
    assert torch.equal(resize_table(table, (4, 4), (7, 5), 2, how)[:, :2], table[:, :2])
    smooth = torch.linspace(0, 3, 14)[:, None] + torch.linspace(0, 2, 14)[None].sin()
    smooth = smooth.view(1, -1, 1)
    there = resize_table(smooth, (14, 14), (24, 24), 0, how)
    back = resize_table(there, (24, 24), (14, 14), 0, how)
    assert (back - smooth).abs().max() < 0.05 * smooth.std() + 0.1
    assert (back - smooth).abs().mean() < 0.03 * smooth.std()


# ---- patches and attention for small data --------------------------------------------------------


def test_shifted_patches_and_locality_attention_are_the_released_ones():
    state, x, wanted = golden.load("sl_vit")
    model = vitrail.create("sl_vit(depth=2)", classes=7).eval()
    load_into(model, state)
    with torch.no_grad():
        assert_equal(model(x), wanted)


def test_sl_vit_has_the_released_models_parameters():
    assert parameters_and_macs("sl_vit")[0] == 2_886_928


def test_spatial_reduction_is_pvts():
    state, x, wanted = golden.load("pvt_attention")
    mixer = MixerSpec.parse("spatial(ratio=2)").build(Place(dim=12, heads=3, grid=(4, 6)))
    mixer.load_state_dict(state)
    assert_equal(mixer(x, (4, 6)), wanted)


def test_choices_combine_and_wrong_words_are_answered():
    model = vitrail.create("vit_tiny(stem='shifted', depth=1)", mixer="lsa", image=40).eval()
    assert model(torch.randn(1, 3, 40, 56)).isfinite().all()
    with pytest.raises(UserError, match="stem is 'patch' or 'shifted'"):
        vitrail.create("vit_tiny(stem='shiftd')")
