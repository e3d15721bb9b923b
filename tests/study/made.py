"""Made-up studies for the tests: records with chosen accuracies, no training."""

import base64
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitrail.data import Preprocess, open_dataset
from vitrail.errors import UserError
from vitrail.study.plan import Job, StudyPlan
from vitrail.study.record import ArmCost, JobRecord, Mistake
from vitrail.study.report import StudyResults
from vitrail.study.run import Tools, default_tools
from vitrail.study.setup import StudySetup


def jpeg(luck: np.random.Generator) -> str:
    picture = Image.fromarray(luck.integers(0, 255, (48, 48, 3), dtype=np.uint8))
    held = io.BytesIO()
    picture.save(held, "JPEG")
    return base64.b64encode(held.getvalue()).decode()


def record(
    arm: str, share: float, seed: int, accuracy: float, *, classes: int = 4, pictures: int = 200
) -> JobRecord:
    """A record whose answers are right with the given probability."""
    luck = np.random.default_rng([seed, sum(map(ord, arm)), int(1000 * share)])
    labels = np.arange(pictures) % classes
    wrong = (labels + luck.integers(1, max(2, classes), pictures)) % classes
    predictions = np.where(luck.random(pictures) < accuracy, labels, wrong)
    right = float((labels == predictions).mean())
    return JobRecord(
        digest=f"{arm}-{share}-{seed}", arm=arm, share=share, seed=seed,
        train_count=int(1600 * share), labels=tuple(labels.tolist()),
        predictions=tuple(predictions.tolist()), confidences=(0.8,) * pictures, loss=0.5,
        accuracy=right, balanced_accuracy=right, ece=0.05, seconds=40 * share, epochs=10,
        images_seen=int(16000 * share),
        curve=tuple({"epoch": e, "accuracy": right * (1 - 0.7**e), "train_loss": 2 * 0.8**e}
                    for e in range(1, 11)),
        mistakes=tuple(Mistake(key=f"p{i}", true="a<b>", predicted="c", probability=0.9 - i / 100,
                               jpeg=jpeg(luck), map=jpeg(luck) if i else "",
                               method="gradcam" if i else "") for i in range(3)),
    )  # fmt: skip


def cost(macs: int, latency: float) -> ArmCost:
    return ArmCost(
        params=5_700_000, macs=macs, latency=latency, latency_spread=latency / 10,
        throughput=2 / latency, throughput_spread=0.1 / latency, batch=32, memory=200_000_000,
    )  # fmt: skip


def results(
    levels: dict[str, float],
    *,
    shares: tuple[float, ...] = (0.1, 1.0),
    seeds: tuple[int, ...] = (0,),
    classes: tuple[str, ...] = ("coat", "shirt", "bag", "shoe"),
    **changes: Any,
) -> StudyResults:
    """A whole study: every arm's accuracy at full data, less at smaller shares."""
    records = tuple(
        record(arm, s, seed, level - 0.1 * (1 - s), classes=len(classes))
        for arm, level in levels.items() for s in shares for seed in seeds
    )  # fmt: skip
    told: dict[str, Any] = {
        "digest": "5eed" * 16,
        "plan": {"data": "fashion", "arms": list(levels), "fractions": list(shares),
                 "seeds": list(seeds), "recipe": {"epochs": 10, "lr": 0.001}},
        "facts": facts(classes, len(levels) * len(shares) * len(seeds)),
        "records": records,
        "costs": {arm: cost(10**7 * 3**i, 0.002 * (i + 1)) for i, arm in enumerate(levels)},
    }  # fmt: skip
    return StudyResults(**(told | changes))


def facts(classes: tuple[str, ...], jobs: int) -> dict[str, Any]:
    return {
        "data": {"name": "fashion", "classes": list(classes), "manifest": "ab" * 8, "tested": 200,
                 "counts": {"train": 1600, "val": 400, "test": 200}, "tested_on": "test",
                 "problems": ["x.jpg: truncated"], "problem_count": 1},
        "preprocess": {"image": 32, "mean": [0.5], "std": [0.5]},
        "machine": {"cpu": "made up", "cores": 2, "versions": {"torch": "2.15"}},
        "command": "vitrail study fashion", "started": "2026-01-02T03:04:05", "jobs": jobs,
        "budget": "10 epochs for every arm", "recipe": {"epochs": 10, "augment": {"flip": 0.5}},
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A stand-in for ``train.Recipe``: what a setup asks of it."""

    epochs: int = 2
    batch: int = 32
    lr: float = 1e-3
    seed: int = 0
    seconds: float | None = None
    teacher: str | None = None
    best: str = "accuracy"
    balances: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def lay(plan: StudyPlan) -> StudySetup:
    """A setup on the sample pictures, with the stand-in recipe."""
    return StudySetup(
        plan=plan,
        pictures=open_dataset("fashion"),
        recipe=Recipe(**plan.recipe),  # type: ignore[arg-type]
        preprocess=Preprocess(image=plan.image),
    )


@dataclass
class Lab:
    """Stand-in tools that remember what was asked of them; no model is built."""

    broken: tuple[str, ...] = ()
    stop_at: int | None = None
    refused: tuple[str, ...] = ()
    trained: list[Job] = field(default_factory=list)
    measured: int = 0

    @property
    def tools(self) -> Tools:
        return Tools(prepare=lay, check=self.check, measure=self.measure, train=self.train)

    def check(self, arm: str, setup: StudySetup) -> None:
        if arm in self.refused:
            raise UserError(f"no model {arm!r}")

    def measure(self, setup: StudySetup, tell: Callable[[str], None]) -> dict[str, ArmCost]:
        self.measured += 1
        return {arm: cost(10**7 * 3**i, 0.002) for i, arm in enumerate(setup.plan.arms)}

    def train(self, job: Job, setup: StudySetup, at: Path, tell: Callable[..., None]) -> JobRecord:
        if len(self.trained) == self.stop_at:
            raise KeyboardInterrupt
        self.trained.append(job)
        tell(done=0.5, what="epoch 1 of 2")
        if job.arm in self.broken:
            raise RuntimeError(f"loss of {job.arm} is not finite")
        made = record(job.arm, job.share, job.seed, 0.8, classes=len(setup.pictures.classes))
        return replace(made, digest=setup.digest_of(job))


def unmeasured() -> Tools:
    """The real tools, but for costs, which are made up."""
    return replace(
        default_tools(), measure=lambda setup, tell: {a: cost(1, 1.0) for a in setup.plan.arms}
    )
