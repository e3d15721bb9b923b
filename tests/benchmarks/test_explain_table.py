"""The table, at a size that teaches nobody anything: it is kept cell by cell and goes on."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import explain_table
from vitrail.attribution import base
from vitrail.attribution.base import Case, Method, MethodResult, method
from vitrail.errors import UserError

TINY = explain_table.Options(
    data="scenes(size=32, count=48, classes=2, difficulty=0)",
    models=("vit_tiny(patch=8, dim=24, heads=3, depth=1)",),
    image=32, epochs=1, pictures=4, steps=3, blur=7, few=2, draws=1, cascade=2,
    minutes=5,
)  # fmt: skip


@pytest.fixture(autouse=True)
def toys(own_methods: dict[str, Method], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    own_methods.clear()
    monkeypatch.setattr(base, "MODULES", ())

    @method("saliency", class_specific=True)
    def saliency(case: Case) -> MethodResult:
        """Anything that depends on the pictures."""
        return MethodResult(native=case.images.abs().amax(1))

    @method("filter_mask", class_specific=False)
    def filter_mask(case: Case) -> MethodResult:
        """The left half."""
        return MethodResult(native=torch.tensor([[[1.0, 0.0]]]).expand(len(case.images), 1, 2))

    yield


def test_the_table_is_written_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = replace(TINY, out=tmp_path / "t", markdown=tmp_path / "page.md")
    told = json.loads(explain_table.main(options).read_text())
    (found,) = told["models"].values()
    assert [row["method"] for row in found["rows"]] == ["random", "centre", "edges", "filter_mask",
                                                        "saliency"]  # fmt: skip
    assert told["waiting"] == 0 and 0 <= found["accuracy"] <= 1
    page = options.markdown.read_text()
    assert "against the centre Gaussian: difference **" in page
    assert "| filter_mask | agnostic | 1.00 / 1.00 | 1.00 / 1.00 |" in page
    assert (tmp_path / "t" / "table.md").read_text() in page
    capsys.readouterr()
    again = json.loads(explain_table.main(options).read_text())
    assert again["models"] == told["models"]
    assert "s  ins - del" not in capsys.readouterr().out


def test_a_page_keeps_what_was_written_by_hand(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    first, last = explain_table.MARKS
    assert explain_table.put_into(page, "t\n") == f"{first}\nt\n{last}\n"
    page.write_text("above\n" + "\nold\n".join(explain_table.MARKS) + "\nbelow")
    wanted = f"above\n{first}\nnew\n{last}\nbelow"
    assert explain_table.put_into(page, "new\n") == wanted
    page.write_text("by hand")
    with pytest.raises(UserError, match="to write between"):
        explain_table.put_into(page, "new")


def test_when_the_time_is_up_nothing_new_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.loads(
        explain_table.main(replace(TINY, out=tmp_path / "t", minutes=1e-9)).read_text()
    )
    assert told["models"] == {}
    assert "1 trainings and 0 cells or more are still to come" in capsys.readouterr().out


def test_a_model_at_chance_gets_a_second_longer_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain_table, "LEARNED", 2.1)  # of two classes, nobody can
    monkeypatch.setattr(explain_table, "TRIES", ((1, 1e-3), (2, 1e-4)))
    told = json.loads(explain_table.main(replace(TINY, out=tmp_path / "t")).read_text())
    assert sorted(p.name[-2:] for p in (tmp_path / "t" / "runs").iterdir()) == ["-1", "-2"]
    (found,) = told["models"].values()
    assert found["rows"] and told["waiting"] == 0
    assert "(has learned too little" in (tmp_path / "t" / "table.md").read_text()
