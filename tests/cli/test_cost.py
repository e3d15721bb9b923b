"""``vitrail cost | doctor``."""

import json

import pytest

from vitrail.hub import doctor

TINY = "vit_tiny(patch=8,dim=24,heads=3,depth=1)"
QUICK = ("--image", "32", "--rounds", "1", "--window", "0.01", "--classes", "3")


def test_cost_measures_models_side_by_side(give) -> None:
    said = give("cost", TINY, "pooled_coat_lite_tiny", *QUICK, "--no-memory", "--json")
    assert said.status == 0
    (report,) = json.loads(said.out)
    assert [row["model"] for row in report["rows"]] == [TINY, "pooled_coat_lite_tiny"]
    for row in report["rows"]:
        assert row["params"] > 0
        assert row["macs"] > 0
        assert row["images_per_s"] > 0
    assert report["machine"]["cores"] >= 1
    assert report["settings"]["image"] == 32


def test_cost_for_people_names_the_machine(give) -> None:
    said = give("cost", TINY, *QUICK, "--no-memory", "--batch", "2", "--threads", "1")
    assert said.status == 0
    assert "GMAC" in said.out
    assert "1 MAC = 2 FLOPs" in said.out


def test_one_report_for_each_size_and_batch(give) -> None:
    words = ("cost", TINY, *QUICK, "--no-memory", "--json", "--batch", "1", "2")
    reports = json.loads(give(*words).out)
    assert [report["settings"]["batch"] for report in reports] == [1, 2]


def test_memory_of_a_baseline_in_a_fresh_process(give) -> None:
    words = ("cost", "timm:mobilenetv3_small_050", *QUICK, "--batch", "2", "--json")
    (report,) = json.loads(give(*words).out)
    assert report["rows"][0]["notes"] == []
    assert report["rows"][0]["memory_train_bytes"] > 0


def test_doctor_finds_this_machine_in_order(give) -> None:
    said = give("doctor", "--json")
    assert said.status == 0
    data = json.loads(said.out)
    assert data["healthy"]
    assert {"about", "found", "ok", "cure"} == set(data["findings"][0])


def test_doctor_says_what_is_broken(give, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = "torchvision 0.28.0 does not fit torch 2.13.0+cpu: install both from one channel"
    monkeypatch.setattr(doctor, "torchvision_problem", lambda: sentence)
    said = give("doctor")
    assert said.status == 1
    assert "BROKEN" in said.out
    assert f"torchvision: {sentence}" in said.out
    assert "something is broken" in said.out


def test_growth_fits_an_exponent_and_draws(give, tmp_path) -> None:
    picture = tmp_path / "growth.svg"
    words = ("cost", TINY, *QUICK, "--no-memory", "--image", "32", "64", "--growth", str(picture))
    told = json.loads(give(*words, "--json").out)
    assert [row["image"] for row in told["rows"]] == [32, 64]
    assert {fit["quantity"] for fit in told["exponents"]} == {"macs", "seconds"}
    assert picture.read_text().startswith("<?xml")
    refused = give("cost", TINY, "--growth", str(picture))
    assert refused.status == 2 and "two different sizes" in refused.err
