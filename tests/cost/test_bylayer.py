"""Rows that add up, and names down to stage, block and part."""

import io
import json

import pytest
from rich.console import Console
from tests.cost import builders
from torch import nn

import vitrail
from vitrail import cost
from vitrail.cost import bylayer
from vitrail.errors import UserError

SHORT = cost.Settings(
    image=32, batch=2, classes=3, rounds=2, window_s=0.01, warmup_s=0.01, threads=1
)
COAT = "coat_lite_tiny(depths=(1,1,1,1))"


@pytest.fixture(scope="module")
def profile() -> cost.Profile:
    return cost.by_layer(COAT, SHORT, build=vitrail.create)


def test_rows_add_up_to_the_whole(profile: cost.Profile) -> None:
    counted = cost.count(vitrail.create(COAT, classes=3, image=32), 32)
    assert profile.macs == 2 * counted.macs
    assert sum(layer.share for layer in profile.layers) == pytest.approx(1.0)
    assert profile.seconds > 0
    assert profile.traffic > 0
    data = json.loads(json.dumps(profile.to_dict()))
    assert data["layers"][0]["seconds"] > 0
    assert data["plain"]["calls_per_window"] >= 1


def test_rows_are_blocks_and_parts(profile: cost.Profile) -> None:
    names = [layer.name for layer in profile.layers]
    assert len(names) == len(set(names))
    assert "stages.0.blocks.0.mlp" in names
    assert f"stages.0.blocks.0 {bylayer.OWN}" in names
    assert names[0] == bylayer.OWN
    assert not any("fc1" in name for name in names)
    kinds = {layer.name: layer.kind for layer in profile.layers}
    assert kinds["stages.0.blocks.0.mlp"] == "Mlp"
    assert kinds[bylayer.OWN] == "CoaT"


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("stages.0.blocks.1.mixer.q", "stages.0.blocks.1.mixer"),
        ("blocks.3.mixer.qkv", "blocks.3.mixer"),
        ("stages.2.1.conv.bn", "stages.2.1.conv"),
        ("stages.0.blocks.1.mlp.0.deep.er", "stages.0.blocks.1.mlp.0"),
        ("head.fc", "head"),
        ("", ""),
    ],
)
def test_names_down_to_the_part(name: str, row: str) -> None:
    assert bylayer.row_name(name, None) == row


def test_depth_is_the_users() -> None:
    assert bylayer.row_name("stages.0.blocks.1.mixer.q", 1) == "stages.0"
    assert bylayer.row_name("stages.0.blocks.1.mixer.q", 9) == "stages.0.blocks.1.mixer.q"
    groups = bylayer.group_names(["", "a", "a.0.b", "a.0.b.c", "d"], 2)
    assert groups == {
        "(itself)": [""],
        "a (itself)": ["a"],
        "a.0.b": ["a.0.b", "a.0.b.c"],
        "d": ["d"],
    }


def test_table_folds_what_does_not_matter(profile: cost.Profile) -> None:
    few = [layer for layer in profile.layers if layer.share >= bylayer.LEAST]
    folded = bylayer.join_equal_layers(profile.layers)
    assert sum(layer.macs for layer in folded) == profile.macs
    assert len(folded) <= len(few) + 1
    out = io.StringIO()
    Console(file=out, width=160).print(bylayer.table(profile))
    assert "stages.0.blocks.0.mlp" in out.getvalue()
    assert "32 px, batch 2, float32, cpu" in out.getvalue()


def test_any_module_serves() -> None:
    found = cost.by_layer("narrow", SHORT, build=builders.build)
    assert {layer.kind for layer in found.layers} >= {"Conv2d", "GELU", "Linear"}
    assert isinstance(builders.build("narrow", classes=2, image=8), nn.Sequential)


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(UserError, match="no layers left to time"):
        cost.by_layer("narrow", cost.Settings(graph="compiled"), build=builders.build)
    with pytest.raises(UserError, match="depth must be 1 or more, not 0"):
        cost.by_layer("narrow", SHORT, depth=0, build=builders.build)
