"""How far can each explanation be trusted, on which family? Methods x trained models, scored.

``python -m benchmarks.explain_table --help``

scenes with known objects -> each model trained on the same pictures -> for each method and model
one cell (all scores, cascading randomisation) beside four baselines -> table.json, table.md

A model hardly better than chance gets a second, longer try when everything else is done. Every
finished training and cell is kept in ``--out``; the same command goes on where it stopped. The
pictures of a cell are those its own model answers rightly. Scores do not depend on how busy the
machine is (unless --train-seconds is given); the column ms does.
"""

import json
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks import command
from vitrail.attribution.base import methods
from vitrail.attribution.samples import MaskOf, Samples, gather, open_truth
from vitrail.attribution.scores.format import CENTRE, LEGEND, markdown
from vitrail.attribution.scores.sources import MapSource, baselines
from vitrail.attribution.scores.table import (
    MethodScores,
    ScoreSettings,
    best,
    chance,
    failure_scores,
    score,
    versus,
)
from vitrail.cost import machine
from vitrail.data import ImageDataset, Item, Preprocess
from vitrail.errors import UserError
from vitrail.files import write_text
from vitrail.hub import open_run
from vitrail.study.setup import CachedStore
from vitrail.train import Recipe, TrainingJob, fit_job

#: The families of issue 6, narrow enough that minutes of one core teach them something.
MODELS: Mapping[str, str] = {
    "ViT": "vit_tiny(patch=8, dim=96, depth=4)",
    "CoaT-Lite": "coat_lite_tiny(dims=(32, 64, 128, 160), heads=4)",
    "Clustering CoaT": "clustering_coat_lite_tiny(dims=(32, 64, 128, 160), heads=4)",
    "CoAtNet": "coatnet_0(stem=(16, 24), dims=(32, 64, 96, 128), depths=(1, 1, 2, 1))",
    "CMT": "cmt_ti(depths=(1, 1, 4, 1), last=320)",
    "MobileViT": "mobilevit_xxs",
    "FilterViT": "filtervit_xxs",
    "FilterViT v2": "filtervit_v2_xxs",
}
#: Times the epochs, and learning rate. FilterViT learns shapes at the first try; models
#: with layer norm stay at chance for long, and get another.
TRIES = ((1, 1e-3), (6, 4e-4))
LEARNED = 1.5
"""Times chance: a model below that has learned too little for its maps to mean anything."""
#: Cheap and telling first, so that a short budget gives whole columns; others follow by name.
FIRST = (
    "filter_mask", "gradcam", "lrp", "rollout", "grad_rollout", "layercam", "hirescam", "attention",
    "cluster_map", "input_x_gradient",
)  # fmt: skip
#: Methods that run a model hundreds of times a map.
SLOW = ("integrated_gradients", "smoothgrad", "occlusion", "rise")
#: Shortened for small pictures; how a method is asked stands with each row in the JSON.
GIVEN: Mapping[str, Mapping[str, Any]] = {
    "integrated_gradients": {"steps": 32, "most": 32},
    "smoothgrad": {"samples": 16},
    "dropout_frequency": {"draws": 16},
}
QUESTIONS = ("difference", "pointing", "energy", "auc")
"""Whether a method beats the centre Gaussian is answered for each of these."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to train and score.

    Attributes:
        data: pictures with known objects: scenes(...), or a folder with images/ and masks/.
        models: families of the table, or texts of models.
        runs: trained runs to score in place of training; their pictures are DATA's.
        methods: which to score (default: all there are).
        image: edge in pixels.
        crop: share of the picture that the model sees, of its edge.
        epochs: of each training; a second try takes six times as many.
        train_seconds: of each training instead of epochs, if not 0.
        pictures: scored for each model.
        steps: of insertion and deletion.
        blur: window of the blur that insertion begins with, in pixels; its sigma is half of it.
        few: pictures for sensitivity, contrast and randomisation.
        draws: of sensitivity.
        cascade: steps of randomisation.
        masks: of RISE.
        minutes: begin no new training or cell after that; 0 is no limit.
        threads: torch threads.
        seed: of everything.
        out: folder that keeps runs and cells.
        markdown: also write the table there, between its marks if the page exists.
    """

    data: str = "scenes(count=2000, difficulty=0)"
    models: tuple[str, ...] = tuple(MODELS)
    runs: tuple[Path, ...] = ()
    methods: tuple[str, ...] = ()
    image: int = 64
    crop: float = 1.0
    epochs: int = 10
    train_seconds: float = 0.0
    pictures: int = 24
    steps: int = 16
    blur: int = 21
    few: int = 4
    draws: int = 3
    cascade: int = 4
    masks: int = 200
    minutes: float = 25.0
    threads: int = 1
    seed: int = 0
    out: Path = Path("explain-table")
    markdown: Path | None = None

    @property
    def settings(self) -> ScoreSettings:
        """How scores are taken."""
        return ScoreSettings(
            steps=self.steps, window=self.blur, sigma=self.blur / 2, few=self.few,
            draws=self.draws, cascade=self.cascade, seed=self.seed,
        )  # fmt: skip


MARKS = ("<!-- table: written by benchmarks.explain_table -->", "<!-- /table -->")
"""A page that the table is written into holds both."""


class Clock:
    """Whether there is time for another piece of work."""

    def __init__(self, minutes: float) -> None:
        self.ends = time.monotonic() + 60 * minutes if minutes else float("inf")

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.ends


@dataclass(frozen=True)
class Ground:
    """The pictures, the part that is scored on, and what knows their masks."""

    options: Options
    pictures: ImageDataset
    mask_of: MaskOf

    @property
    def test_items(self) -> tuple[Item, ...]:
        """Pictures that no model was trained on."""
        return self.pictures.split("test") or self.pictures.split("val")


@dataclass(frozen=True)
class Arm:
    """One trained model; it and its pictures are opened when they are first needed."""

    family: str
    folder: Path
    ground: Ground
    attempt: int = 0

    @cached_property
    def run(self) -> Any:
        """The run, opened."""
        return open_run(self.folder, device="cpu")

    @cached_property
    def samples(self) -> Samples:
        """The pictures it is scored on."""
        ground, options = self.ground, self.ground.options
        return gather(
            self.run.model, ground.pictures, ground.test_items, ground.mask_of, self.run.preprocess,
            count=options.pictures, seed=options.seed,
        )  # fmt: skip

    @cached_property
    def accuracy(self) -> float | None:
        """On the pictures of the tested part, as the training noted it."""
        result = json.loads((self.folder / "result.json").read_text(encoding="utf-8"))
        parts = result["scores"]
        return (parts.get("test") or parts.get("val") or {}).get("accuracy")

    @property
    def warning(self) -> str:
        """Said of a model that has hardly learned."""
        enough = LEARNED / len(self.ground.pictures.classes)
        low = self.accuracy is not None and self.accuracy < enough
        return " (has learned too little: its scores say nothing)" if low else ""


def main(options: Options) -> Path:
    """Train what is missing, score what is missing, write the table and give its path."""
    torch.set_num_threads(options.threads)
    clock, started = Clock(options.minutes), time.monotonic()
    pictures, mask_of = open_truth(options.data)
    pictures = replace(pictures, store=CachedStore(pictures.store))
    ground = Ground(options, pictures, mask_of)
    arms, waiting = [*open_arms(ground)], 0
    for attempt in range(len(TRIES)):
        arms = train_arms(ground, arms, attempt, clock)
        ready = [arm for arm in arms if not arm.warning or arm.attempt == len(TRIES) - 1]
        waiting = sum(not cell(a, m, clock) for m in makers(options) for a in ready)
    missing = sum(bool(arm.warning and arm.attempt < len(TRIES) - 1) for arm in arms)
    missing += len(options.models) - len(arms) if not options.runs else 0
    path = write(ground, arms, waiting, time.monotonic() - started)
    if waiting or missing:
        print(f"the time is up: {missing} trainings and {waiting} cells or more are still to come; "
              "the same command goes on")  # fmt: skip
    print(f"written: {path}")
    return path


# ---- training -----------------------------------------------------------------------------------


def open_arms(ground: Ground) -> Iterator[Arm]:
    """The runs that were given in place of training.

    Raises:
        UserError: a run with other classes than the pictures.
    """
    for folder in ground.options.runs:
        arm = Arm(folder.name, folder, ground, len(TRIES) - 1)
        if tuple(arm.run.classes) != ground.pictures.classes:
            raise UserError(f"the run {folder} has other classes than {ground.options.data}")
        yield arm


def train_arms(ground: Ground, before: Sequence[Arm], attempt: int, clock: Clock) -> list[Arm]:
    """Every model that is trained, or can be within the time; those that learned stay."""
    if ground.options.runs:
        return list(before)
    arms = {arm.family: arm for arm in before}
    for name in ground.options.models:
        if name in arms and not arms[name].warning:
            continue
        at = ground.options.out / "runs" / f"{slug(name)}-{attempt + 1}"
        if not (at / "result.json").is_file():
            if clock.over:
                continue
            train(MODELS.get(name, name), ground, at, attempt)
        arms[name] = Arm(name, at, ground, attempt)
        print(f"{name}: accuracy {arms[name].accuracy:.1%}{arms[name].warning}", flush=True)
    return list(arms.values())


def train(text: str, ground: Ground, at: Path, attempt: int) -> None:
    """Train one model into a run folder."""
    options, pictures = ground.options, ground.pictures
    parts = {name: pictures.split(name) for name in ("train", "val", "test")}
    parts = {name: items for name, items in parts.items() if items}
    preprocess = Preprocess(image=options.image, crop=options.crop)
    job = TrainingJob.create(text, pictures, parts, recipe(options, attempt), preprocess)
    fit_job(job, at, resume=True)


def recipe(options: Options, attempt: int) -> Recipe:
    """Short: no mixing, hardly any augmentation, averaged weights that follow quickly."""
    times, rate = TRIES[attempt]
    seconds = options.train_seconds * times
    length = {"seconds": seconds} if seconds else {}
    return Recipe.from_dict(
        {
            "epochs": options.epochs * times,
            "lr": rate,
            "batch": 32,
            "mixup": 0.0,
            "cutmix": 0.0,
            "drop_path": 0.0,
            "ema": 0.99,
            "augment": {"scale": [0.8, 1.0], "rand_augment": None, "erase": 0.0},
            "validate_every": 3,
            "workers": 0,
            "seed": options.seed,
            **length,
        }
    )


# ---- cells --------------------------------------------------------------------------------------


def makers(options: Options) -> list[MapSource]:
    """Baselines, then methods: cheap ones first."""
    known = list(methods())
    wanted = options.methods or known
    rank = {name: i for i, name in enumerate(FIRST)}
    last = {name: len(known) + i for i, name in enumerate(SLOW)}
    ordered = sorted(wanted, key=lambda name: (rank | last).get(name, len(rank)))
    asked = {**GIVEN, "rise": {"masks": options.masks, "cells": 7}}
    beside = [maker for maker in baselines() if maker.name not in ordered]
    rest = [MapSource(name, asked.get(name, {}), options.seed, batch=8) for name in ordered]
    return beside + rest


def cell(arm: Arm, maker: MapSource, clock: Clock) -> bool:
    """Score one method on one model, unless that is done; False where the time is up."""
    path = cell_path(arm, maker.name)
    wanted = facts(arm, maker)
    if path.is_file() and json.loads(path.read_text(encoding="utf-8"))["facts"] == wanted:
        return True
    if clock.over:
        return False
    begun, row = time.perf_counter(), score_method(arm, maker)
    spent = time.perf_counter() - begun
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"facts": wanted, "row": row.to_dict(), "took": round(spent, 2)}))
    told = row.problem or f"ins - del {row.mean('difference'):.3f}"
    print(f"{arm.family:>16} {maker.name:<22} {spent:6.1f} s  {told}", flush=True)
    return True


def score_method(arm: Arm, maker: MapSource) -> MethodScores:
    """The row, or why there is none."""
    maker.refused = 0
    try:
        return score(arm.run.model, maker, arm.samples, arm.ground.options.settings)
    except UserError as error:
        return failure_scores(maker, error)


def facts(arm: Arm, maker: MapSource) -> dict[str, Any]:
    """What a cell must agree in to count as done."""
    options = arm.ground.options
    result = (arm.folder / "result.json").read_text(encoding="utf-8")
    return {
        "method": maker.name,
        "options": dict(maker.options),
        "settings": asdict(options.settings),
        "data": options.data,
        "pictures": options.pictures,
        "run": json.loads(result)["seconds"],
    }


def cell_path(arm: Arm, method: str) -> Path:
    """Where a cell is kept."""
    return arm.ground.options.out / "cells" / slug(arm.family) / f"{method}.json"


def rows_of(arm: Arm) -> list[MethodScores]:
    """The finished rows of a model, baselines first."""
    paths = [cell_path(arm, maker.name) for maker in makers(arm.ground.options)]
    found = [json.loads(p.read_text(encoding="utf-8")) for p in paths if p.is_file()]
    return [MethodScores.from_dict(one["row"]) for one in found]


# ---- the table ----------------------------------------------------------------------------------


def write(ground: Ground, arms: Sequence[Arm], waiting: int, seconds: float) -> Path:
    """``table.json`` and ``table.md`` (and the page asked for)."""
    options = ground.options
    rows = {arm.family: rows_of(arm) for arm in arms}
    told = {
        "command": shlex.join(["python", "-m", "benchmarks.explain_table", *sys.argv[1:]]),
        "machine": machine(),
        "seconds": round(seconds, 1),
        "options": asdict(options),
        "waiting": waiting,
        "models": {arm.family: as_data(arm, rows[arm.family]) for arm in arms},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "table.json"
    write_text(path, json.dumps(told, indent=1, default=str) + "\n")
    text = page(ground, arms, rows, told)
    write_text(options.out / "table.md", text)
    if options.markdown is not None:
        write_text(options.markdown, put_into(options.markdown, text))
    return path


def put_into(page: Path, text: str) -> str:
    """The page with the table between its two marks; one that is not there yet is just that.

    Raises:
        UserError: a page without the marks, which would be lost.
    """
    if not page.exists():
        return f"{MARKS[0]}\n{text}{MARKS[1]}\n"
    before, mark, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not (mark and end):
        raise UserError(f"{page} is there and has no {MARKS[0]} ... {MARKS[1]} to write between")
    return f"{before}{mark}\n{text}{end}{after}"


def as_data(arm: Arm, rows: Sequence[MethodScores]) -> dict[str, Any]:
    """A model's part of the JSON."""
    return {
        "model": arm.run.card.model,
        "accuracy": arm.accuracy,
        "pictures": list(arm.samples.keys),
        "chance": chance(arm.samples),
        "rows": [row.to_dict() for row in rows],
    }


def page(
    ground: Ground,
    arms: Sequence[Arm],
    rows: Mapping[str, Sequence[MethodScores]],
    told: Mapping[str, Any],
) -> str:
    """The page: what was done, the answers, a table a model, the cascades."""
    where = told["machine"]
    lines = [
        f"`{told['command']}` on {where['cpu']} ({ground.options.threads} thread), torch "
        f"{where['versions']['torch']}, {where['date']}.",
        "",
        f"Pictures: `{ground.options.data}` at {ground.options.image} px, "
        f"{ground.options.pictures} for each model, all answered rightly; "
        f"sensitivity, contrast and randomisation on {ground.options.few} "
        f"of them; {ground.options.steps} steps of insertion and deletion. "
        "The object is known to the pixel. " + LEGEND,
        "",
        "### Answers",
        "",
        *answers(rows),
        "",
        "### Which method for which family",
        "",
        *choices(rows),
    ]
    for arm in arms:
        even = ", ".join(f"{name} {value:.3f}" for name, value in chance(arm.samples).items())
        lines += ["", f"### {arm.family}", "", f"`{arm.run.card.model}`, accuracy "
                  f"{arm.accuracy or 0:.1%}{arm.warning}. An even map: {even}.", "",
                  markdown(rows[arm.family]), "", *cascades(rows[arm.family])]  # fmt: skip
    return "\n".join(lines) + "\n"


def answers(rows: Mapping[str, Sequence[MethodScores]]) -> list[str]:
    """Does FilterViT's mask beat the centre Gaussian? Said for each model that has masks."""
    found = []
    for family, some in rows.items():
        mask = next((r for r in some if r.method == "filter_mask" and not r.problem), None)
        centre = next((r for r in some if r.method == CENTRE), None)
        if mask is None or centre is None:
            continue
        parts = [f"{name} {against(mask, centre, name)}" for name in QUESTIONS]
        found.append(f"- The mask of **{family}** against the centre Gaussian: {'; '.join(parts)}.")
    return found or ["- No model with filter masks has been scored."]


def against(row: MethodScores, other: MethodScores, name: str) -> str:
    """One comparison in words."""
    ahead = versus(row, other, name)
    if ahead is None:
        return "not measured"
    return f"**{ahead.verdict}** ({ahead.value:+.3f}, {ahead.low:+.3f} to {ahead.high:+.3f})"


def choices(rows: Mapping[str, Sequence[MethodScores]]) -> list[str]:
    """A line a family: the best method by faithfulness and by place, and who beats the centre."""
    table = ["| family | best ins - del | best energy | best AUC | beats the centre in ins - del "
             "| in AUC |", "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for family, some in rows.items():
        real = [row for row in some if row.kind != "baseline" and not row.problem]
        bests = [format_score(best(real, name), name) for name in ("difference", "energy", "auc")]
        ahead = [", ".join(beating(some, real, name)) or "none" for name in ("difference", "auc")]
        table.append(f"| {' | '.join((family, *bests, *ahead))} |")
    return table


def format_score(row: MethodScores | None, score_: str) -> str:
    """A method and its mean."""
    return "" if row is None else f"{row.method} {row.mean(score_):.3f}"


def beating(some: Sequence[MethodScores], real: Sequence[MethodScores], name: str) -> list[str]:
    """The methods ahead of the centre Gaussian by more than chance."""
    centre = next((r for r in some if r.method == CENTRE), None)
    if centre is None:
        return []
    pairs = [(row.method, versus(row, centre, name)) for row in real]
    return [method for method, ahead in pairs if ahead and ahead.verdict == "better"]


def cascades(rows: Sequence[MethodScores]) -> list[str]:
    """Parameter randomisation, step by step: Spearman of absolute maps, and SSIM."""
    good = [row for row in rows if row.cascade]
    if not good:
        return []
    steps = [f"{step['share']:.0%}" for step in good[0].cascade]
    head = ["Cascading randomisation, top down: Spearman (absolute) / SSIM to the trained model's "
            "map, by the share of random parameters.", "",
            f"| method | class | {' | '.join(steps)} |",
            f"| --- | --- |{' ---: |' * len(steps)}"]  # fmt: skip
    return head + [
        f"| {row.method} | {row.kind} | {' | '.join(map(likeness, row.cascade))} |" for row in good
    ]


def likeness(step: Mapping[str, Any]) -> str:
    """One step's figures; a random model may have no map at all."""
    if step["absolute"] is None:
        return "no map"
    return f"{step['absolute']:.2f} / {step['ssim']:.2f}"


def slug(text: str) -> str:
    """A text as a folder's name."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-").lower()


if __name__ == "__main__":
    command.run(main, Options, __doc__)
