"""Weighing records: pairs on common seeds, one correction for the whole study, honest words."""

from dataclasses import replace

import pytest
from tests.study.made import cost, record, results

from vitrail.study.analyse import analyse
from vitrail.study.report import render
from vitrail.study.verdict import amount, details, duration, headline, join_names, percent


def test_every_pair_at_every_share_is_compared_and_corrected_together() -> None:
    found = results({"a": 0.6, "b": 0.9, "c": 0.75}).analysis
    assert len(found.comparisons) == 6
    assert all(c.adjusted >= c.difference.p for c in found.comparisons)
    assert [cell.arm for cell in found.ranking(1.0)] == ["b", "c", "a"]
    pair, back = found.versus(1.0, "b", "a"), found.versus(1.0, "a", "b")
    assert pair is not None and back is not None
    assert (pair.verdict, back.verdict) == ("better", "worse")
    assert pair.difference.low == pytest.approx(-back.difference.high)


def test_an_arm_compared_with_its_equal_is_not_distinguishable() -> None:
    same = [record("a", 1.0, seed, 0.8) for seed in (0, 1)]
    twin = [replace(r, arm="b") for r in same]
    found = analyse([*same, *twin], ("a", "b"))
    assert found.comparisons[0].verdict == "not distinguishable"
    assert found.rivals(1.0) == ["b"]


def test_only_common_seeds_are_compared() -> None:
    records = [record("a", 1.0, 0, 0.9), record("a", 1.0, 1, 0.9), record("b", 1.0, 1, 0.9)]
    found = analyse(records, ("a", "b"))
    assert "one seed" in found.comparisons[0].difference.method
    apart = analyse([records[0], records[2]], ("a", "b"))
    assert apart.comparisons == () and apart.versus(1.0, "a", "b") is None


def test_the_front_has_no_arm_that_is_dearer_and_worse() -> None:
    found = results({"a": 0.6, "b": 0.95, "c": 0.4}).analysis
    assert found.front(1.0, {"a": 1.0, "b": 2.0, "c": 1.5}) == ["a", "b"]
    assert found.front(1.0, {"b": 2.0}) == ["b"]


def test_words_follow_the_numbers() -> None:
    clear = results({"a": 0.5, "b": 0.95})
    assert "ahead of every other arm" in headline(clear.analysis)
    assert any("a is 4" in s or "a is 5" in s for s in details(clear.analysis, {}))
    pair = results({"a": 0.8, "c": 0.3})
    twins = tuple(replace(r, arm="b") for r in pair.records if r.arm == "a")
    level = replace(pair, plan={"arms": ["a", "b", "c"]}, records=pair.records + twins)
    text = headline(level.analysis)
    assert "cannot be told from it" in text and "c cannot" not in text
    said = details(level.analysis, {"a": cost(10, 0.1), "b": cost(20, 0.1), "c": cost(1, 0.01)})
    assert not any("c needs the fewest" in s for s in said)
    assert headline(analyse([], ("a",))).startswith("No arm has finished")


def test_numbers_read_well() -> None:
    assert percent(0.8312) == "83.1\u00a0%"
    assert [amount(v) for v in (1.589e9, 33e6, 512, 1e12)] == [
        "1.59\u00a0G", "33.0\u00a0M", "512", "1.00\u00a0T",
    ]  # fmt: skip
    assert duration(119.6) == "2\u00a0min 0\u00a0s"
    assert [duration(v) for v in (0.0021, 42, 754, 100, 9000)] == [
        "2.1\u00a0ms", "42\u00a0s", "13\u00a0min", "1\u00a0min 40\u00a0s", "2.5\u00a0h",
    ]  # fmt: skip
    assert join_names(["a", "b", "c"]) == "a, b and c"


def test_arms_are_compared_by_balanced_accuracy_where_the_recipe_asks() -> None:
    """One arm knows the common class only, the other both a little less: the order turns."""
    labels = (0,) * 180 + (1,) * 20
    common, both = (0,) * 200, (0,) * 150 + (1,) * 50
    records = [
        replace(record(arm, 1.0, 0, 0.5), labels=labels, predictions=predictions)
        for arm, predictions in (("common", common), ("both", both))
    ]
    plain = results({"common": 0.5, "both": 0.5}, shares=(1.0,), records=tuple(records))
    facts = {**plain.facts, "recipe": {"best": "balanced_accuracy"}}
    asked = replace(plain, facts=facts).analysis
    assert [c.arm for c in plain.analysis.ranking(1.0)] == ["common", "both"]
    assert [c.arm for c in asked.ranking(1.0)] == ["both", "common"]
    assert asked.ranking(1.0)[0].score.value == pytest.approx((150 / 180 + 1) / 2)
    assert asked.ranking(1.0)[0].accuracy == plain.analysis.ranking(1.0)[1].accuracy
    assert "balanced accuracy with" in headline(asked)
    assert asked.versus(1.0, "both", "common").verdict == "better"  # type: ignore[union-attr]
    page = render(replace(plain, facts=facts))
    assert "balanced accuracy, %" in page and "sign test by class" in page
