"""The run folder among other processes, kills and workers that die."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.train import small
from tests.train.same import assert_same_to_the_bit
from tests.train.test_fit import at, raised
from torch import nn

from vitrail import train
from vitrail.errors import UserError
from vitrail.files import DatedFolder
from vitrail.train import checkpoint, folder
from vitrail.train.trainer import Trainer


def test_two_trainings_in_one_minute_get_a_folder_each(tmp_path: Path) -> None:
    """The second begins and ends while the first is at work."""
    dated, said, second = DatedFolder(tmp_path / "runs", "photos"), list[str](), list[str]()

    def train_another() -> None:
        second.append(small.fit(dated, small.recipe(epochs=1)).folder)  # type: ignore[arg-type]

    def listen(event: dict[str, Any]) -> None:
        if event["kind"] == "folder":
            said.append(event["out"])
            train_another()

    first = small.fit(dated, small.recipe(epochs=1, seed=1), on_event=listen)  # type: ignore[arg-type]
    folders = {first.folder, *second}
    assert len(folders) == 2 and said == [first.folder]
    assert {str(path) for path in (tmp_path / "runs").iterdir()} == folders
    assert train.read_run(first.folder).recipe.seed == 1
    assert train.read_run(second[0]).recipe.seed == 0


def test_facts_are_used_as_the_types_they_were_held_against(tmp_path: Path) -> None:
    """A share that stands there as a text is that share, everywhere it is used."""
    said = {"open": {"val": "0.3", "seed": 4, "later": 1}, "fraction": "0.5", "note": "mine"}
    (tmp_path / "run.json").write_text(json.dumps(said))
    facts = folder.read_facts(tmp_path)
    assert facts == {"open": {"val": 0.3, "seed": 4}, "fraction": 0.5, "note": "mine"}
    (tmp_path / "run.json").write_text('{"open": {"val": "much"}}')
    with pytest.raises(UserError, match="open: val must be float, not str"):
        folder.read_facts(tmp_path)


def test_of_two_that_make_one_folder_the_later_is_told(tmp_path: Path) -> None:
    out, other = tmp_path / "run", tmp_path / "other"
    with pytest.raises(UserError, match="run' is there already and nothing is overwritten"):
        folder.create_run(out, lambda draft: _be_faster(out, draft))
    assert [p.name for p in out.iterdir()] == ["theirs"] and not other.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def _be_faster(out: Path, draft: Path) -> None:
    (draft / "run.json").touch()
    folder.create_run(out, lambda theirs: (theirs / "theirs").touch())


def test_what_looks_like_a_draft_is_the_users(tmp_path: Path) -> None:
    mine = [tmp_path / ".run.starting", tmp_path / ".run.vitrail-tmp"]
    for path in mine:
        path.mkdir()
        (path / "photo.jpg").touch()
    small.fit(tmp_path / "run", small.recipe(epochs=1))
    assert all((path / "photo.jpg").exists() for path in mine)


def test_a_kill_between_result_and_checkpoint_is_tidied_by_the_next(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = small.fit(out, small.recipe(epochs=1))
    (out / checkpoint.NAME).touch()
    (out / ".best.safetensors.1-01234567.vitrail-tmp").touch()
    assert small.fit(out, small.recipe(epochs=1), resume=True) == done
    assert not (out / checkpoint.NAME).exists() and not list(out.glob("*.vitrail-tmp"))


def test_best_weights_that_are_gone_are_one_line_with_a_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "_is_best", lambda self, *_: self.progress.epoch == 0)
    out, recipe = tmp_path / "run", small.recipe(epochs=2, checkpoint_seconds=0.0)
    gone = at("step", 8, lambda: (out / "best.safetensors").unlink())
    with pytest.raises(UserError, match="best.safetensors is gone; .*cp .* --resume"):
        small.fit(out, recipe, on_event=gone)
    with pytest.raises(UserError, match="best.safetensors is gone"):
        small.fit(out, recipe, resume=True)
    shutil.copy(out / "last.safetensors", out / "best.safetensors")
    assert small.fit(out, recipe, resume=True).epochs == 2


def kill_workers(trainer: Trainer) -> None:
    loader = trainer.loaders.loader("train")._loader
    for worker in loader._iterator._workers:  # type: ignore[union-attr]
        os.kill(worker.pid, signal.SIGKILL)


def test_a_killed_worker_keeps_the_run_which_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Trainer] = []
    monkeypatch.setattr(
        Trainer, "run", lambda self, run=Trainer.run: (seen.append(self), run(self))
    )
    recipe = small.recipe(workers=1, epochs=6)
    kill = at("step", 3, lambda: kill_workers(seen[0]))
    with pytest.raises(
        UserError, match=r"ended by SIGKILL.*kept \(step \d+\).*--resume .*workers=0"
    ):
        small.fit(tmp_path / "run", recipe, on_event=kill)
    step = checkpoint.load(tmp_path / "run" / checkpoint.NAME).progress.step
    assert step >= 3, "what was done until then is kept"
    pictures, _ = small.clothes()
    train.resume(
        tmp_path / "run", lambda card: small.build(), dataset=pictures, progress=False,
        changes={"workers": 0},
    )  # fmt: skip
    small.fit(tmp_path / "whole", small.recipe(epochs=6))
    assert_same_to_the_bit(tmp_path / "whole", tmp_path / "run")


def test_only_what_changes_no_result_may_be_changed_on_the_way(tmp_path: Path) -> None:
    with pytest.raises(train.Interrupted):
        small.fit(tmp_path / "run", small.recipe(), on_event=at("step", 1, raised(signal.SIGINT)))
    pictures, _ = small.clothes()
    for changes, said in (({"lr": 1.0}, "the recipe changed"), ({"wrokers": 1}, "wrokers")):
        with pytest.raises(UserError, match=said):
            train.resume(tmp_path / "run", lambda card: small.build(), dataset=pictures,
                         changes=changes)  # fmt: skip


def test_one_picture_at_a_time_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    pictures, parts = small.clothes()
    layers = (nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 10))
    model, recipe = nn.Sequential(*layers), small.recipe(batch=16, accumulate=16)
    with pytest.raises(UserError, match="cannot be trained on one picture at a time"):
        train.fit(model, pictures, recipe, tmp_path / "run", card=small.card(), parts=parts)
    assert not list(tmp_path.iterdir())
