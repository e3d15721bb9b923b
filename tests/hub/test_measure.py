"""``vitrail.measure``: names as everywhere, a report that prints itself."""

from functools import partial
from pathlib import Path

import pytest
from tests.hub.test_runs import TINY, save

import vitrail
from vitrail.cost import Settings
from vitrail.errors import UserError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    short = partial(Settings, rounds=1, window_s=0.01, warmup_s=0.0)
    monkeypatch.setattr("vitrail.hub.measure.Settings", short)


def test_names_and_runs_are_measured_once_each(tmp_path: Path) -> None:
    save(tmp_path / "run", "best.safetensors", 1)
    report = vitrail.measure([tmp_path / "run", TINY], 32, 2, in_chans=3, memory=False)
    (row,) = report.rows
    assert row.model == TINY and row.batch == 2 and report.settings.image == 32
    assert TINY in str(report) and "GMAC" in str(report)
    (alone,) = vitrail.measure(TINY, 32, 1, memory=False, progress=False).rows
    assert alone.count == row.count


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        ([], {}, "at least one model"),
        ("vit_tinny", {}, "no model 'vit_tinny'"),
        (Path("gone"), {}, "no run 'gone'"),
        (TINY, {"batch": 0}, "batch"),
        (TINY, {"precision": "half"}, "no precision 'half'"),
    ],
)
def test_what_cannot_be_measured(models: object, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        vitrail.measure(models, **{"image": 32, **options})  # type: ignore[arg-type]
