"""Running: what is done is skipped, what fails is told, what is foreign is left alone."""

import csv
import io
import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.study.made import Lab

from vitrail.digests import KEY, add_digest
from vitrail.errors import UserError
from vitrail.files import lock_folder
from vitrail.study import Job, StudyPlan, costs, resume, run
from vitrail.study.record import JobRecord
from vitrail.study.report import report
from vitrail.study.run import OUTPUTS
from vitrail.study.setup import StudySetup

PLAN = StudyPlan(data="fashion", arms=("one", "two"), fractions=(1.0, 0.1), seeds=(0,), image=32)


@pytest.fixture(autouse=True)
def no_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are looked at in ``test_report``; they are most of the time of a study made up."""
    monkeypatch.setattr("vitrail.study.figures.to_svg", lambda *_: "<svg></svg>")
    monkeypatch.setattr("vitrail.study.figures._label_points", lambda *_, **__: None)


def test_a_study_runs_every_job_once_and_leaves_table_and_report(tmp_path: Path) -> None:
    lab = Lab()
    done = run(PLAN, tmp_path / "s", use=lab.tools, progress=False)
    assert tuple(lab.trained) == PLAN.jobs and lab.measured == 1 and done.status == 0
    with (tmp_path / "s" / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["arm"], float(r["share"])) for r in rows] == [(j.arm, j.share) for j in PLAN.jobs]
    assert float(rows[0]["accuracy"]) == done.rows[0]["accuracy"] and rows[1]["macs"] == "30000000"
    assert json.loads((tmp_path / "s" / "results.json").read_text())["missing"] == 0
    assert done.report.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_second_run_trains_nothing(tmp_path: Path) -> None:
    run(PLAN, tmp_path, use=Lab().tools, progress=False)
    lab = Lab()
    again = run(PLAN, tmp_path, use=lab.tools, progress=False)
    assert (lab.trained, lab.measured, len(again.rows)) == ([], 0, 4)


def test_ctrl_c_leaves_a_study_that_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match="2 of 4 runs done; nothing is lost: give the same"):
        run(PLAN, tmp_path, use=Lab(stop_at=2).tools, progress=False)
    assert "still to come" in (tmp_path / "report.html").read_text(encoding="utf-8")
    lab = Lab()
    assert len(resume(tmp_path, use=lab.tools, progress=False).rows) == 4
    assert tuple(lab.trained) == PLAN.jobs[2:]


def test_one_arm_failing_costs_the_others_nothing_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(PLAN, tmp_path, use=Lab(broken=("one",)).tools)
    assert done.status == 1 and [row["arm"] for row in done.rows] == ["two", "two"]
    assert "RuntimeError: loss of one is not finite" in done.failures[0].message
    assert "FAILED" in capsys.readouterr().err
    assert (
        "Traceback"
        in json.loads((tmp_path / PLAN.jobs[0].folder / "error.json").read_text())["traceback"]
    )
    mended = run(PLAN, tmp_path, use=Lab().tools, progress=False)
    assert mended.status == 0 and len(mended.rows) == 4


def test_all_arms_failing_still_gives_a_report(tmp_path: Path) -> None:
    done = run(PLAN, tmp_path, use=Lab(broken=("one", "two")).tools, progress=False)
    assert "No arm has finished" in done.report.read_text(encoding="utf-8")


def test_a_bad_arm_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    lab = Lab(refused=("two",))
    with pytest.raises(UserError, match="no model 'two'"):
        run(PLAN, tmp_path / "s", use=lab.tools, progress=False)
    assert not (tmp_path / "s").exists() and not lab.trained


def test_a_study_may_grow_but_not_shrink_or_change(tmp_path: Path) -> None:
    run(PLAN, tmp_path, use=Lab().tools, progress=False)
    lab = Lab()
    wider = replace(PLAN, arms=("one", "two", "three"))
    assert len(run(wider, tmp_path, use=lab.tools, progress=False).rows) == 6
    assert {job.arm for job in lab.trained} == {"three"} and lab.measured == 1
    with pytest.raises(UserError, match="may grow but not shrink"):
        run(PLAN, tmp_path, use=Lab().tools, progress=False)
    with pytest.raises(UserError, match="image was 32, is 64"):
        run(replace(wider, image=64), tmp_path, use=Lab().tools, progress=False)
    with pytest.raises(UserError, match="lr was 0.001, is 0.1"):
        run(replace(wider, recipe={"lr": 0.1}), tmp_path, use=Lab().tools, progress=False)


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is no study"):
        run(PLAN, tmp_path, use=Lab().tools, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(UserError, match="no study to go on with"):
        resume(tmp_path)


def test_a_job_left_by_other_settings_is_trained_again(tmp_path: Path) -> None:
    run(PLAN, tmp_path, use=Lab().tools, progress=False)
    told = tmp_path / PLAN.jobs[0].folder / "evaluation.json"
    record = json.loads(told.read_text()) | {"digest": "0" * 64}
    told.write_text(json.dumps(add_digest(record)))
    lab = Lab()
    run(PLAN, tmp_path, use=lab.tools, progress=False)
    assert lab.trained == [PLAN.jobs[0]]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"curve": [{"epoch": 1, "train_loss": [1.0]}]}, "curve"),
        ({"labels": [0, 1], "predictions": [0, 1], "confidences": [1, 1]}, "other test pictures"),
        ({"predictions": [99] * 200}, "class beyond"),
        ({"predictions": [-1] * 200}, "numbers from 0"),
        ({"labels": [10**30] * 200}, "too large"),
        *(({"share": share}, "share") for share in (0, 2, float("nan"))),
        ({"seconds": float("nan")}, "seconds"),
        ({"arm": "another"}, "the plan lacks"),
    ],
)
def test_a_record_that_no_job_leaves_is_one_line(
    tmp_path: Path, change: dict[str, object], error: str
) -> None:
    run(PLAN, tmp_path, use=Lab().tools, progress=False)
    told = tmp_path / PLAN.jobs[1].folder / "evaluation.json"
    record = bare(json.loads(told.read_text())) | change
    told.write_text(json.dumps(record))
    with pytest.raises(UserError, match=error) as found:
        report(tmp_path)
    assert "\n" not in str(found.value)


def test_what_a_diverged_arm_leaves_is_drawn(tmp_path: Path) -> None:
    run(PLAN, tmp_path, use=Lab().tools, progress=False)
    told = tmp_path / PLAN.jobs[1].folder / "evaluation.json"
    losses = (1.0, None, float("inf"), 1e308, float("nan"))
    rows: list[dict[str, object]] = [{"epoch": i, "train_loss": v} for i, v in enumerate(losses)]
    record = bare(json.loads(told.read_text())) | {"curve": [*rows, {}], "loss": float("nan")}
    told.write_text(json.dumps(record))
    report(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("data", {"name": "x"}), ("jobs", "four"), ("machine", None), ("starts", [1]), ("recipe", 3)],
)
def test_facts_that_a_report_cannot_show_are_one_line(
    tmp_path: Path, key: str, value: object
) -> None:
    run(PLAN, tmp_path, use=Lab().tools, progress=False)
    whole = bare(json.loads((tmp_path / "study.json").read_text()))
    whole["facts"][key] = value
    (tmp_path / "study.json").write_text(json.dumps(whole))
    with pytest.raises(UserError, match=rf"study.json': facts: {key}"):
        report(tmp_path)


def bare(value: dict[str, Any]) -> dict[str, Any]:
    """A file's value without its digest, which would refuse any change."""
    return {key: item for key, item in value.items() if key != KEY}


def test_budgets_say_how_long_a_job_trains() -> None:
    from tests.study.made import lay

    small = PLAN.jobs[0]
    assert lay(PLAN).recipe_of(small).epochs == 2
    assert lay(replace(PLAN, budget="images")).recipe_of(small).epochs == 20
    timed = lay(replace(PLAN, budget="seconds", seconds=9.0)).recipe_of(replace(small, seed=3))
    assert (timed.seconds, timed.seed) == (9.0, 3)


def test_shares_are_nested_alike_for_all_arms_and_never_tested_on() -> None:
    from tests.study.made import lay

    setup, (one, two, whole, _) = lay(PLAN), PLAN.jobs
    small, large = (set(setup.parts(job)["train"]) for job in (one, whole))
    assert small < large and small == set(setup.parts(two)["train"])
    assert setup.parts(one)["val"] == setup.parts(whole)["val"]
    assert not large & set(setup.test_items) and setup.test_part == "test"


def test_the_terminal_table_fits_eighty_columns_and_takes_any_arm() -> None:
    from rich.console import Console
    from tests.study.made import results

    from vitrail.study import terminal_table

    held = io.StringIO()
    console = Console(width=80, file=held)
    console.print(terminal_table(results({"clustering_coat_lite_tiny": 0.8, "a(x='[red]')": 0.5})))
    said = held.getvalue()
    assert "clustering_coat_lite_tiny" in said and "[red]" in said
    assert max(map(len, said.splitlines())) <= 80
    assert "latency" in said and "10.0\u00a0M" in said


def child(work: Callable[[], object]) -> int:
    """A forked process's number; it ends with 0, or with 3 where it was told that it cannot."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except UserError as error:
        os.write(2, f"{error}\n".encode())
        os._exit(3)
    finally:
        os._exit(1)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Slow(Lab):
    """Every job takes a moment."""

    def train(self, job: Job, setup: StudySetup, at: Path, tell: Callable[..., None]) -> JobRecord:
        time.sleep(0.3)
        return super().train(job, setup, at, tell)


def test_of_two_studies_at_once_one_runs_and_the_other_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s"
    both = [child(lambda: run(PLAN, out, use=Slow().tools, progress=False)) for _ in range(2)]
    assert sorted(map(exit_code, both)) == [0, 3]
    assert "another process is working on the study in" in capfd.readouterr().err
    assert len(run(PLAN, out, use=Lab().tools, progress=False).rows) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_study_that_is_held_is_not_touched(tmp_path: Path) -> None:
    """Not even by one that would grow it."""
    run(PLAN, tmp_path, use=Lab().tools, progress=False)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    wider = replace(PLAN, arms=("one", "two", "three"))
    with lock_folder(tmp_path, ""):
        assert exit_code(child(lambda: run(wider, tmp_path, use=Lab().tools, progress=False))) == 3
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_killed_anywhere_the_same_study_goes_on_and_nothing_is_left(tmp_path: Path) -> None:
    chance, hits = random.Random(0), 0
    for number in range(2):
        out = tmp_path / f"s{number}"
        for _ in range(3):
            pid = child(lambda out=out: run(PLAN, out, use=Lab().tools, progress=False))  # type: ignore[misc]
            time.sleep(chance.uniform(0, 0.3))
            os.kill(pid, signal.SIGKILL)
            hits += exit_code(pid) == -signal.SIGKILL
        (tmp_path / f".s{number}.starting").mkdir()  # the user's own
        assert len(run(PLAN, out, use=Lab().tools, progress=False).rows) == 4
        assert not list(out.rglob("*.part")) and not list(tmp_path.rglob("*.vitrail-tmp"))
        assert {p.name for p in out.iterdir()} <= {*OUTPUTS, "runs", ".lock"}
    assert hits >= 2


def test_drafts_of_older_versions_are_swept(tmp_path: Path) -> None:
    run(PLAN, tmp_path, use=Lab().tools, progress=False)
    parts = [tmp_path / "report.html.part", tmp_path / PLAN.jobs[0].folder / "error.json.part"]
    mine = tmp_path / "notes.part"
    for path in (*parts, mine):
        path.touch()
    run(PLAN, tmp_path, use=Lab().tools, progress=False)
    assert mine.exists() and not any(path.exists() for path in parts)


def test_a_full_disk_ends_the_study_with_path_and_remedy(small_disk: Path) -> None:
    (small_disk / "full").write_bytes(bytes(180_000))
    with pytest.raises(
        UserError, match="cannot write '.*small-disk/s/.*No space left .*; make room.*runs done"
    ):
        for n in range(9):  # evaluation by evaluation the room is used up
            arms = tuple(f"arm{i}" for i in range(5 * n + 2))
            run(replace(PLAN, arms=arms), small_disk / "s", use=Lab().tools, progress=False)


def test_how_far_measuring_is_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = [100.0], list[str]()
    monkeypatch.setattr(costs.time, "monotonic", lambda: now[0])
    pace = costs.Pace(said.append, steps=20, deadline=140.0)
    for _ in range(10):
        now[0] += 3
        pace.step("one, batch 1")
    assert said == [
        "measuring one, batch 1: 20% of the timing, 28 s left at most",
        "measuring one, batch 1: 40% of the timing, 16 s left at most",
    ]
