"""Running: what is done is skipped, what fails is told, what is foreign is left alone."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.study.made import Lab

from vitrail.errors import UserError
from vitrail.study import Plan, resume, run

PLAN = Plan(data="fashion", arms=("one", "two"), fractions=(1.0, 0.1), seeds=(0,), image=32)


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
    told.write_text(json.dumps(record))
    lab = Lab()
    run(PLAN, tmp_path, use=lab.tools, progress=False)
    assert lab.trained == [PLAN.jobs[0]]


def test_budgets_say_how_long_a_job_trains() -> None:
    from tests.study.made import lay

    small = PLAN.jobs[0]
    assert lay(PLAN).recipe_of(small).epochs == 2
    assert lay(replace(PLAN, budget="images")).recipe_of(small).epochs == 20
    timed = lay(replace(PLAN, budget="seconds", seconds=9.0)).recipe_of(replace(small, seed=3))
    assert (timed.seconds, timed.seed) == (9.0, 3)


def test_shares_are_nested_alike_for_all_arms_and_never_tested_on() -> None:
    from tests.study.made import lay

    bench, (one, two, whole, _) = lay(PLAN), PLAN.jobs
    small, large = (set(bench.parts(job)["train"]) for job in (one, whole))
    assert small < large and small == set(bench.parts(two)["train"])
    assert bench.parts(one)["val"] == bench.parts(whole)["val"]
    assert not large & set(bench.tested) and bench.tested_on == "test"


def test_the_terminal_table_fits_eighty_columns_and_takes_any_arm() -> None:
    from rich.console import Console
    from tests.study.made import dossier

    from vitrail.study import terminal_table

    held = io.StringIO()
    console = Console(width=80, file=held)
    console.print(terminal_table(dossier({"clustering_coat_lite_tiny": 0.8, "a(x='[red]')": 0.5})))
    said = held.getvalue()
    assert "clustering_coat_lite_tiny" in said and "[red]" in said
    assert max(map(len, said.splitlines())) <= 80
    assert "latency" in said and "10.0\u00a0M" in said


def test_two_runs_of_one_study_at_once_are_refused(tmp_path: Path) -> None:
    import subprocess
    import sys

    run(PLAN, tmp_path, use=Lab().tools, progress=False)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX);"
            "print('held', flush=True); sys.stdin.read()",
            str(tmp_path / ".lock"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline()
        with pytest.raises(UserError, match=str(tmp_path)):
            run(PLAN, tmp_path, use=Lab().tools, progress=False)
    finally:
        holder.communicate(b"")
