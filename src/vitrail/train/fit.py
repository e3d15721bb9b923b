"""Train a model on images, in a run folder that can always be resumed.

new folder (recipe, manifest, checkpoint of step 0) or old one -> Trainer -> result.json
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn

from vitrail import data, plugins
from vitrail.data import ImageDataset, Item
from vitrail.digests import add_text_digest
from vitrail.errors import UserError
from vitrail.files import (
    DatedFolder,
    Destination,
    is_disk_error,
    write_error,
    write_text,
)
from vitrail.hub.locate import run_of
from vitrail.hub.plugin_records import require_plugins
from vitrail.hub.teachers import open_teacher
from vitrail.tasks.card import Card
from vitrail.tasks.distill import check_maps
from vitrail.tasks.teacher import Teacher
from vitrail.train import checkpoint, folder, processes
from vitrail.train.checkpoint import Snapshot, TrainingProgress
from vitrail.train.display import Display, OnEvent, describe_scores
from vitrail.train.facts import run_facts, teacher_facts
from vitrail.train.fastest import Form, apply_form, choose_form, form_of
from vitrail.train.features import check_linear_head, fit_head_first
from vitrail.train.folder import BEST, LAST
from vitrail.train.heap import keep_freed_memory
from vitrail.train.job import TrainingJob, rebuild_model
from vitrail.train.optim import create_optimizer
from vitrail.train.recipe import Recipe
from vitrail.train.result import Result, read_result
from vitrail.train.small_batches import check_batch_norm
from vitrail.train.stop import StopRequest, explain_lost_process, lost_worker_error
from vitrail.train.track import TensorBoard, Tracker, check_tracking, log_row
from vitrail.train.trainer import Trainer
from vitrail.train.tune import freeze_parts


def fit(
    model: nn.Module,
    dataset: ImageDataset,
    recipe: Recipe,
    out: str | Path | DatedFolder,
    *,
    card: Card,
    parts: Mapping[str, Sequence[Item]],
    resume: bool = False,
    progress: bool = True,
    on_event: OnEvent | None = None,
    facts: Mapping[str, Any] | None = None,
    teacher: Teacher | None = None,
) -> Result:
    """Train ``model`` on ``parts["train"]``, validate on ``parts["val"]``, keep all in ``out``.

    ``out`` is a folder, or a :class:`~vitrail.files.DatedFolder` one: the first free name is taken.
    With ``resume`` a run that is there goes on where it stopped (a finished one is returned as it
    is), and one that is not there begins. ``facts`` go into ``run.json``. ``teacher`` is the one
    that ``recipe.teacher`` names.

    Raises:
        UserError: ``out`` exists (without ``resume``), or holds another run; no training images;
            a teacher without a recipe for it, or the other way round; a loss that is not finite;
            a folder that cannot be written.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP; the run can go on.
    """
    job = TrainingJob(
        model=model, dataset=dataset, parts=parts, recipe=recipe, card=card, teacher=teacher
    )
    return fit_job(job, out, resume=resume, progress=progress, on_event=on_event, facts=facts)


def fit_job(
    job: TrainingJob,
    out: str | Path | DatedFolder,
    *,
    resume: bool = False,
    progress: bool = True,
    on_event: OnEvent | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Result:
    """:func:`fit` for a job; the same options, the same errors."""
    goal = out if isinstance(out, DatedFolder) else Path(out)
    job = replace(job, out=goal if isinstance(goal, Path) else Path())
    freeze_parts(job.model, job.recipe)
    begun = _begun(goal, resume)
    form = choose_form(job) if begun is None else _form_of(begun)
    job = apply_form(job, form, said=begun is None)
    accelerator = processes.start_accelerator(job.recipe.precision)
    _check(job, accelerator.num_processes)
    facts = {**(facts or {}), "form": form.to_dict()}
    chosen = processes.run_on_main(accelerator, lambda: _prepare(job, goal, resume, facts))
    job = replace(job, out=chosen)
    done = folder.read_run(chosen).result
    if done is not None:
        return _finished_before(chosen, done)
    display = Display() if progress and accelerator.is_main_process else None
    listeners = [listener for listener in (display, on_event) if listener is not None]
    try:
        return _train(job, accelerator, listeners)
    except OSError as error:
        if not is_disk_error(error):
            raise
        raise write_error(job.out, error) from error
    finally:
        if display is not None:
            display.close()


def resume(
    out: str | Path,
    build: Callable[[Card], nn.Module] | None = None,
    *,
    teach: Callable[[str, Card], Teacher] = open_teacher,
    dataset: ImageDataset | None = None,
    changes: Mapping[str, Any] | None = None,
    progress: bool = True,
    on_event: OnEvent | None = None,
) -> Result:
    """Go on with the run in ``out``: its own recipe, images and parts.

    ``changes`` are to values of the recipe that change no result, such as ``workers``.
    ``build`` makes the model that a card names, with the recipe's drop path (weights do not
    matter, they are in the checkpoint), by default the one that the card's text means.
    ``images`` are opened from ``run.json``'s ``data``, with the options under ``open``, unless
    given. ``teach`` opens the teacher that the recipe names.

    Raises:
        UserError: not a run, its images, its plug-ins or its teacher are gone or changed, or a
            change that would change the result.
    """
    out = run_of(Path(out))
    run = folder.read_run(out)
    if build is None:
        require_plugins(run.card.extra.get("plugins", ()), run.folder)
    if run.result is not None:
        return _finished_before(out, run.result)
    model = rebuild_model(run) if build is None else build(run.card)
    if dataset is None:
        dataset = data.open_dataset(_source_of(run), **run.facts.get("open", {}))
    named = run.recipe.teacher
    job = TrainingJob(
        model=model,
        dataset=dataset,
        parts=_parts_of(run, dataset),
        recipe=Recipe.from_dict({**run.recipe.to_dict(), **(changes or {})}),
        card=run.card,
        teacher=teach(named, run.card) if named else None,
    )
    return fit_job(job, out, resume=True, progress=progress, on_event=on_event)


def _parts_of(run: folder.Run, dataset: ImageDataset) -> dict[str, tuple[Item, ...]]:
    """The run's own parts.

    Raises:
        UserError: some of their images are gone.
    """
    here = {item.key: item for item in dataset.items}
    missing = [i.key for items in run.manifest.parts.values() for i in items if i.key not in here]
    if missing:
        raise UserError(
            f"{len(missing)} pictures of the run are gone from {dataset.name!r} (the first: "
            f"{missing[0]}); bring them back, or train anew in another folder"
        )
    return {name: tuple(here[i.key] for i in items) for name, items in run.manifest.parts.items()}


def _begun(goal: Destination, resume: bool) -> folder.Run | None:
    """The run to go on with, if there is one."""
    goes_on = resume and isinstance(goal, Path) and folder.is_run(goal)
    return folder.read_run(goal) if goes_on and isinstance(goal, Path) else None


def _source_of(run: folder.Run) -> str:
    """What a run was trained on."""
    source = run.facts.get("data")
    if not source:
        raise UserError(
            f"{str(run.folder / 'run.json')!r} does not say what the run was trained on; in "
            "Python, resume(..., dataset=...) does"
        )
    return str(source)


def _form_of(run: folder.Run) -> Form:
    return form_of(run.facts, run.recipe, repr(str(run.folder / "run.json")))


def _check(job: TrainingJob, processes: int) -> None:
    """Refuse what cannot be trained, before a folder is made."""
    card, recipe, teacher = job.card, job.recipe, job.teacher
    if not job.parts.get("train"):
        raise UserError("there are no training pictures")
    if (teacher is None) != (recipe.teacher is None):
        raise UserError(
            f"the recipe's teacher is {recipe.teacher!r}, the one given is "
            f"{teacher.name if teacher else None!r}; give both, or neither"
        )
    job.class_weights()
    if recipe.head_first:
        check_linear_head(job.model)
    create_optimizer(job.model, recipe)
    if recipe.track:
        check_tracking()
    size, count = (card.in_chans, card.image, card.image), len(job.parts["train"])
    if teacher is not None and recipe.distill.feature:
        check_maps(job.model, teacher, size)
    check_batch_norm(job.model, card.model, size, recipe=recipe, count=count, world=processes)


def _finished_before(out: Path, result: Mapping[str, Any]) -> Result:
    folder.remove_leftovers(out)
    return read_result(result, out)


def _prepare(job: TrainingJob, goal: Destination, resume: bool, facts: Mapping[str, Any]) -> Path:
    """Create the run folder, or check that the existing one is this run; returns its path."""
    run = _begun(goal, resume)
    if run is None:
        return folder.create_run(goal, lambda draft: _fill_folder(draft, job, facts))
    digest = data.manifest_digest(job.card.classes, job.parts)
    folder.check_same(run, recipe=job.recipe, classes=job.card.classes, digest=digest)
    folder.check_teacher(run, teacher_facts(job))
    return run.folder


def _fill_folder(draft: Path, job: TrainingJob, facts: Mapping[str, Any]) -> None:
    """A new run folder: what was asked for, and the checkpoint of step 0."""
    write_text(draft / "recipe.yaml", add_text_digest(job.recipe.to_yaml()))
    digest = data.write_manifest(draft / "manifest.json", job.dataset, job.parts)
    if job.dataset.problems:
        data.write_problems(draft / "problems.csv", job.dataset.problems)
    fitted = {"head_first": fit_head_first(job)} if job.recipe.head_first else {}
    start = Snapshot(
        progress=TrainingProgress(),
        model=job.model.state_dict(),
        ema={},
        best={},
        optim={},
        scaler={},
    )
    checkpoint.save(draft / checkpoint.NAME, start)
    plugins.copy_plugins(job.card.extra.get("plugins", ()), draft)
    folder.write_json(draft / "run.json", run_facts(job, digest) | fitted | dict(facts))


def _train(job: TrainingJob, accelerator: Any, listeners: list[OnEvent]) -> Result:
    """Train in this process, from the checkpoint to the result."""
    main = accelerator.is_main_process

    def emit(event: dict[str, Any]) -> None:
        for listener in listeners if main else ():
            listener(event)

    lost = explain_lost_process(job.out)
    with StopRequest() as stop, folder.lock_run(job.out, main), lost, keep_freed_memory():
        done = processes.run_on_main(accelerator, lambda: folder.read_run(job.out).result)
        if done is not None:
            return _finished_before(job.out, done)
        emit({"kind": "folder", "out": str(job.out)})
        for line in job.notes:
            emit({"kind": "note", "line": line})
        snapshot = checkpoint.load(folder.check_checkpoint(job.out))
        trainer = Trainer(job, accelerator, emit, stop)
        _restore(trainer, snapshot)
        tracker = _tracker(job, trainer.progress.step) if main else None
        if tracker is not None:
            listeners.append(lambda e: log_row(tracker, e["row"]) if e["kind"] == "epoch" else None)
        try:
            emit(_start_event(job, trainer))
            _note_imbalance(job, emit)
            _run(trainer)
            return _finish(job, trainer, emit)
        finally:
            if tracker is not None:
                tracker.close()


def _restore(trainer: Trainer, snapshot: Snapshot) -> None:
    """Load the checkpoint into the trainer.

    Raises:
        UserError: it is of another model, or of another shape.
    """
    try:
        trainer.restore(snapshot)
    except UserError:
        raise
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())[:160]
        raise UserError(
            f"the checkpoint in {str(trainer.job.out)!r} does not fit the run's model ({why}); "
            "take it from a copy, or train anew in another folder"
        ) from error


def _run(trainer: Trainer) -> None:
    try:
        trainer.run()
    finally:
        if not trainer.sharded:
            # accelerate has put autocast around forward: a model comes back as it was given, and
            # the end is scored as the saved weights will answer.
            trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)


def _tracker(job: TrainingJob, step: int) -> Tracker | None:
    if not job.recipe.track:
        return None
    tracker = TensorBoard(job.out, step)
    if step == 0:
        tracker.log_config(job.recipe.to_dict())
    return tracker


def _start_event(job: TrainingJob, trainer: Trainer) -> dict[str, Any]:
    counts = ", ".join(f"{len(items)} {name}" for name, items in job.parts.items())
    batch = trainer.batch_schedule.batch
    small = f" (batch {batch}: the set is small)" if batch < job.recipe.batch else ""
    at = f" · going on at step {trainer.progress.step}" if trainer.progress.step else ""
    line = f"{job.card.model} at {job.card.image} px on {counts} pictures{at}\n"
    line += job.recipe.describe() + small
    return {"kind": "start", "line": line, "done": trainer.fraction_done, "out": str(job.out)}


def _note_imbalance(job: TrainingJob, emit: OnEvent) -> None:
    """One line for a very unbalanced set, unless the recipe does something about it."""
    line = data.describe_imbalance(job.parts["train"], job.card.classes)
    if line and not job.recipe.balances:
        emit({"kind": "note", "line": line})


def _finish(job: TrainingJob, trainer: Trainer, emit: OnEvent) -> Result:
    """Score the best weights and write the result; then nothing is left to go on with."""
    progress, main = trainer.progress, trainer.accelerator.is_main_process
    try:
        scores = trainer.score_best()
        rate = round(_loader_rate(trainer), 1) if main else 0.0
    except data.WorkerError as error:
        raise lost_worker_error(error, job.out, progress.step) from error
    result = Result(
        folder=str(job.out),
        epochs=progress.epoch,
        step=progress.step,
        seconds=round(progress.seconds, 3),
        stopped_early=job.recipe.seconds is None and progress.epoch < job.recipe.epochs,
        best=progress.best or {},
        last=progress.rows[-1],
        scores={part: asdict(found) for part, found in scores.items()},
        images_per_s=_rate(progress.images, progress.seconds),
        model_images_per_s=_rate(progress.images, progress.seconds - progress.waited),
        loader_images_per_s=rate,
    )
    if main:
        folder.write_json(job.out / "result.json", asdict(result))
        (job.out / checkpoint.NAME).unlink(missing_ok=True)
    trainer.accelerator.wait_for_everyone()
    _emit_end(job, result, emit)
    return result


def _emit_end(job: TrainingJob, result: Result, emit: OnEvent) -> None:
    if 0 < result.loader_images_per_s < result.model_images_per_s:
        line = (
            f"pictures come at {result.loader_images_per_s:.0f} a second, the model could take "
            f"{result.model_images_per_s:.0f}: more --workers would make this faster"
        )
        emit({"kind": "note", "line": line})
    row = result.best
    score = ""
    if row.get("accuracy") is not None:
        score = f"best {describe_scores(row, job.recipe.best)} (epoch {row['epoch']}), "
    line = f"done: {score}{job.out / (BEST if row else LAST)}"
    emit({"kind": "end", "line": line, "result": asdict(result)})


def _loader_rate(trainer: Trainer) -> float:
    """Measured for a second, or for a twentieth of a short training; 0 where none was needed."""
    if trainer.recipe.fits_head_only:
        return 0.0
    seconds = min(1.0, 0.05 * trainer.progress.seconds)
    return trainer.loaders.measure_rate(trainer.batch_schedule, seconds)


def _rate(images: int, seconds: float) -> float:
    return round(images / max(seconds, 1e-9), 1)
