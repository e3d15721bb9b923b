"""The form of a run: tried where it pays, kept for as long as the run lives."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train import small
from tests.train.same import assert_same_to_the_bit

from vitrail import train
from vitrail.errors import UserError
from vitrail.train import Recipe, fastest
from vitrail.train.fastest import FORMATS, Form, choose_form, form_of
from vitrail.train.folder import read_run
from vitrail.train.job import TrainingJob

FIT = importlib.import_module("vitrail.train.fit")


def job(**changes: Any) -> TrainingJob:
    pictures, parts = small.clothes()
    recipe = small.recipe(**changes)
    return TrainingJob(
        model=small.build(), dataset=pictures, parts=parts, recipe=recipe, card=small.card()
    )


def passes_that_take(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> list[str]:
    """Let each precision and memory format take so long; the names of the forms that were tried."""
    tried: list[str] = []

    def seconds_of(forms: list[Form], *args: Any, **options: Any) -> list[float]:
        tried.extend(form.name for form in forms)
        return [seconds[form.precision] * seconds[form.memory_format] for form in forms]

    monkeypatch.setattr(fastest, "seconds_of", seconds_of)
    return tried


@pytest.mark.parametrize(
    ("seconds", "has_bf16", "chosen"),
    [
        ({"bf16": 50.0, "channels_last": 1.0}, True, ("bf16", "contiguous")),
        ({"bf16": 50.0, "channels_last": 1.0}, False, ("fp32", "contiguous")),
        ({"bf16": 99.0, "channels_last": 0.7}, True, ("bf16", "channels_last")),
        ({"bf16": 99.0, "channels_last": 0.98}, True, ("fp32", "contiguous")),
    ],
)
def test_the_fastest_is_taken_where_the_gain_is_clear(
    monkeypatch: pytest.MonkeyPatch,
    seconds: dict[str, float],
    has_bf16: bool,
    chosen: tuple[str, str],
) -> None:
    passes_that_take(monkeypatch, fp32=100.0, contiguous=1.0, **seconds)
    monkeypatch.setattr(fastest, "has_bfloat16", lambda device: has_bf16)
    form = choose_form(job(precision="auto"))
    assert (form.precision, form.memory_format) == chosen
    assert "the fastest here" in form.line and form.images_per_s


def test_a_short_training_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = passes_that_take(monkeypatch, fp32=1e-6, bf16=1e-9, contiguous=1.0, channels_last=1.0)
    assert choose_form(job(precision="auto")) == Form() and tried == ["fp32 contiguous"]
    assert choose_form(job(seconds=59.0)) == Form()


def test_a_step_is_timed_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    made = job(precision="auto")
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    monkeypatch.setattr(fastest, "LEAST_SECONDS", 0.0)
    torch.manual_seed(1)
    chance = torch.get_rng_state()
    form = choose_form(made)
    assert form.memory_format in FORMATS
    assert form.images_per_s and min(form.images_per_s.values()) > 0
    assert torch.equal(torch.get_rng_state(), chance)
    after = made.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(p.grad is None for p in made.model.parameters()) and made.model.training


def test_processes_beside_each_other_measure_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = passes_that_take(monkeypatch)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert choose_form(job(precision="auto")) == Form() and not tried


def test_a_run_keeps_its_form_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels-last and bf16, chosen by auto; stopped, it goes on in them and not in others."""

    def fit(out: Path, stop_at: int | None = None) -> train.Result:
        made = job(precision="auto", epochs=1)

        def listen(event: dict[str, Any]) -> None:
            if event["kind"] == "step" and event["step"] == stop_at:
                raise KeyboardInterrupt

        return train.fit(
            made.model, made.dataset, made.recipe, out, card=made.card, parts=made.parts,
            progress=False, resume=out.exists(), on_event=listen,
        )  # fmt: skip

    chosen = Form(precision="bf16", memory_format="channels_last", images_per_s={"a": 1.0})
    monkeypatch.setattr(FIT, "choose_form", lambda job: chosen)
    fit(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", stop_at=2)
    monkeypatch.setattr(FIT, "choose_form", lambda job: Form())
    fit(tmp_path / "cut")
    assert_same_to_the_bit(tmp_path / "whole", tmp_path / "cut")
    run = read_run(tmp_path / "cut")
    assert run.recipe.precision == "bf16" and form_of(run.facts, run.recipe, "run") == chosen


def test_a_form_that_is_none_is_refused() -> None:
    recipe = Recipe(precision="bf16")
    assert form_of({}, recipe, "run.json") == Form(precision="bf16")
    for wrong in ({"precision": "auto"}, {"memory_format": "sideways"}, {"precision": 1}, []):
        with pytest.raises(UserError):
            form_of({"form": wrong}, recipe, "run.json")


def test_what_was_measured_is_said_once() -> None:
    form = Form(precision="bf16", images_per_s={"fp32 contiguous": 5.0, "bf16 contiguous": 9.0})
    line = "computes in bf16 contiguous, the fastest here (images/s of a step: fp32 contiguous 5,"
    made = fastest.apply_form(job(precision="auto"), form)
    assert made.recipe.precision == "bf16" and made.notes[-1].startswith(line)
    assert fastest.apply_form(job(precision="auto"), form, said=False).notes == ()
    assert fastest.apply_form(job(), Form()).notes == ()
