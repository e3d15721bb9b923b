import json

import pytest

from vitrail.cost import Counterparts, Settings, versus

SHORT = Settings(image=64, batch=2, classes=5, rounds=2, window_s=0.01, warmup_s=0.01, threads=1)
TIMM = Counterparts(
    build="vitrail.hub:build", texts={"timm": {"mobilevit_xxs": "timm:mobilevit_xxs"}}
)


def test_logits_are_told_before_anything_is_timed() -> None:
    told: list[str] = []
    (found,) = versus(
        ["mobilevit_xxs"],
        "timm",
        SHORT,
        known=TIMM,
        tell=told.append,
        on_step=lambda step: told.append("timed"),
    )
    assert told[0].startswith("mobilevit_xxs and timm:mobilevit_xxs: same weights, logits agree")
    assert set(told[1:]) == {"timed"}
    assert found.speed.median > 0
    assert found.speed.rounds >= 1
    data = json.loads(json.dumps(found.to_dict()))
    assert data["agreement"]["apart"] < 1e-4
    assert data["images_per_s"] == pytest.approx(2 / found.ours.median)


def test_another_network_is_timed_without_comparing() -> None:
    told: list[str] = []
    tiny = "vit_tiny(patch=8,dim=24,heads=3,depth=1)"
    (found,) = versus([tiny], "vit_tiny(patch=8,dim=24,heads=3,depth=2)", SHORT, tell=told.append)
    assert found.agreement is None
    assert "different networks" in told[0]
    assert found.to_dict()["agreement"] is None
