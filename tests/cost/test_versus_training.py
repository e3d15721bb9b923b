"""Training steps side by side."""

import json

import pytest

from vitrail.cost import Counterparts, Settings
from vitrail.cost.step import PARTS
from vitrail.cost.versus_training import measure_memory, training
from vitrail.errors import UserError

SHORT = Settings(image=64, batch=2, classes=5, rounds=2, window_s=0.01, warmup_s=0.01, threads=1)
TIMM = Counterparts(
    build="vitrail.hub:build",
    texts={"timm": {name: f"timm:{name}" for name in ("mobilevit_xxs", "coat_lite_tiny")}},
)


def test_steps_begin_with_the_same_loss() -> None:
    told: list[str] = []
    found = training(
        "mobilevit_xxs", "timm", SHORT, known=TIMM, with_memory=False, tell=told.append
    )
    assert found.agreement is not None
    assert "logits agree" in told[0]
    assert found.ours.loss == pytest.approx(found.theirs.loss, rel=1e-3)
    for side in (found.ours, found.theirs):
        assert tuple(side.parts) == PARTS
        assert all(seconds > 0 for seconds in side.parts.values()) and side.time.median > 0
        assert side.memory is None
    assert json.loads(json.dumps(found.to_dict()))["ours"]["parts_ms"]["backward"] > 0


def test_who_cannot_checkpoint_leaves_a_note() -> None:
    from dataclasses import replace

    found = training(
        "coat_lite_tiny",
        "timm",
        replace(SHORT, image=32, checkpointing=True, rounds=1),
        known=TIMM,
        with_memory=False,
        tell=lambda line: None,
    )
    assert found.ours.notes == ()
    assert found.theirs.notes == ("CoaT has no gradient checkpointing",)


def test_memory_of_each_further_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def peak(arm: str, image: int, batch: int, train: bool, **_: object) -> int:
        assert train
        if arm == "large":
            raise UserError("memory ran out")
        return 100 + 7 * batch

    monkeypatch.setattr("vitrail.cost.versus_training.memory", peak)
    found, notes = measure_memory("small", SHORT, "vitrail.hub:build")
    assert found is not None
    assert (found.peak, found.picture, notes) == (114, 7, ())
    assert measure_memory("large", SHORT, "vitrail.hub:build") == (None, ("memory ran out",))
