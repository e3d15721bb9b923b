"""Growth on pictures too small to measure anything."""

import json
from pathlib import Path

import pytest

from benchmarks import contract, growth


def test_a_family_is_measured_fitted_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = "vit_tiny(depth=1, dim=24, heads=3)"
    few = ("timm:test_vit", tiny, f"{tiny[:-1]}, reducer='pool')")
    monkeypatch.setitem(growth.FAMILIES, "tiny", few)
    options = growth.Options(
        families=("tiny",),
        sizes=(160, 192),
        rounds=1,
        window_s=0.001,
        warmup_s=0.001,
        memory=False,
        picture=tmp_path,
        out=tmp_path,
    )
    result = json.loads(growth.main(options).read_text())
    assert contract.faults(result) == []
    against = {(r["arm"], r["image"]): [o["arm"] for o in r["against"]] for r in result["rows"]}
    assert against == {
        (arm, size): [] if arm == few[0] else [few[0]] for arm in few for size in (160, 192)
    }
    fits = {(f["model"], f["quantity"]): f["exponent"] for f in result["settings"]["exponents"]}
    assert {q for _, q in fits} == {"macs", "seconds"} and 0.8 < fits[tiny, "macs"] < 1.5
    assert (tmp_path / "growth-tiny.svg").stat().st_size > 1000
    assert "macs ~ pixels^" in capsys.readouterr().out
