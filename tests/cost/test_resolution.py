import json
from pathlib import Path

import pytest
import torch
from tests.cost import builders

import vitrail
from vitrail import cost
from vitrail.cost.resolution import GrowthRow, fit, power_law
from vitrail.cost.timing import Timing, TimingWindow, WarmUp
from vitrail.errors import UserError


def row(model: str, image: int, seconds: float, macs: int, memory: int | None = None) -> GrowthRow:
    window = TimingWindow(round=0, calls=1, seconds=seconds, own=1.0, foreign=0.0)
    warmup = WarmUp(calls=1, seconds=2.0, settled=True)
    timing = Timing(name=model, threads=1, windows=(window,), warmup=warmup)
    return GrowthRow(model=model, image=image, macs=macs, timing=timing, memory=memory)


def test_power_law_is_exact_on_a_power() -> None:
    exponent, r2, last = power_law([(x, 3 * x**1.5) for x in (1, 2, 5, 9)])
    assert (exponent, r2, last) == (pytest.approx(1.5), pytest.approx(1.0), pytest.approx(1.5))


def test_overhead_flattens_the_fit_but_not_the_end() -> None:
    exponent, r2, last = power_law([(n, 1e4 + n) for n in (1e3, 1e4, 1e6, 1e8)])
    assert exponent < 0.95 < last
    assert r2 < 1


def test_fits_go_by_model_and_by_measured_quantity() -> None:
    rows = [row("line", s, 1e-6 * s**2, s**2, s**2) for s in (448, 112, 224)]
    rows += [row("square", s, 1e-9 * s**4, s**4) for s in (112, 224, 448)]
    fits = {(f.model, f.quantity): f.exponent for f in fit(rows)}
    assert set(fits) == {("line", q) for q in ("macs", "seconds", "memory")} | {
        ("square", "macs"),
        ("square", "seconds"),
    }
    assert fits["line", "seconds"] == pytest.approx(1)
    assert fits["square", "macs"] == pytest.approx(2)


SHORT = cost.Settings(batch=1, classes=3, rounds=1, window_s=0.01, warmup_s=0.01, threads=1)


def test_measured_growth_and_its_picture(tmp_path: Path) -> None:
    told: list[str] = []
    grown = cost.growth(
        ["narrow", "wide"],
        [32, 16],
        settings=SHORT,
        build=builders.build,
        with_memory=False,
        on_step=told.append,
    )
    assert [(r.model, r.image) for r in grown.rows] == [
        (model, image) for model in ("narrow", "wide") for image in (16, 32)
    ]
    assert grown.rows[1].macs == 32 * 32 * 27 * 8 + 8 * 3
    macs = [f.exponent for f in grown.exponents if f.quantity == "macs"]
    assert macs == [pytest.approx(1, abs=0.01)] * 2
    assert "wide at 32 px" in told
    assert json.loads(json.dumps(grown.to_dict()))["rows"][3]["image"] == 32

    picture = cost.draw(grown, tmp_path / "growth.svg")
    assert "narrow" in picture.read_text() or picture.stat().st_size > 5000
    with pytest.raises(UserError, match="exists"):
        cost.draw(grown, picture)
    cost.draw(grown, picture, overwrite=True)


def test_one_size_is_no_growth() -> None:
    with pytest.raises(UserError, match="two different sizes"):
        cost.growth(["narrow"], [32, 32], build=builders.build)


def test_what_takes_too_much_is_left_out_at_that_size() -> None:
    wide = 48 * 48 * 27 * 64
    grown = cost.growth(
        ["narrow", "wide"],
        [16, 32, 48],
        settings=SHORT,
        build=builders.build,
        with_memory=False,
        most_macs=wide / 2,
    )
    assert [row.image for row in grown.of("narrow")] == [16, 32, 48]
    assert [row.image for row in grown.of("wide")] == [16, 32]
    assert {fit.model for fit in grown.exponents} == {"narrow", "wide"}


def test_work_that_follows_the_content_is_counted_with_numbers_also_under_a_bound() -> None:
    model = "clustering_coat_lite_tiny_qf"
    found = cost.growth([model], [32, 64], settings=SHORT, with_memory=False, most_macs=1e12)
    for one in found.rows:
        with torch.device("meta"):
            most = cost.count(vitrail.create(model, image=one.image), one.image).macs
        assert 0 < one.macs < most
