"""The page: complete whatever is missing, and alone: no script, no address, nothing to fetch."""

import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.study.made import cost, results

from vitrail.errors import UserError
from vitrail.schema import read_json
from vitrail.study.record import ArmCost, JobRecord
from vitrail.study.report import Failure, StudyResults, render, report

LEVELS = {"vit_tiny(patch=4)": 0.7, "coat_lite_tiny": 0.8, "timm:resnet18": 0.95}


class Reader(HTMLParser):
    """Collects ids and everything that could be fetched; knows whether tags close."""

    VOID = {"meta", "img", "br", "link", "path", "use", "polygon", "rect", "circle", "stop"}

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.used: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "data", "action", "poster"):
                self.fetched.append(value or "")
            if name in ("href", "xlink:href"):
                (self.used if (value or "").startswith("#") else self.fetched).append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    return reader


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_page_stands_alone(seeds: tuple[int, ...]) -> None:
    page = render(results(LEVELS, seeds=seeds))
    reader = read(page)
    assert reader.fetched and all(f.startswith("data:image/jpeg;base64,") for f in reader.fetched)
    assert "http" not in page and "@import" not in page and "<script" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))
    assert len(reader.ids) == len(set(reader.ids))
    assert {target[1:] for target in reader.used} <= set(reader.ids)
    assert len(page) < 2_000_000


def test_stand_in_colours_are_all_replaced() -> None:
    page = render(results(LEVELS))
    assert not re.findall(r"#0a0b\w\w|#010203|#040506|#070809", page)
    assert "var(--s0)" in page and "var(--ink)" in page


def test_the_verdict_names_the_winner_and_is_honest_about_one_seed() -> None:
    page = render(results(LEVELS))
    assert re.search(r'class="verdict">timm:resnet18 reaches 9\d\.\d.%', page)
    assert "ahead of every other arm" in page and "One seed was run" in page
    close = render(results({"a": 0.80, "b": 0.80}, seeds=(0, 1)))
    assert "no arm can be told from another" in close and "not distinguishable" in close


def test_hostile_and_foreign_class_names_are_text() -> None:
    hidden = "a\u202eb\x1b[1m\udcff"
    names = ("<script>alert(1)</script>", "\"><img src='http://x'>", hidden, "玻璃 & Söhne")
    page = render(results(LEVELS, classes=names))
    assert "<script" not in page and "<img src='http" not in page
    assert (
        "&lt;script&gt;" in page and "a\\u202eb\\x1b[1m\\xff" in page and "玻璃 &amp; Söhne" in page
    )
    read(page)


def test_hostile_arm_texts_are_text_in_figures_too() -> None:
    page = render(results({"a(x='<b>&')": 0.8, "$\\alpha$_{q}": 0.7}))
    read(page)
    assert "<b>&'" not in page


def test_a_single_arm_a_single_share_and_no_costs() -> None:
    page = render(results({"only": 0.8}, shares=(1.0,), costs={}))
    assert "the only arm" in page and "Cost" not in re.findall(r"<h2>(.*?)</h2>", page)
    read(page)


def test_failures_and_missing_jobs_are_said_at_the_top() -> None:
    failure = Failure(arm="vit <tiny>", share=0.1, seed=1, message="out of memory")
    page = render(results(LEVELS, failures=(failure,), missing=2))
    assert "vit &lt;tiny&gt;" in page and "out of memory" in page
    assert "2 of 6 runs are still to come" in page


def test_an_arm_without_the_largest_share_is_left_out_of_its_ranking_only() -> None:
    whole = results(LEVELS)
    some = tuple(r for r in whole.records if not (r.arm == "timm:resnet18" and r.share == 1))
    page = render(replace(whole, records=some))
    assert re.search(r'class="verdict">coat_lite_tiny reaches', page)
    read(page)


def test_no_record_at_all_gives_a_page() -> None:
    read(render(results(LEVELS, records=())))


def test_only_right_answers_leave_no_mistakes_to_show() -> None:
    whole = results({"a": 1.0, "b": 1.0}, shares=(1.0,))
    page = render(replace(whole, records=tuple(replace(r, mistakes=()) for r in whole.records)))
    assert "most confident mistakes" not in page and "100.0" in page


def test_many_classes_show_the_most_confused() -> None:
    page = render(results({"a": 0.7, "b": 0.6}, classes=tuple(f"class {i}" for i in range(60))))
    assert "Of 60 classes the 20 with the most errors are shown" in page
    assert len(page) < 2_000_000


def test_many_arms_keep_unlike_looks() -> None:
    from vitrail.study.figures import look

    arms = [f"arm {i}" for i in range(32)]
    assert len({tuple(map(str, look(arms, arm).values())) for arm in arms}) == 32


def test_a_folder_without_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no study"):
        report(tmp_path)
    with pytest.raises(UserError, match="holds no study"):
        StudyResults.load(tmp_path)


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    record = results(LEVELS).records[0]
    record.save(tmp_path / "deep" / "evaluation.json")
    assert JobRecord.load(tmp_path / "deep" / "evaluation.json") == record
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["evaluation.json"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("latency", "NaN"), ("latency", "0"), ("latency_spread", "-1"), ("throughput", "0")),
        *(("macs", "-5"), ("batch", "0"), ("memory", "-1")),
    ],
)
def test_costs_that_no_measuring_gives_are_refused(tmp_path: Path, name: str, value: str) -> None:
    whole = asdict(cost(macs=10**9, latency=0.01))
    text = json.dumps({"arm": {**whole, name: "HERE"}}).replace('"HERE"', value)
    (tmp_path / "costs.json").write_text(text)
    with pytest.raises(UserError, match=name):
        read_json(tmp_path / "costs.json", dict[str, ArmCost])
