"""The peers suite on pictures too small to measure anything."""

import json
import sys
from pathlib import Path

import pytest
from benchmarks.peer_models import ALL, BARS, COUNTERPARTS, HYBRIDS, PEERS

import vitrail
from benchmarks import command, contract, modes, peers
from vitrail.cost import Settings
from vitrail.errors import UserError

BASE = Settings(classes=5, rounds=1, window_s=0.001, warmup_s=0.001)


def options(out: Path, **changes: object) -> peers.Options:
    given = {"sizes": (64,), "batches": (1,), "threads": (1,), "modes": ("eager",), **changes}
    return peers.Options(base=BASE, out=out, **given)


def test_every_peer_has_a_yardstick_and_a_promise() -> None:
    for peer in PEERS:
        assert peer.other
        if peer.against in COUNTERPARTS.texts:
            assert COUNTERPARTS.same_network(peer.model, peer.other)
        assert any(peer.family in bar.where["family"] for bar in BARS)
    assert {peer.family for peer in PEERS} == {*ALL, "filtervit"}
    assert "vit" not in HYBRIDS


def test_every_combination_is_a_setting(tmp_path: Path) -> None:
    planned = peers.settings(
        options(tmp_path, only=("cmt", "vit_s"), sizes=(64, 96), batches=(1, 8))
    )
    found = [(s.conditions.image, s.peer.model, s.conditions.batch) for s in planned]
    assert found == [
        (image, model, batch)
        for image in (64, 96)
        for model in ("vit_small", "cmt_ti", "cmt_s")
        for batch in (1, 8)
    ]
    assert all(seconds > 0 for seconds in peers.estimate(planned[:1], options(tmp_path)))


def test_a_run_writes_rows_that_keep_the_contract(tmp_path: Path) -> None:
    told: list[str] = []
    outcome = peers.run(options(tmp_path, only=("mobilevit_xxs", "filtervit")), tell=told.append)
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
    headings, lines = peers.summary(outcome.record)
    assert headings[-1] == "eager"
    assert [line[:4] for line in lines] == [
        ("mobilevit_xxs", "64", "1", "1"),
        ("filtervit_v2_xs", "64", "1", "1"),
    ]


def test_logits_that_differ_do_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(setting: peers.Setting, *_: object) -> list[dict[str, object]]:
        raise UserError(f"{setting.peer.model} differs")

    monkeypatch.setattr(peers, "measure", refuse)
    told: list[str] = []
    outcome = peers.run(options(tmp_path, only=("mobilevit",)), tell=told.append)
    assert [line.partition(": NOT TIMED: ")[2] for line in outcome.refused] == [
        "mobilevit_xxs differs",
        "mobilevit_s differs",
    ]


def test_what_fails_is_noted_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: object, settings: Settings) -> modes.Prepared:
        raise RuntimeError("it does\nnot compile")

    monkeypatch.setitem(modes.MODES, "compiled", broken)
    failed: dict[str, str] = {}
    assert modes.prepare(modes.Candidate("peer", "compiled"), None, BASE, failed) is None
    assert failed == {"peer compiled": "it does not compile"}


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_optimised_models_say_how_far_their_outputs_moved(precision: str) -> None:
    settings = Settings(image=32, batch=2, classes=5, threads=1)
    model = vitrail.create("vit_tiny(patch=8,dim=24,heads=3,depth=1)", classes=5, image=32)
    found = modes.optimise_model(model.eval(), settings, precision, compile=False)
    assert found.call().shape == (2, 5)
    assert not found.facts["compiled"]
    moved = found.facts["relative_difference"]
    assert 0 <= moved < 1e-4 if precision == "float32" else 1e-4 < moved < 0.06


def test_modes_are_those_that_bars_speak_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "has_bfloat16", lambda device: False)
    assert modes.usual_modes("cpu") == ("eager", "optimised")
    monkeypatch.setattr(modes, "has_bfloat16", lambda device: True)
    assert set(modes.usual_modes("cpu")) == {bar.graph for bar in BARS}
    told = {
        str(candidate) for mode in modes.usual_modes("cpu") for candidate in modes.CANDIDATES[mode]
    }
    for bar in BARS:
        assert {bar.against, f"{bar.arm} {bar.graph}"} <= told


def row(ratio: float, **facts: object) -> dict[str, object]:
    entry = {"arm": "peer eager", "ratio": ratio, "low": ratio, "high": ratio, "quiet": True}
    base = {"arm": "vitrail", "graph": "eager", "family": "coat", "image": 224, "failed": {}}
    return {**base, "against": [entry], **facts}


def test_ratios_are_met_or_missed() -> None:
    assert peers.ratio_cell(row(1.31), "eager") == "1.31 (1.31 to 1.31) met"
    assert peers.ratio_cell(row(1.29), "eager") == "1.29 (1.29 to 1.29) MISSED 1.3"
    assert peers.ratio_cell(row(1.29, image=384), "eager") == "1.29 (1.29 to 1.29)"
    assert peers.ratio_cell(row(1.29), "compiled") == ""
    assert peers.ratio_cell(row(1.29, failed={"peer compiled": "why"}), "compiled") == "failed"
    assert peers.ratio_cell(None, "eager") == ""


def test_choices_are_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no mode 'eagre'; close: eager"):
        options(tmp_path, modes=("eagre",))
    with pytest.raises(UserError, match="no model of the suite 'resnet'"):
        options(tmp_path, only=("resnet",))


@pytest.mark.parametrize("modes_word", ["--modes", "--ways"])
def test_a_plan_from_the_command_line(modes_word, monkeypatch, capsys) -> None:
    words = ("peers", "--plan", "--only", "mobilevit_xxs", "--image", "64", modes_word, "eager")
    monkeypatch.setattr(sys, "argv", [*words, "--batch", "1"])
    with pytest.raises(SystemExit) as ended:
        command.run(peers.main, peers.Words, peers.__doc__)
    assert ended.value.code == 0
    assert "1 settings, about" in capsys.readouterr().out


def test_bad_words_end_with_one_line(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["peers", "--only", "resnet", "--plan"])
    with pytest.raises(SystemExit) as ended:
        command.run(peers.main, peers.Words, peers.__doc__)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: no model of the suite 'resnet'")


def test_durations_for_people() -> None:
    assert [peers.format_duration(s) for s in (5, 300, 9000)] == ["5 s", "5 min", "2.5 h"]
