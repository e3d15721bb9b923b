"""timm's contract (its own test suite's list) held by every kind of model in the zoo.

On narrow models, which take less time than the meta device takes for as many operators.
"""

import copy
import pickle

import pytest
import torch
from tests.contracts.structures import one_each, options_of

import vitrail
from vitrail.errors import UserError
from vitrail.models.weights import fit_tables
from vitrail.models.zoo import entry, our_names

timm = pytest.importorskip("timm")
import vitrail.timm  # noqa: E402
from vitrail.hub.timm_names import TIMM_NAMES  # noqa: E402

NAMES = vitrail.list_models()


def size(name):
    """All widths of a variant together."""
    config = entry(name).config
    return sum(getattr(config, "dims", ())) + getattr(config, "dim", 0), name


NARROW = {entry(n).model: n for n in sorted(NAMES, key=size, reverse=True) if "lite" not in n}
FEW = sorted({*NARROW.values(), "coat_lite_tiny", "clustering_coat_lite_tiny"})


def shallow(name):
    """Overrides that leave the wiring and take blocks and channels away."""
    return {k: v for k, v in options_of(name).items() if k not in ("classes", "image")}


def make(name, **options):
    options = {"img_size": 64, "num_classes": 5, **shallow(name), **options}
    return timm.create_model(f"vitrail_{name}", **options)


def with_pictures(name, **options):
    """A model, and two pictures for it."""
    return make(name, **options), torch.randn(2, 3, 64, 64)


def stem_of(model):
    """The layer that sees the picture: a convolution, in SL-ViT a linear one."""
    layers = torch.nn.Conv2d | torch.nn.Linear
    return next(n for n, m in model.named_modules() if isinstance(m, layers))


EVERY = sorted({*one_each(), "sl_vit", "coatnet_0_rw", "coatnet_bn_0_rw", "coatnet_rmlp_1_rw"})
every = pytest.mark.parametrize("name", EVERY)
few = pytest.mark.parametrize("name", FEW)


def test_every_model_is_registered_under_a_prefix_and_a_module_of_its_own():
    assert set(timm.list_models("vitrail_*")) == {f"vitrail_{n}" for n in NAMES}
    assert timm.list_models(module="timm_adapter") == timm.list_models("vitrail_*")
    assert timm.is_model_pretrained("coat_tiny")  # timm's own entry is as it was


@every
def test_forward_shapes_head_and_attributes(name):
    model, x = with_pictures(name)
    final = model.forward_features(x)
    channels = final.shape[1] if final.dim() == 4 else final.shape[2]
    assert model.num_classes == 5 and model.in_chans == 3 and model.output_fmt == "NCHW"
    assert final.dim() in (3, 4) and channels == model.num_features
    assert model.forward_head(final, pre_logits=True).shape == (2, model.head_hidden_size)
    grid = model.final_grid((64, 64))
    assert (final.shape[2:] == grid) if final.dim() == 4 else grid is None
    assert model(x).shape == model.forward_head(final).shape == (2, 5)
    assert model.pretrained_cfg["first_conv"] == stem_of(model) or name == "sl_vit"
    heads = model.pretrained_cfg["classifier"]
    for head in (heads,) if isinstance(heads, str) else heads:
        assert model.get_submodule(head).weight.shape[0] == 5
    assert isinstance(model.get_classifier(), torch.nn.Module)
    model.reset_classifier(0)
    assert model(x).shape == (2, model.head_hidden_size)
    model.reset_classifier(0, "")
    assert model(x).shape == final.shape
    assert model.pretrained_cfg["pool_size"] == model.final_grid(
        model.pretrained_cfg["input_size"][1:]
    )
    model.reset_classifier(7, "native")
    assert model(x).shape == (2, 7)


@every
def test_every_parameter_has_a_gradient_and_a_group(name):
    model, x = with_pictures(name, num_classes=42, drop_rate=0.1, drop_path_rate=0.1)
    model(x).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    names = {n for n, _ in model.named_parameters()}
    assert model.no_weight_decay() <= names
    from timm.models import group_parameters

    assert set(group_parameters(model, model.group_matcher(), reverse=True)) == names


@every
def test_maps_for_pyramids(name):
    """``features_only`` gives the maps of ``forward_intermediates``, every parameter used."""
    model, x = with_pictures(name)
    final, maps = model.forward_intermediates(x)
    assert final.shape == model.forward_features(x).shape
    assert [tuple(m.shape) for m in maps] == [
        (2, info["num_chs"], 64 // info["reduction"], 64 // info["reduction"])
        for info in model.feature_info
    ]
    wide = model.forward_intermediates(x, [1, -1], output_fmt="NHWC", intermediates_only=True)
    assert wide[1].shape == (2, 2, 2, model.channels[3])
    pyramid, _ = with_pictures(name, features_only=True)
    assert pyramid.feature_info.reduction() == [4, 8, 16, 32]
    got = pyramid(x)
    assert [m.shape for m in got] == [m.shape for m in maps]
    sum(m.sum() for m in got).backward()
    assert [n for n, p in pyramid.named_parameters() if p.grad is None] == []
    fine, _ = with_pictures(name, features_only=True, out_indices=(0, 1))
    assert [m.shape for m in fine(x)] == [m.shape for m in maps[:2]]
    if model.prune_to.__func__ is not vitrail.Backbone.prune_to and "parallel" not in shallow(name):
        assert len(list(fine.parameters())) < len(list(pyramid.parameters()))


@every
def test_building_on_meta_and_filling_equals_building(name):
    torch.manual_seed(1)
    wanted = make(name)
    with torch.device("meta"):
        model = make(name)
    assert all(t.is_meta for t in [*model.parameters(), *model.buffers()])
    model.to_empty(device="cpu")
    torch.manual_seed(1)
    model.init_weights()
    own = dict(model.named_buffers()) | model.state_dict()
    for key, tensor in (dict(wanted.named_buffers()) | wanted.state_dict()).items():
        assert torch.equal(tensor, own[key]), key
    model.init_non_persistent_buffers()


@few
def test_numbers_any_size_and_checkpointing(name):
    model = make(name, in_chans=4).eval()
    with torch.no_grad():
        for size in ((64, 64), (96, 64), (64, 128), (75, 101), (33, 64)):
            x = torch.randn(1, 4, *size)
            final, maps = model.forward_intermediates(x)
            assert model(x).isfinite().all()
            torch.testing.assert_close(final, model.forward_features(x))
            for got, wanted in zip(maps, model.features(x), strict=True):
                torch.testing.assert_close(got, wanted)
    x = torch.randn(2, 4, 64, 64)
    plain = model(x)
    model.set_grad_checkpointing()
    torch.testing.assert_close(model(x), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in EVERY if make(n).final_grid((64, 64))])
def test_the_grid_of_unpooled_maps_is_told_for_any_image(name):
    model = make(name, num_classes=0, global_pool="").eval()
    with torch.no_grad():
        for size in ((224, 224), (75, 101), (97, 33)):
            assert model(torch.zeros(1, 3, *size)).shape[2:] == model.final_grid(size), size


@few
def test_traced_by_fx_as_timm_traces(name):
    """The same numbers from the graph, in both modes; every parameter has a gradient."""
    from timm.models import get_notrace_functions, get_notrace_modules
    from torchvision.models.feature_extraction import create_feature_extractor

    options = {
        "leaf_modules": get_notrace_modules(),
        "autowrap_functions": get_notrace_functions(),
        "param_shapes_constant": True,
    }
    model = make(name, drop_rate=0.1)
    stem, head = stem_of(model).split(".")[0], "head"
    traced = create_feature_extractor(model, [stem, head], tracer_kwargs=options)
    x = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        assert torch.equal(traced.eval()(x)[head], model.eval()(x))
    traced.train()(x)[head].mean().backward()
    assert [n for n, p in traced.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["cmt_ti", "mobilevit_xxs", "coatnet_0"])
def test_maps_from_the_graph_are_the_models(name):
    torch.manual_seed(0)
    graph = make(name, features_only=True, feature_cls="fx").eval()
    torch.manual_seed(0)
    model, x = make(name).eval(), torch.randn(1, 3, 75, 101)
    with torch.no_grad():
        assert all(map(torch.equal, graph(x), model.features(x)))


@few
def test_both_outputs_come_from_one_pass(name):
    model = make(name).train()
    calls = []
    model.get_submodule(stem_of(model)).register_forward_hook(lambda *_: calls.append(1))
    model.forward_intermediates(torch.randn(2, 3, 64, 64))
    assert len(calls) == 1


@few
def test_own_and_adapted_weights(name, tmp_path):
    """``checkpoint_path``, and a fresh head and stem on pretrained weights, as timm does."""
    model = make(name).eval()
    torch.save(model.state_dict(), tmp_path / "own.pth")
    again = make(name, checkpoint_path=tmp_path / "own.pth").eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again(x), model(x))
    source = {"file": str(tmp_path / "own.pth"), "num_classes": 5}
    stem, channels = stem_of(model) + ".weight", 1 if model.pretrained_cfg["first_conv"] else 3
    options = {"num_classes": 3, "in_chans": channels, "pretrained_cfg_overlay": source}
    tuned = make(name, pretrained=True, **options)
    if channels == 1:
        torch.testing.assert_close(
            tuned.state_dict()[stem], model.state_dict()[stem].sum(1, keepdim=True)
        )
    head = model.pretrained_cfg["classifier"]
    same = {k: v for k, v in model.state_dict().items() if k != stem and not k.startswith(head)}
    for key, tensor in same.items():
        assert torch.equal(tensor, tuned.state_dict()[key]), key
    larger = {"pretrained": True, "pretrained_cfg_overlay": source, "img_size": 96}
    assert make(name, **larger)(torch.randn(2, 3, 96, 96)).shape == (2, 5)


@few
def test_pruned_to_a_map_the_model_ends_there(name):
    """Nothing is left that it does not use; classes, another size and a copy work from there."""
    whole, x = make(name).eval(), torch.randn(2, 3, 64, 64)
    parallel = bool(getattr(whole.config, "parallel", 0))  # blocks of three scales stay whole
    for i in range(4):
        model = copy.deepcopy(whole)
        assert model.prune_intermediate_layers([i], prune_norm=True) == [i]
        with torch.no_grad():
            wanted = whole.forward_intermediates(x, [i], intermediates_only=True)[0]
            assert torch.equal(model.forward_features(x), wanted)
            final, maps = model.forward_intermediates(x, [i])
            assert torch.equal(final, wanted) and torch.equal(maps[0], wanted)
            torch.testing.assert_close(model(x), wanted.mean((2, 3)))
        model.train().forward_features(x).sum().backward()
        unused = [n for n, p in model.named_parameters() if p.grad is None]
        assert not unused or (parallel and i)
        assert model.num_features == model.head_hidden_size == wanted.shape[1]
        model.reset_classifier(3)
        model.set_input_size((96, 64))
        assert model(x).shape == (2, 3)
    with pytest.raises(UserError, match="pruned to map 1"):
        model.prune_intermediate_layers([1])
        model.forward_intermediates(x, [2])


def test_an_unneeded_head_goes_and_a_needed_one_stays():
    whole, x = make("coat_lite_tiny").eval(), torch.randn(1, 3, 64, 64)
    model = copy.deepcopy(whole)
    model.prune_intermediate_layers([3], prune_head=False)
    assert torch.equal(model(x), whole(x))
    model.prune_intermediate_layers([3])
    assert model.num_classes == 0 and model(x).shape == (1, model.head_hidden_size)


def test_a_new_head_is_in_the_models_mode_and_pools_as_the_paper():
    model = make("ceit_tiny", num_classes=0, global_pool="").eval()
    model.reset_classifier(2)
    assert not any(part.training for part in model.modules())
    assert model(torch.ones(1, 3, 64, 64)).shape == (1, 2)


@few
def test_another_input_size_in_place(name):
    model = make(name, drop_rate=0.2).eval().requires_grad_(False)
    before = model(torch.ones(1, 3, 96, 64))
    model.set_input_size((96, 64))
    assert not model.training and model.pretrained_cfg["architecture"] == f"vitrail_{name}"
    after = model(torch.ones(1, 3, 96, 64))
    torch.testing.assert_close(after, before, rtol=1e-2, atol=1e-2)  # tables resized once, or twice
    assert model.config.image == model._traits["img_size"] == (96, 64)
    assert not any(p.requires_grad for p in model.parameters())  # frozen as before


@few
def test_copied_and_pickled(name):
    model = make(name).eval()
    x = torch.randn(1, 3, 64, 64)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), model(x))


def test_export_with_a_free_batch():
    model = make("vit_tiny").eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        three = torch.randn(3, 3, 64, 64)
        torch.testing.assert_close(exported.module()(three), model(three), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_counterparts_are_timms_and_described_by_it(name):
    theirs = timm.get_pretrained_cfg(TIMM_NAMES[name])
    ours = timm.get_pretrained_cfg(f"vitrail_{name}")
    assert (ours.mean, ours.std, ours.crop_pct) == (theirs.mean, theirs.std, theirs.crop_pct)
    assert ours.hf_hub_id == theirs.hf_hub_id and ours.has_weights
    with torch.device("meta"):
        model = vitrail.create(name)
        released = timm.create_model(TIMM_NAMES[name], num_classes=1000).state_dict()
    blank = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in released.items()}
    renamed = {
        key: tensor.shape for key, tensor in fit_tables(our_names(model, blank), model).items()
    }
    assert renamed == {key: tensor.shape for key, tensor in model.state_dict().items()}


def test_released_names_load_by_checkpoint_path_and_as_pretrained(tmp_path):
    theirs = timm.create_model("coat_lite_tiny", num_classes=11, img_size=64).eval()
    official = {"model": theirs.state_dict(), "epoch": 3}
    torch.save(official, tmp_path / "official.pth")
    x = torch.randn(1, 3, 64, 64)
    path = tmp_path / "official.pth"
    options = {"num_classes": 11, "img_size": 64}
    by_path = timm.create_model("vitrail_coat_lite_tiny", checkpoint_path=path, **options).eval()
    overlay = {"file": str(path), "num_classes": 11}
    pretrained = timm.create_model(
        "vitrail_coat_lite_tiny", pretrained=True, pretrained_cfg_overlay=overlay, **options
    ).eval()
    with torch.no_grad():
        torch.testing.assert_close(by_path(x), theirs(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(pretrained(x), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: make("pooled_coat_lite_tiny", pretrained=True),
            "no pretrained weights of vitrail_p",
        ),
        (lambda: make("coat_lite_tiny", output_stride=16), "cannot leave out the last"),
        (lambda: make("coat_lite_tiny", global_pool="max"), "pools as its paper does"),
        (lambda: make("coat_lite_tiny", global_pool=""), "give num_classes=0"),
        (lambda: make("coat_lite_tiny", act_layer="relu"), "has no option 'act_layer'"),
        (lambda: make("coat_lite_tiny", features_only=True, out_indices=(4,)), "0 to 3"),
        (
            lambda: make("coat_lite_tiny").forward_intermediates(
                torch.ones(1, 3, 64, 64), output_fmt="X"
            ),
            "one of NCHW",
        ),
    ],
)
def test_what_cannot_be_is_said_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)


def test_an_option_that_no_model_has_is_a_type_error_as_with_timms_models():
    for name in ("vit_tiny_patch16_224", "vitrail_vit_tiny"):
        with pytest.raises(TypeError):
            timm.create_model(name, not_an_option=1)


def test_an_unpooled_model_without_classes_can_be_asked_for():
    model = make("coat_lite_tiny", num_classes=0, global_pool="")
    assert model(torch.ones(1, 3, 64, 64)).shape == (1, 5, 64)


def test_timms_own_switches_reach_the_model():
    model = make("coat_lite_tiny", drop_rate=0.5, mixer="softmax", dtype=torch.float64)
    assert model.drop_rate == 0.5 and model.config.mixer == ("softmax",) * 4
    assert model.head.weight.dtype == torch.float64
    assert make("coat_lite_tiny", drop_path_rate=0.3).config.drop_path == 0.3
