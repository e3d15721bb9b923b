"""Every registered backbone keeps the promises of ``models/backbone.py``.

Here every variant, shallow but at its own widths, and mixers and reducers in it (see ``pairs``);
the dearer points (export, compiling, gradients twice, ...) are held by ``test_structures``.
"""

import re
from dataclasses import fields
from itertools import product

import pytest
import torch
from tests.contracts.structures import RATES, is_ours

import vitrail
from vitrail.errors import UserError
from vitrail.mixers import MixerSpec
from vitrail.mixers.window import TiledAttention
from vitrail.models.zoo import ZOO, configure
from vitrail.reducers import ReducerSpec
from vitrail.specs import SpecError
from vitrail.testing import case

SHALLOW = {
    "vit": {"depth": 4},
    "sl_vit": {"depth": 4},
    "deit": {"depth": 4},
    "convit": {"depth": 4, "local": 3},
    "ceit": {"depth": 4},
    "cvt": {"depths": (1, 1, 1)},
    "cct": {"depth": 4},
    "coat_lite": {"depths": (1, 1, 1, 1)},
    "coat": {"depths": (1, 1, 1, 1), "parallel": 1},
    "mobilevit": {"depths": (1, 1, 1)},
    "filtervit_v2": {"depths": (1, 1, 1, 1)},
    "dropoutvit_v2": {"depths": (1, 1, 1, 1)},
    "filtervit": {"resample": 0},
    "dropoutvit": {"resample": 0},
    "coatnet": {"stem": (8, 16), "dims": (32, 64, 96, 128), "depths": (1, 1, 2, 1)},
    "coatnet_6": {"dims": (32, 64, 96, 128, 256), "depths": (1, 1, 1, 2, 1)},
    "coatnet_7": {"dims": (32, 64, 96, 128, 256), "depths": (1, 1, 1, 2, 1)},
    "cmt": {"depths": (1, 1, 1, 1)},
}
MIXERS = sorted(MixerSpec.known)
MOVED = ("clustered", "improved_clustered", "lsh")  # by padding, which no picture may feel
PLACED = (  # need tokens on a grid
    *("prototype", "relative", "reduced", "spatial", "projected", "linformer"),
    *("window", "grid", "sliding", "deformable", "pooling"),
)


def small(name: str, **options):
    """A variant with its own widths, wiring and specs, but few blocks."""
    return vitrail.create(name, classes=5, image=64, **SHALLOW[family_of(name)], **options)


def family_of(name: str, table: dict = SHALLOW) -> str:
    """The row of a table that serves a variant."""
    known = [f for f in table if name.startswith(f)]
    return "coat_lite" if "coat_lite" in name else max(known, key=len, default="")


@pytest.mark.parametrize("name", vitrail.list_models())
def test_every_variant_keeps_the_contract(name):
    """Built once, as most of the time goes there."""
    model = small(name, in_chans=4)
    parameters_learn(model)
    model.eval()
    with torch.no_grad():
        maps_lie_at_four_strides(model)
        logits_come_from_pooled_features(model)
    optimiser_hooks_name_every_parameter(model)


def parameters_learn(model):
    model(torch.randn(2, 4, 64, 64)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def maps_lie_at_four_strides(model):
    assert model.strides == (4, 8, 16, 32) and len(model.channels) == 4
    size = (75, 101)  # whole cells of 64 px: test_structures
    maps = model.features(torch.randn(1, 4, *size))
    for m, channels, stride in zip(maps, model.channels, model.strides, strict=True):
        assert m.shape[:2] == (1, channels) and m.isfinite().all()
        for side, pixels in zip(m.shape[2:], size, strict=True):
            assert pixels // stride <= side <= -(-pixels // stride)


def logits_come_from_pooled_features(model):
    x = torch.randn(1, 4, 64, 64)
    logits = model(x)
    assert logits.shape == (1, 5)
    final = model.forward_features(x)
    pooled = model.forward_head(final, pre_logits=True)
    assert pooled.shape == (1, model.width)
    torch.testing.assert_close(model.head(pooled), logits)
    model.reset_classifier(0)
    torch.testing.assert_close(model.forward_head(final), pooled)


def optimiser_hooks_name_every_parameter(model):
    """As timm's optimisers ask for them."""
    from timm.models import group_parameters

    names = {n for n, _ in model.named_parameters()}
    assert model.no_weight_decay() - {"cls"} <= names
    grouped = group_parameters(model, model.group_matcher(), reverse=True)
    assert set(grouped) == names
    assert len(set(grouped.values())) > 3


REDUCERS = [  # every one there is, and the ways of "cluster" that make other plans
    *(
        "all",
        "pool",
        "cluster",
        "cluster(by='kmeans')",
        "cluster(by='sort')",
        "cluster(by='e2lsh')",
    ),
    *("filter", "random", "merge", "dpc_knn", "paca(clusters=4)", "budget"),
]
PLANS = ("pool", "cluster", "filter", "paca(clusters=4)", "budget")  # one a kind of plan
OWN_CHOICE = ("filtervit_x", "filtervit_s", "dropoutvit_x")  # choose places as published


NARROW = {  # of one family, widths apart: narrowed, its variants are one
    "vit": {"depth": 1, "dim": 48, "heads": 3},
    "sl_vit": {"depth": 1, "dim": 48, "heads": 3},
    "deit": {"depth": 1, "dim": 48, "heads": 3},
    "convit": {"depth": 2, "local": 1, "dim": 48, "heads": 4},
    "coat_lite": {"dims": (16, 32, 40, 64)},
    "coat": {"dims": (16, 24, 24, 24)},
    "coatnet_": {"stem": (4, 8), "dims": (16, 32, 32, 64)},
    "coatnet_6": {"stem": (4, 8), "dims": (16, 32, 32, 32, 64)},
    "coatnet_7": {"stem": (4, 8), "dims": (16, 32, 32, 32, 64)},
    "cmt": {"stem": 8, "dims": (16, 16, 32, 32), "mlp_ratio": 2.0, "last": 32},
    "cct": {"depth": 1, "dim": 48, "heads": 2, "mlp_ratio": 2, "stem": 16},
    "ceit": {"depth": 2, "dim": 48, "heads": 3, "stem": 16},
    "cvt": {"dims": (16, 32, 48), "heads": (1, 2, 3)},
    "mobilevit": {
        "stem": 8,
        "dims": (8, 16, 16, 24, 32),
        "widths": (24, 32, 32),
        "ratio": 2,
        "final": 32,
    },
    "filtervit_v2": {"stem": 8, "dims": (32, 32, 64, 64), "hidden": 32},
    "dropoutvit_v2": {"stem": 8, "dims": (32, 32, 64, 64), "hidden": 32},
}


def narrow(name: str, mixer: str, reducer: str) -> dict:
    """Options for the smallest model that is wired like the variant."""
    widths = NARROW.get(family_of(name, NARROW), {})
    return {**SHALLOW[family_of(name)], **widths, "mixer": mixer, "reducer": reducer}


def pairs() -> dict[str, list[tuple[str, str]]]:
    """A covering set: what a mixer makes of a kind of plan does not depend on the backbone.

    The first variant of every class takes every mixer and every reducer once, ``vit_tiny`` every
    mixer on every kind of plan, other variants one mixer that needs a grid and one reducer.
    Variants that are one when narrowed are asked once.
    """
    each = [(m, "all") for m in MIXERS] + [("softmax", r) for r in REDUCERS]
    few = [("window", "all"), ("softmax", "cluster")]
    chosen: dict[str, list[tuple[str, str]]] = {"vit_tiny": [*each, *product(MIXERS, PLANS)]}
    seen, classes = set(), {ZOO["vit_tiny"].model}
    for name in vitrail.list_models():
        config = configure(name, classes=5, image=64, **narrow(name, "native", "all"))
        same = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in RATES}
        if (key := (ZOO[name].model, str(same))) in seen or name in chosen:
            continue
        chosen[name] = few if key[0] in classes else each
        seen.add(key)
        classes.add(key[0])
    return chosen


def is_refused(name: str, mixer: str, reducer: str) -> bool:
    """Whether a backbone cannot serve a mixer on a reducer's tokens."""
    scattered = reducer not in ("all", "pool")
    own = name.startswith(OWN_CHOICE)
    unplaced = mixer.startswith(PLACED) and (scattered or own)
    padded = mixer in MOVED and reducer in ("budget", "cluster(by='e2lsh')")
    coarse_only = name.startswith(("cmt", "ceit")) and scattered
    return unplaced or padded or coarse_only or (own and reducer != "all")


PAIRS = pairs()


def test_every_reducer_is_among_the_pairs():
    ours = {name for name, spec in ReducerSpec.known.items() if is_ours(spec)}
    assert {ReducerSpec.parse(r).name for r in REDUCERS} == ours
    assert {ReducerSpec.parse(r).name for r in PLANS} < ours


@pytest.mark.parametrize("name", PAIRS)
def test_any_mixer_any_reducer(name):
    """Forward and backward at 64 px, or a refusal that names spec, place and remedy."""
    for mixer, reducer in PAIRS[name]:
        with case(mixer, reducer):
            options = {"classes": 5, "image": 64, **narrow(name, mixer, reducer)}
            if is_refused(name, mixer, reducer):
                with pytest.raises(SpecError, match=r"cannot serve .*; "):
                    vitrail.create(name, **options)
                continue
            model = vitrail.create(name, **options)
            model(torch.randn(2, 3, 64, 64)).sum().backward()
            grads = [p.grad for p in model.parameters()]
            assert all(grad is not None and grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vitrail.create("coat_lite_tini"), "did you mean coat_lite_tiny"),
        (lambda: vitrail.create("vit_tiny(patches=8)"), "has no option 'patches'; it has .*depth"),
        (
            lambda: vitrail.create("vit_tiny", mixer="softmix"),
            "no mixer 'softmix'; there are .*conv",
        ),
        (
            lambda: vitrail.create("vit_tiny", mixer="conv(size=3)"),
            "has no option 'size'; it takes",
        ),
        (lambda: vitrail.create("vit_tiny", mixer="conv(3)"), "is not of the form"),
        (lambda: vitrail.create("vit_tiny", mixer="conv(windows=open('x'))"), "must be numbers"),
        (lambda: vitrail.create("coat_tiny", mixer=("conv", "conv")), "2 mixers for 4 stages"),
        (lambda: vitrail.create("vit_tiny(pool='max')"), "pool is 'token' or 'mean'"),
        (lambda: vitrail.create("vit_tiny", weights="/no/where.pth"), "no weight file"),
        (lambda: vitrail.create("coat_lite_tiny")(torch.zeros(1, 1, 64, 64)), "in_chans=1"),
        (lambda: vitrail.create("coat_lite_tiny")(torch.zeros(1, 3, 28, 28)), "at least 32 pixels"),
    ],
)
def test_what_cannot_be_is_said_in_words(call, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(").replace(")", r"\)")):
        call()


@pytest.mark.parametrize(
    "text",
    [
        "vit_tiny(depth=3)",
        "deit_tiny_distilled(depth=3)",
        "convit_tiny(depth=4, local=3)",
        "ceit_tiny(depth=3)",
        "cvt_13(depths=(1, 2, 3))",
        "cct_2_3x2",
        "coat_lite_tiny",
        "coat_tiny(parallel=3)",
        "cmt_ti(depths=(1, 2, 2, 3))",
        "coatnet_0(depths=(1, 1, 2, 3))",
        "mobilevit_xxs",
        "filtervit_v2_xxs",
    ],
)
def test_blocks_know_their_number(text):
    """Mixers that alternate by blocks, such as shifted windows, do so in every model."""
    with torch.device("meta"):
        model = vitrail.create(text, image=64, mixer="window(size=2)", reducer="all")
    numbers = {
        name: (module.index, re.findall(r"(?:blocks|parallel)\.(\d+)", name))
        for name, module in model.named_modules()
        if isinstance(module, TiledAttention)
    }
    assert any(index for index, _ in numbers.values())
    for index, said in numbers.values():
        assert index == int(said[-1] if said else 0)
