"""What a run folder says of how it came about."""

from pathlib import Path

import pytest
from tests.train import small

from vitrail.train.facts import absolute_source, run_facts
from vitrail.train.job import TrainingJob


def test_paths_become_absolute_and_other_words_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    assert absolute_source("photos") == str(tmp_path / "photos")
    assert absolute_source("fashion") == "fashion"


def test_facts_name_model_pictures_and_versions() -> None:
    pictures, parts = small.clothes()
    job = TrainingJob(
        model=small.build(),
        dataset=pictures,
        parts=parts,
        recipe=small.recipe(seed=7),
        card=small.card(),
    )
    facts = run_facts(job, "a" * 64)
    assert facts["model"] == small.TEXT and facts["manifest"] == "a" * 64
    assert facts["pictures"] == {part: len(items) for part, items in parts.items()}
    assert (facts["seed"], facts["teacher"], facts["data"]) == (7, None, "fashion")
    assert {"vitrail", "torch", "timm", "python"} <= set(facts["versions"])
    assert facts["machine"]["cores"] >= 1
