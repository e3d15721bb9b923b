"""What fit promises, on real pictures with a tiny model."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.train import small
from tests.train.same import assert_same_to_the_bit, bits, rows
from torch import nn

from vitrail import data, train
from vitrail.digests import KEY
from vitrail.errors import UserError
from vitrail.schema import read_json
from vitrail.tasks import evaluate, load_weights, read_card
from vitrail.train import checkpoint
from vitrail.train.track import markdown_cell
from vitrail.train.trainer import Trainer

ROOT = Path(__file__).parents[2]


def at(kind: str, number: int, act: Callable[[], object]) -> Callable[[dict[str, Any]], None]:
    """A listener that acts at event ``number`` of a kind."""
    seen = [0]

    def listen(event: dict[str, Any]) -> None:
        if event["kind"] == kind:
            seen[0] += 1
            if seen[0] == number:
                act()

    return listen


def raised(number: int) -> Callable[[], object]:
    return lambda: signal.raise_signal(number)


def test_the_run_folder(tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = small.fit(out, small.recipe(), facts={"fraction": 0.05})
    names = {path.name for path in out.iterdir() if path.name != ".lock"}
    assert names == {
        "run.json",
        "recipe.yaml",
        "manifest.json",
        "metrics.jsonl",
        "best.safetensors",
        "last.safetensors",
        "result.json",
    }
    run = train.read_run(out)
    assert run.is_finished and run.result == read_json(out / "result.json")
    assert run.recipe == small.recipe() and run.facts["fraction"] == 0.05
    assert run.card.classes == small.card().classes
    assert [row["epoch"] for row in run.metrics] == [1, 2]
    assert run.metrics[-1] == result.last
    card = read_card(out / "best.safetensors")
    assert card.preprocess == small.card().preprocess and card.classes == small.card().classes
    assert card.extra["epoch"] == result.best["epoch"]
    assert result.images_per_s > 0 and result.loader_images_per_s > 0
    assert result.model_images_per_s > result.images_per_s


@pytest.mark.parametrize("changes", [{}, {"precision": "bf16", "ema": 0.0}])
def test_best_weights_give_the_reported_scores(tmp_path: Path, changes: dict[str, Any]) -> None:
    result = small.fit(tmp_path / "run", small.recipe(epochs=3, **changes))
    model = small.build(seed=5)
    model.load_state_dict(load_weights(tmp_path / "run" / "best.safetensors"))
    pictures, parts = small.clothes()
    transform = data.Preprocess.from_dict(small.card().preprocess).transform()
    chosen = data.ImageTensors(pictures, parts["val"], transform, 0)
    order = data.sequential_order(len(parts["val"]), batch=16)
    scores = evaluate(model, data.batches(chosen, order=order), 10)
    assert scores.predictions == result.scores["val"]["predictions"]
    assert scores.loss == pytest.approx(result.scores["val"]["loss"], rel=1e-5)
    rounding = 1e-5 if not changes else 1e-2  # bf16 while it trained
    assert scores.loss == pytest.approx(result.best["val_loss"], rel=rounding)


def test_it_learns(tmp_path: Path) -> None:
    """Twelve pictures by heart: the loss falls to nearly nothing."""
    pictures, parts = small.clothes()
    few = {"train": parts["train"][::6][:12], "val": parts["train"][::6][:12]}
    plain = data.Augment(scale=(1, 1), ratio=(1, 1), flip=0, rand_augment=None, erase=0)
    recipe = small.recipe(
        epochs=60, batch=12, lr=5e-3, smoothing=0.0, mix_share=0.0, augment=plain, ema=0.5
    )
    result = small.fit(tmp_path / "run", replace(recipe, validate_every=20), parts=few)
    rows = train.read_run(tmp_path / "run").metrics
    assert rows[0]["train_loss"] > 2.0
    assert rows[-1]["train_loss"] < 0.3
    assert result.best["accuracy"] == 1.0


def test_workers_change_nothing(tmp_path: Path) -> None:
    small.fit(tmp_path / "none", small.recipe())
    small.fit(tmp_path / "two", small.recipe(workers=2, cache=False))
    assert_same_to_the_bit(tmp_path / "none", tmp_path / "two")


def test_seeds_change_something(tmp_path: Path) -> None:
    small.fit(tmp_path / "a", small.recipe())
    small.fit(tmp_path / "b", small.recipe(seed=1))
    assert bits(tmp_path / "a" / "last.safetensors") != bits(tmp_path / "b" / "last.safetensors")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(("kind", "when"), [("step", 3), ("epoch", 1)])
def test_a_signal_leaves_a_run_that_goes_on(
    tmp_path: Path, number: int, kind: str, when: int
) -> None:
    small.fit(tmp_path / "whole", small.recipe())
    out = tmp_path / "my run"
    handler = signal.getsignal(number)
    with pytest.raises(train.Interrupted, match=r"vitrail train --resume '.*my run'"):
        small.fit(out, small.recipe(), on_event=at(kind, when, raised(number)))
    assert signal.getsignal(number) is handler
    assert not train.read_run(out).is_finished
    resumed = train.resume(out, lambda card: small.build(seed=9), progress=False)
    assert resumed.epochs == 2
    assert_same_to_the_bit(tmp_path / "whole", out)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT as a person's shell leaves it; a script's background jobs have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_second_signal_acts_at_once(tmp_path: Path) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        small.fit(tmp_path / "run", small.recipe(), on_event=at("step", 2, twice))
    assert not isinstance(caught.value, train.Interrupted)


def test_ctrl_c_on_a_terminal_reaches_the_loaders_workers_too(tmp_path: Path) -> None:
    """The terminal signals the whole process group."""
    small.recipe(epochs=1000, workers=2).to_yaml(tmp_path / "recipe.yaml")
    command = [sys.executable, "-m", "tests.train.two_processes", str(tmp_path / "run")]
    training = subprocess.Popen(
        [*command, str(tmp_path / "recipe.yaml"), "norm"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 90
        while not (tmp_path / "run" / "metrics.jsonl").exists() and time.monotonic() < until:
            time.sleep(0.05)
        os.killpg(training.pid, signal.SIGINT)
        _, said = training.communicate(timeout=60)
    finally:
        training.kill()
    assert "go on with: vitrail train --resume" in said, said
    assert checkpoint.load(tmp_path / "run" / checkpoint.NAME).progress.step > 0


def test_a_finished_run_is_returned_as_it_is(tmp_path: Path) -> None:
    first = small.fit(tmp_path / "run", small.recipe())
    before = (tmp_path / "run" / "last.safetensors").stat().st_mtime_ns
    assert small.fit(tmp_path / "run", small.recipe(), resume=True) == first
    assert (tmp_path / "run" / "last.safetensors").stat().st_mtime_ns == before


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    small.fit(tmp_path / "run", small.recipe(epochs=1))
    with pytest.raises(UserError, match="already holds a run; go on with 'vitrail train --resume"):
        small.fit(tmp_path / "run", small.recipe(epochs=1))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    for again in (False, True):
        with pytest.raises(UserError, match="is there already and nothing is overwritten"):
            small.fit(tmp_path / "mine", small.recipe(), resume=again)
    (tmp_path / "empty").mkdir()
    small.fit(tmp_path / "empty", small.recipe(epochs=1))


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    with pytest.raises(train.Interrupted):
        small.fit(tmp_path / "run", small.recipe(), on_event=at("step", 1, raised(signal.SIGINT)))
    return tmp_path / "run"


def test_resume_refuses_another_recipe(stopped: Path) -> None:
    with pytest.raises(UserError, match=r"recipe changed \(run, now\): lr: 0.001, 0.002"):
        small.fit(stopped, small.recipe(lr=0.002), resume=True)


def test_resume_refuses_other_pictures(stopped: Path) -> None:
    _, parts = small.clothes()
    fewer = {"train": parts["train"][1:], "val": parts["val"]}
    with pytest.raises(UserError, match=r"pictures changed \(manifest [0-9a-f]{12} then, "):
        small.fit(stopped, small.recipe(), parts=fewer, resume=True)


def test_resume_refuses_other_classes(stopped: Path) -> None:
    card = replace(small.card(), classes=("cat", "dog"))
    with pytest.raises(UserError, match="its classes are T-shirt/top, .*, the pictures' are cat"):
        small.fit(stopped, small.recipe(), card=card, resume=True)


def test_resume_names_gone_pictures(stopped: Path) -> None:
    pictures, _ = small.clothes()
    fewer = replace(pictures, items=pictures.items[:5])
    with pytest.raises(UserError, match="pictures of the run are gone"):
        train.resume(stopped, lambda card: small.build(), dataset=fewer)


def test_resume_of_a_run_that_names_no_pictures(stopped: Path) -> None:
    facts = {k: v for k, v in read_json(stopped / "run.json").items() if k not in ("data", KEY)}
    (stopped / "run.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="run.json' does not say what the run was trained on"):
        train.resume(stopped, lambda card: small.build(), progress=False)


def test_resume_of_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        train.resume(tmp_path, lambda card: small.build())


def test_another_training_in_the_folder_is_refused(stopped: Path) -> None:
    """The lock belongs to a process, so the other one is a real process."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        from vitrail.train import folder

        with folder.lock_run(stopped):
            os.write(writer, b"held")
            signal.pause()
        os._exit(0)
    try:
        os.read(reader, 4)
        with pytest.raises(UserError, match="another process is training in"):
            small.fit(stopped, small.recipe(), resume=True)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    small.fit(stopped, small.recipe(), resume=True)  # a killed process holds nothing


def test_early_stopping(tmp_path: Path) -> None:
    recipe = small.recipe(epochs=50, patience=2, lr=1e-9, min_lr=0.0, ema=0.0)
    result = small.fit(tmp_path / "run", recipe, norm=False)
    rows = train.read_run(tmp_path / "run").metrics
    assert result.stopped_early and result.epochs == result.best["epoch"] + 2 == len(rows) < 50


def test_validation_every_other_epoch(tmp_path: Path) -> None:
    small.fit(tmp_path / "run", small.recipe(epochs=3, validate_every=2))
    rows = train.read_run(tmp_path / "run").metrics
    assert [row["accuracy"] is None for row in rows] == [True, False, False]


def test_without_a_validation_part_the_last_is_the_best(tmp_path: Path) -> None:
    _, parts = small.clothes()
    result = small.fit(tmp_path / "run", small.recipe(), parts={"train": parts["train"]})
    assert result.best["epoch"] == 2 and result.scores == {}
    run = tmp_path / "run"
    assert bits(run / "best.safetensors") == bits(run / "last.safetensors")


def test_a_budget_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that moves by 0.1 s whenever it is read: an update takes 0.2 s."""
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: next(ticks) / 10, monotonic=time.monotonic)
    monkeypatch.setattr("vitrail.train.trainer.time", clock)
    steps: list[dict[str, Any]] = []
    recipe = small.recipe(seconds=1.95, epochs=1)
    result = small.fit(tmp_path / "run", recipe, on_event=steps.append)
    done = [event["done"] for event in steps if event["kind"] == "step"]
    assert len(done) == 10 and done[-1] == 1.0 and all(share < 1 for share in done[:-1])
    assert result.epochs > 1 and not result.stopped_early
    assert result.last["lr"] < 0.5 * recipe.lr  # the cosine ended with the budget


def test_averaged_weights_are_kept_and_lag_behind(tmp_path: Path) -> None:
    small.fit(tmp_path / "with", small.recipe(), norm=False)
    small.fit(tmp_path / "without", small.recipe(ema=0.0), norm=False)
    one, two = (bits(tmp_path / name / "last.safetensors") for name in ("with", "without"))
    assert one.keys() == two.keys() and one != two
    card = read_card(tmp_path / "with" / "last.safetensors")
    assert card.extra["averaged"] is True


def test_resume_keeps_the_average_and_its_counter(tmp_path: Path) -> None:
    with pytest.raises(train.Interrupted):
        small.fit(tmp_path / "run", small.recipe(), on_event=at("step", 4, raised(signal.SIGINT)))
    saved = checkpoint.load(tmp_path / "run" / checkpoint.NAME)
    assert int(saved.ema["n_averaged"]) == saved.progress.step == 5
    assert saved.world == 1 and (saved.progress.epoch, saved.progress.update) == (0, 5)
    assert set(saved.optim) == {name for name, _ in small.build().named_parameters()}


def test_accumulation_is_the_larger_batch(tmp_path: Path) -> None:
    """Without chance in the forward pass, parts of a batch add up to the batch."""
    plain = data.Augment(rand_augment=None)
    recipe = small.recipe(mix_share=0.0, augment=plain, ema=0.0, lr=1e-4)
    pictures, parts = small.clothes()
    ends = []
    for parts_of_batch in (1, 4):
        model = small.build(norm=False)
        for module in model.modules():
            if type(module).__name__ == "DropPath":
                module.forward = lambda x: x  # type: ignore[method-assign]
        out = tmp_path / str(parts_of_batch)
        made = replace(recipe, accumulate=parts_of_batch)
        settings: dict[str, Any] = {"card": small.card(), "parts": parts, "progress": False}
        train.fit(model, pictures, made, out, **settings)
        ends.append(load_weights(out / "last.safetensors"))
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=1e-3, atol=2e-5)
    losses = [[row["train_loss"] for row in rows(tmp_path / part)] for part in ("1", "4")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)  # the mean over parts, not their sum


def test_bf16(tmp_path: Path) -> None:
    small.fit(tmp_path / "plain", small.recipe())
    result = small.fit(tmp_path / "bf16", small.recipe(precision="bf16"))
    assert math.isfinite(result.last["train_loss"])
    one, two = (load_weights(tmp_path / n / "last.safetensors") for n in ("plain", "bf16"))
    assert all(value.dtype == one[name].dtype for name, value in two.items())
    assert any(not torch.equal(value, one[name]) for name, value in two.items())


def test_the_model_comes_back_without_autocast(tmp_path: Path) -> None:
    pictures, parts = small.clothes()
    model = small.build()
    made = small.recipe(precision="bf16", epochs=1)
    train.fit(
        model, pictures, made, tmp_path / "run", card=small.card(), parts=parts, progress=False
    )
    model.eval()
    fresh = small.build().eval()
    fresh.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, small.IMAGE, small.IMAGE)
    with torch.no_grad():
        assert torch.equal(model(x), fresh(x))


def test_fp16_scales_the_loss_skips_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """accelerate gives fp16 to GPUs alone; torch's scaler itself runs on a CPU, so here it does."""
    from vitrail.train import processes

    def start(precision: str) -> Any:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state()
        accelerator = Accelerator(mixed_precision="fp16")
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=3)
        return accelerator

    monkeypatch.setattr(processes, "start_accelerator", start)
    recipe = small.recipe(precision="fp16", epochs=8)
    small.fit(tmp_path / "whole", recipe)
    stop = at("step", 33, raised(signal.SIGINT))
    with pytest.raises(train.Interrupted):
        small.fit(tmp_path / "run", recipe, on_event=stop)
    saved = checkpoint.load(tmp_path / "run" / checkpoint.NAME)
    assert 0 < saved.scaler["scale"] < 2.0**40, "the scale never fell: nothing was skipped"
    assert 0 < int(saved.ema["n_averaged"]) < saved.progress.step
    small.fit(tmp_path / "run", recipe, resume=True)
    assert_same_to_the_bit(tmp_path / "whole", tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_before_it_spoils_the_weights(tmp_path: Path) -> None:
    class Breaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.calls = small.build(norm=False), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += self.training
            return self.body(x) * (math.nan if self.calls == 4 else 1.0)

    pictures, parts = small.clothes()
    recipe = small.recipe(checkpoint_steps=1)
    with pytest.raises(UserError, match=r"is nan at step 3 .*lower lr \(0.0003\).*clip.*fp32"):
        train.fit(
            Breaks(),
            pictures,
            recipe,
            tmp_path / "run",
            card=small.card(),
            parts=parts,
            progress=False,
        )
    saved = checkpoint.load(tmp_path / "run" / checkpoint.NAME)
    assert saved.progress.step == 3
    assert all(bool(value.isfinite().all()) for value in saved.model.values())


def test_a_set_smaller_than_the_batch(tmp_path: Path) -> None:
    _, parts = small.clothes()
    few = {"train": parts["train"][:5], "val": parts["val"][:3]}
    result = small.fit(tmp_path / "run", small.recipe(batch=64, epochs=2), parts=few)
    assert result.step == 2
    with pytest.raises(UserError, match="no training pictures"):
        small.fit(tmp_path / "none", small.recipe(), parts={"train": ()})


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    small.fit(tmp_path / "run", small.recipe(epochs=1, track=True))
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))
    assert markdown_cell("a|b\n<i>*x*") == r"a\|b\x0a&lt;i&gt;\*x\*".replace(r"\x", r"\\x")


def test_a_line_an_epoch_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small.fit(tmp_path / "run", small.recipe(), progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line[:9] for line in lines if line.startswith("epoch ")] == ["epoch   1", "epoch   2"]
    assert lines[0] == f"run folder: {tmp_path / 'run'}"
    assert "80 train, 20 val pictures" in lines[1] and "adamw lr 0.001" in lines[2]
    assert lines[-1].startswith("done: best accuracy")


def test_a_disk_that_is_full_is_one_line(tmp_path: Path) -> None:
    """A file size limit stands in for the disk: the checkpoint is larger than it allows."""
    import resource

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        small.fit(tmp_path / "run", small.recipe())

    assert "cannot write" in _message_of_child(work, tmp_path)
    assert not (tmp_path / "run").exists()


def _message_of_child(work: Callable[[], object], tmp_path: Path) -> str:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except UserError as error:
            (tmp_path / "message").write_text(str(error))
        os._exit(0)
    os.waitpid(pid, 0)
    return (tmp_path / "message").read_text()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*file.*: "):
        small.fit(tmp_path / "file" / "run", small.recipe())


def test_the_checkpoint_comes_before_the_best_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the two: the checkpoint carries the best weights until they are written."""
    write, calls = Trainer._write_best, [0]

    def die(self: Trainer) -> None:
        calls[0] += bool(self.pending)
        if calls[0] == 2:
            raise OSError("killed here")
        write(self)

    monkeypatch.setattr(Trainer, "_write_best", die)
    with pytest.raises(OSError, match="killed here"):
        small.fit(tmp_path / "run", small.recipe(checkpoint_seconds=0.0, lr=1e-2, epochs=9))
    monkeypatch.undo()
    saved = checkpoint.load(tmp_path / "run" / checkpoint.NAME)
    assert saved.best and saved.progress.best is not None
    assert (
        read_card(tmp_path / "run" / "best.safetensors").extra["step"] < saved.progress.best["step"]
    )
    small.fit(tmp_path / "run", small.recipe(lr=1e-2, epochs=9), resume=True)
    small.fit(tmp_path / "other", small.recipe(lr=1e-2, epochs=9))
    assert_same_to_the_bit(tmp_path / "other", tmp_path / "run")
