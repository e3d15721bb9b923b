"""The peers suite on pictures too small to measure anything."""

import json
from pathlib import Path

import pytest

from vitrail.bench import contract, suite, ways
from vitrail.bench.peers import ALL, BARS, HYBRIDS, PEERS
from vitrail.bench.twins import OFFICIALS
from vitrail.cost import Settings
from vitrail.errors import UserError
from vitrail.hub.counterparts import COUNTERPARTS

BASE = Settings(classes=5, rounds=1, window_s=0.001, warmup_s=0.001)


def options(out: Path, **changes: object) -> suite.Options:
    given = {"sizes": (64,), "batches": (1,), "threads": (1,), "ways": ("eager",), **changes}
    return suite.Options(base=BASE, out=out, **given)


def test_every_peer_has_a_yardstick_and_a_promise() -> None:
    for peer in PEERS:
        known = {"timm": COUNTERPARTS, "official": OFFICIALS}.get(peer.against, {peer.model})
        assert peer.model in known
        assert any(peer.family in bar.where["family"] for bar in BARS)
    assert {peer.family for peer in PEERS} == {*ALL, "filtervit"}
    assert "vit" not in HYBRIDS


def test_every_combination_is_a_setting(tmp_path: Path) -> None:
    planned = suite.settings(
        options(tmp_path, only=("cmt", "vit_s"), sizes=(64, 96), batches=(1, 8))
    )
    found = [(s.conditions.image, s.peer.model, s.conditions.batch) for s in planned]
    assert found == [
        (image, model, batch)
        for image in (64, 96)
        for model in ("vit_small", "cmt_ti", "cmt_s")
        for batch in (1, 8)
    ]
    assert all(seconds > 0 for seconds in suite.estimate(planned[:1], options(tmp_path)))


def test_a_run_writes_rows_that_keep_the_contract(tmp_path: Path) -> None:
    told: list[str] = []
    outcome = suite.run(options(tmp_path, only=("mobilevit_xxs", "filtervit")), tell=told.append)
    written = json.loads(outcome.record.path.read_text())
    assert contract.faults(written) == []
    assert outcome.refused == ()
    arms = [(r["model"], r["arm"], [o["arm"] for o in r["against"]]) for r in written["rows"]]
    assert arms == [
        ("mobilevit_xxs", "vitrail", ["peer eager"]),
        ("mobilevit_xxs", "peer", []),
        ("filtervit_v2_xs", "vitrail", ["peer eager"]),
        ("filtervit_v2_xs", "peer", []),
    ]
    assert written["rows"][0]["agreement"]["apart"] < 1e-4
    assert written["rows"][2]["peer"] == "filtervit_xs"
    assert told[0].startswith("2 settings, about ")
    assert any("logits agree" in line for line in told)
    headings, lines = suite.summary(outcome.record)
    assert headings[-1] == "eager"
    assert [line[:4] for line in lines] == [
        ("mobilevit_xxs", "64", "1", "1"),
        ("filtervit_v2_xs", "64", "1", "1"),
    ]


def test_logits_that_differ_do_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(setting: suite.Setting, *_: object) -> list[dict[str, object]]:
        raise UserError(f"{setting.peer.model} differs")

    monkeypatch.setattr(suite, "measure", refuse)
    told: list[str] = []
    outcome = suite.run(options(tmp_path, only=("mobilevit",)), tell=told.append)
    assert [line.partition(": NOT TIMED: ")[2] for line in outcome.refused] == [
        "mobilevit_xxs differs",
        "mobilevit_s differs",
    ]


def test_what_fails_is_noted_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: object, settings: Settings) -> ways.Call:
        raise RuntimeError("it does\nnot compile")

    monkeypatch.setitem(ways.WAYS, "compiled", broken)
    failed: dict[str, str] = {}
    assert ways.prepare(ways.Candidate("peer", "compiled"), None, BASE, failed) is None
    assert failed == {"peer compiled": "it does not compile"}


def row(ratio: float, **facts: object) -> dict[str, object]:
    entry = {"arm": "peer eager", "ratio": ratio, "low": ratio, "high": ratio, "quiet": True}
    base = {"arm": "vitrail", "graph": "eager", "family": "coat", "image": 224, "failed": {}}
    return {**base, "against": [entry], **facts}


def test_ratios_are_met_or_missed() -> None:
    assert suite.ratio_cell(row(1.31), "eager") == "1.31 (1.31 to 1.31) met"
    assert suite.ratio_cell(row(1.29), "eager") == "1.29 (1.29 to 1.29) MISSED 1.3"
    assert suite.ratio_cell(row(1.29, image=384), "eager") == "1.29 (1.29 to 1.29)"
    assert suite.ratio_cell(row(1.29), "compiled") == ""
    assert suite.ratio_cell(row(1.29, failed={"peer compiled": "why"}), "compiled") == "failed"
    assert suite.ratio_cell(None, "eager") == ""


def test_choices_are_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no way of running 'eagre'; close: eager"):
        options(tmp_path, ways=("eagre",))
    with pytest.raises(UserError, match="no model of the suite 'resnet'"):
        options(tmp_path, only=("resnet",))


def test_durations_for_people() -> None:
    assert [suite.spoken(s) for s in (5, 300, 9000)] == ["5 s", "5 min", "2.5 h"]
