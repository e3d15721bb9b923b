"""``vitrail train``: a run, its answer, going on with it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import TINY

import vitrail.train.setup as setup
from vitrail.tasks import Distillation
from vitrail.train import Recipe

QUICK = ("--image", "32", "--epochs", "1", "--fraction", "0.01", "--set", "workers=0")


def test_the_run_folder_holds_what_was_typed(tiny_run: Path) -> None:
    facts = json.loads((tiny_run / "run.json").read_text())
    assert facts["model"] == TINY
    assert facts["image"] == 32
    assert facts["fraction"] == 0.02
    assert "mixup: 0.0" in (tiny_run / "recipe.yaml").read_text()
    assert (tiny_run / "best.safetensors").is_file()


def test_default_folder_is_new_each_time_and_json_is_pure(give) -> None:
    said = [give("train", "fashion", "--model", TINY, "--json", *QUICK) for _ in range(2)]
    folders = [json.loads(each.out)["folder"] for each in said]
    assert len(set(folders)) == 2
    assert all(Path(folder).parent == Path("runs") for folder in folders)
    assert all((Path(folder) / "result.json").is_file() for folder in folders)


def test_a_finished_run_is_returned_as_it_is(give, tiny_run: Path) -> None:
    said = give("train", "--resume", tiny_run)
    assert said.status == 0
    assert "1 epochs" in said.out
    assert f"vitrail predict {tiny_run}" in said.out


def test_stopped_and_gone_on(give, monkeypatch) -> None:
    """Ctrl-C: status 130, the command that goes on; and it does."""
    whole = setup.fit_job

    def stop_soon(*args, **kwargs):
        def stop(event) -> None:
            if event["kind"] == "step" and event["step"] == 2:
                raise KeyboardInterrupt("go on with: vitrail train --resume mine")

        return whole(*args, **kwargs | {"on_event": stop})

    monkeypatch.setattr(setup, "fit_job", stop_soon)
    words = ("train", "fashion", "--model", TINY, "--out", "mine", "--image", "32")
    said = give(*words, "--epochs", "2", "--fraction", "0.05", "--set", "workers=0", "batch=16")
    assert said.status == 130
    assert "vitrail train --resume mine" in said.err.splitlines()[-1]
    again = give("train", "--resume", "mine", "--json")
    assert again.status == 0
    assert json.loads(again.out)["epochs"] == 2


def test_a_teacher_is_kept_and_opened_again(give, monkeypatch, tiny_run: Path) -> None:
    """What was typed stands in the recipe; a stopped run finds its teacher by itself."""
    words = ("train", "fashion", "--model", f"deit_tiny_distilled{TINY[8:]}", *QUICK[:4])
    taught = ("--teacher", tiny_run, "--distill", "soft", "--temperature", "2")
    whole = setup.fit_job

    def stop(event) -> None:
        if event["kind"] == "step":
            raise KeyboardInterrupt

    monkeypatch.setattr(setup, "fit_job", lambda *a, **more: whole(*a, **more | {"on_event": stop}))
    few = ("--fraction", "0.02", "--set", "workers=0", "batch=8")
    assert give(*words, *few, *taught, "--out", "mine").status == 130
    recipe = Recipe.from_yaml(Path("mine") / "recipe.yaml")
    assert recipe.teacher == str(tiny_run)
    assert recipe.distill == Distillation(kind="soft", alpha=0.1, tau=2.0)
    assert json.loads(Path("mine/run.json").read_text())["teacher"]["name"] == str(tiny_run)
    assert give("train", "--resume", "mine").status == 0


def test_two_processes_share_one_run_and_one_voice(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    words = ["train", "fashion", "--model", TINY, "--json", *QUICK]
    where = os.pathsep.join(path or "." for path in sys.path)
    done = subprocess.run(
        [*torchrun, "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
        + ["-m", "vitrail", *words],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": where},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads(done.stdout)["folder"] == str(Path("runs") / run.name)
    assert done.stderr.count("run folder:") == 1


def test_weights_for_other_classes_are_one_line_and_leave_nothing(give, tmp_path: Path) -> None:
    words = ("--image", "32", "--out", "run", "--set", "class_weights=[1, 2]")
    assert "class_weights has 2 numbers" in give("train", "fashion", *words).line
    assert not list(tmp_path.iterdir())
