"""``vitrail cost --by-layer | --roofline | --against``."""

import json
import sys

import pytest

TINY = "vit_tiny(patch=8,dim=24,heads=3,depth=1)"
QUICK = ("--image", "32", "--batch", "2", "--rounds", "1", "--window", "0.01", "--classes", "3")


def test_layers_in_a_table_and_as_json(give) -> None:
    said = give("cost", TINY, "--by-layer", *QUICK)
    assert said.status == 0
    assert "blocks.0.mlp" in said.out
    assert "MB moved" in said.out
    data = json.loads(give("cost", TINY, "--by-layer", "--depth", "1", *QUICK, "--json").out)
    (profile,) = data["profiles"]
    assert {"name", "kind", "seconds", "share", "macs", "traffic"} == set(profile["layers"][0])
    assert any(layer["name"] == "blocks.0" for layer in profile["layers"])


@pytest.fixture
def small_roof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitrail.cost.roofline.SHAPES", ((32, 32, 32),))
    monkeypatch.setattr("vitrail.cost.roofline.ARRAYS", (2**12, 2**16))


def test_roofline_draws_and_says_how_near(give, tmp_path, small_roof) -> None:
    picture = tmp_path / "roof.svg"
    said = give("cost", TINY, "--roofline", str(picture), *QUICK, "--json")
    data = json.loads(said.out)
    assert picture.read_text().startswith("<?xml")
    assert data["ceilings"]["arithmetic_macs_per_s"] > 0
    assert data["near"][0]["of_roof"] > 0
    assert "exists" in give("cost", TINY, "--roofline", str(picture), *QUICK).line


def test_against_timm_prints_logits_first(give) -> None:
    said = give("cost", "mobilevit_xxs", "--against", "timm", *QUICK, "--image", "64")
    assert said.status == 0
    assert "same weights, logits agree to" in said.err
    assert "timm:mobilevit_xxs" in said.out


def test_training_step_against_an_arm(give) -> None:
    words = ("cost", "--train-step", TINY, "--against", TINY, *QUICK, "--no-memory", "--json")
    (row,) = json.loads(give(*words).out)["rows"]
    assert set(row["ours"]["parts_ms"]) == {"forward", "backward", "optimiser"}
    assert row["agreement"] is None


@pytest.mark.parametrize(
    "more", [(), ("--only", "coat", "--ways", "eager", "--plan", "--out", "x")]
)
def test_suite_says_where_it_is_now(give, more) -> None:
    said = give("cost", "--suite", "peers", *more)
    assert said.status == 2
    assert "python -m benchmarks.peers" in said.line


def test_the_authors_layout_is_found_in_a_checkout(give, monkeypatch) -> None:
    words = ("cost", "cmt_ti", "--against", "official", *QUICK, "--image", "64")
    assert "official:cmt_ti" in give(*words).out
    monkeypatch.setitem(sys.modules, "benchmarks.peer_models", None)
    said = give(*words)
    assert said.status == 2
    assert "official layouts are not installed" in said.line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--by-layer", "--against", "timm"), "--by-layer and --against do not go together"),
        (("--train-step",), "--train-step belongs to --against"),
    ],
)
def test_what_does_not_go_together(give, words, says) -> None:
    assert says in give("cost", TINY, *words).line
