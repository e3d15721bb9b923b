"""What ``vitrail explain RUN --score DATA`` does: every method and the baselines, scored."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.attribution.samples import MaskOf, Samples, gather, open_truth
from vitrail.attribution.scores.format import LEGEND, cells, header, lines
from vitrail.attribution.scores.sources import MapSource, baselines
from vitrail.attribution.scores.table import (
    MethodScores,
    ScoreSettings,
    chance,
    failure_scores,
    score,
)
from vitrail.cli.command import Answer, as_json, table
from vitrail.cli.maps import NamedRun, method_options, open_runs, output_goal, select_methods
from vitrail.cli.options import ExplainOptions
from vitrail.console import counting_bar, print_stderr
from vitrail.errors import UserError, cell_text
from vitrail.files import new_folder, publish, write_text

if TYPE_CHECKING:
    from vitrail.data import History, ImageDataset, Item

PARTS = ("train", "val", "test", "all")


def score_runs(options: ExplainOptions) -> Answer:
    """Score the methods of every run, print the tables, write ``scores.csv`` and ``scores.json``.

    Raises:
        UserError: an unknown method, option or part, pictures that do not have the run's classes,
            a folder in use, or not one picture that a model answers rightly.
    """
    assert options.score is not None
    chosen = select_methods(options.method or ("all",))
    method_kwargs = method_options(options.set, chosen)
    runs = open_runs([options.folder, *options.beside])
    history = joint_history(runs)
    pictures, mask_of = open_truth(options.score, history=history)
    items = part_of(pictures, options.part)
    out = output_goal(options.out, runs[0].name)
    settings = ScoreSettings(steps=options.steps, seed=options.seed)
    makers = {name: MapSource(name, method_kwargs.get(name, {}), options.seed) for name in chosen}
    makers |= {maker.name: maker for maker in baselines() if maker.name not in makers}
    results = []
    for one in runs:
        samples = samples_of(one, pictures, items, mask_of, options.count, options.seed)
        results.append((one, samples, rows_of(one, list(makers.values()), samples, settings)))
    if history is not None and (trained := history.overlap(items, pictures.name)):
        print_stderr(
            f"{trained:,} of the {len(items):,} pictures were trained on by {history.name}"
        )
    csv_rows = [line for one, _, rows in results for line in lines(rows, run=one.name)]
    data: dict[str, Any] = {"out": "", "data": options.score, "settings": asdict(settings)}
    data |= {"runs": [as_data(*result) for result in results]}
    with new_folder(out) as draft:
        write_text(draft.path / "scores.csv", as_csv(csv_rows))

        def complete(folder: Path) -> None:
            data["out"] = str(folder)
            write_text(draft.path / "scores.json", as_json(data))

        folder = publish(draft, out, complete)
    parts = [part for result in results for part in score_parts(*result)]
    return Answer(data, [*parts, LEGEND, f"written to {folder}"])


def joint_history(runs: Sequence[NamedRun]) -> "History | None":
    """What the runs trained and validated on together; None where none says so."""
    from vitrail.data import History
    from vitrail.train.lineage import read_history

    each = [read_history(one.place, one.run.card.extra) for one in runs]
    return History.merge([history for history in each if history is not None])


def part_of(pictures: "ImageDataset", part: str | None) -> "tuple[Item, ...]":
    """The pictures to score on.

    Raises:
        UserError: no such part, or none in these data.
    """
    if part is None:
        return pictures.split("test") or pictures.split("val") or pictures.items
    if part not in PARTS:
        raise UserError(f"--part is one of {', '.join(PARTS)}, not {part!r}")
    items = pictures.items if part == "all" else pictures.split(part)
    if not items:
        raise UserError(f"{pictures.name} has no part {part!r}")
    return items


def samples_of(
    one: NamedRun,
    pictures: "ImageDataset",
    items: "Sequence[Item]",
    mask_of: MaskOf,
    count: int,
    seed: int,
) -> Samples:
    """The pictures that this run answers rightly.

    Raises:
        UserError: the data have other classes than the run, or nothing is answered rightly.
    """
    if tuple(pictures.classes) != tuple(one.run.classes):
        raise UserError(
            f"{pictures.name} has the classes {first_classes(pictures.classes)}, the run "
            f"{one.name} {first_classes(one.run.classes)}; score a run on pictures of its own "
            "classes"
        )
    return gather(
        one.run.model, pictures, items, mask_of, one.run.preprocess, count=count, seed=seed
    )


def first_classes(classes: Sequence[str]) -> str:
    """Classes in one line."""
    return ", ".join(classes[:6]) + (f", … ({len(classes)})" if len(classes) > 6 else "")


def rows_of(
    one: NamedRun, makers: Sequence[MapSource], samples: Samples, settings: ScoreSettings
) -> list[MethodScores]:
    """A row a method; one that cannot serve this model says why."""
    rows = []
    with counting_bar(f"scoring {one.name}") as step:
        for i, maker in enumerate(makers):
            step(i, len(makers))
            maker.refused = 0
            try:
                rows.append(score(one.run.model, maker, samples, settings))
            except UserError as error:
                rows.append(failure_scores(maker, error))
    return rows


def score_parts(one: NamedRun, samples: Samples, rows: Sequence[MethodScores]) -> list[Any]:
    """A title, the table, and why some methods are missing."""
    good = [row for row in rows if not row.problem]
    even = ", ".join(f"{name} {value:.3f}" for name, value in chance(samples).items())
    title = (
        f"{one.name} ({one.run.card.model}): {len(samples)} pictures answered rightly, of "
        f"{samples.seen} looked at" + (f"; an even map: {even}" if even else "; no masks known")
    )
    reasons = [f"{row.method}: {row.problem}" for row in rows if row.problem]
    return [title, table(header(good), cells(good), left=2), *reasons]


def as_data(one: NamedRun, samples: Samples, rows: Sequence[MethodScores]) -> dict[str, Any]:
    """A run's scores for JSON."""
    return {
        "run": one.name,
        "model": one.run.card.model,
        "pictures": list(samples.keys),
        "looked_at": samples.seen,
        "chance": chance(samples),
        "rows": [row.to_dict() for row in rows],
    }


def as_csv(csv_rows: Sequence[Mapping[str, Any]]) -> str:
    """Lines under one head."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(csv_rows[0]) if csv_rows else ["run"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: cell_text(v) for k, v in line.items()} for line in csv_rows)
    return text.getvalue()
