"""The training loop: updates, epochs, validation and checkpoints.

images -> loader -> mix -> model -> loss -> gradient -> clip -> optimiser -> averaged weights
"""

import math
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from vitrail import data
from vitrail.errors import UserError
from vitrail.tasks.card import Card, load_weights, save_weights
from vitrail.tasks.classify import Scores, collect_logits, score_logits
from vitrail.train import checkpoint, folder, mixup, optim, processes, sampling
from vitrail.train.checkpoint import Snapshot, TrainingProgress
from vitrail.train.display import OnEvent
from vitrail.train.ema import create_ema
from vitrail.train.folder import BEST, LAST
from vitrail.train.job import TrainingJob
from vitrail.train.loaders import PartLoaders
from vitrail.train.objective import Objective, StudentCall, configure_student
from vitrail.train.stop import Interrupted, StopRequest, lost_worker_error, resume_command

METRICS = "metrics.jsonl"
_TOO_MANY_SKIPS = 50


def ranking_key(row: Mapping[str, Any], score: str) -> tuple[float, float]:
    """A validation as numbers to compare: the higher score, then the lower loss, is better."""
    loss = row["val_loss"] if math.isfinite(row["val_loss"]) else math.inf
    return (-loss, row["accuracy"]) if score == "loss" else (row[score], -loss)


class Trainer:
    """Trains one run: ``restore`` a snapshot, then ``run``."""

    def __init__(
        self, job: TrainingJob, accelerator: Any, emit: OnEvent, stop: StopRequest
    ) -> None:
        self.job, self.accelerator, self.emit, self.stop = job, accelerator, emit, stop
        self.recipe, self.progress = job.recipe, TrainingProgress()
        self.batch_schedule = sampling.BatchSchedule.create(
            count=len(job.parts["train"]),
            batch=job.recipe.batch,
            accumulate=job.recipe.accumulate,
            world=accelerator.num_processes,
            rank=accelerator.process_index,
            seed=job.recipe.seed,
            sampling=job.recipe.sampling,
            labels=job.labels,
        )
        self._set_up_model()
        self.choices = mixup.mix_transforms(job.recipe, len(job.card.classes))
        self.pending: dict[str, Tensor] = {}
        self.saved_at = time.monotonic()
        self.loaders = PartLoaders(
            dataset=job.dataset,
            parts=job.parts,
            preprocess=data.Preprocess.from_dict(job.card.preprocess),
            recipe=job.recipe,
            pin=accelerator.device.type == "cuda",
            emit=emit,
        )

    def _set_up_model(self) -> None:
        recipe, model = self.recipe, self.job.model.to(self.accelerator.device)
        self.sharded = processes.is_sharded(self.accelerator)
        if self.sharded and recipe.ema:
            raise UserError("averaged weights need a whole model in each process: with FSDP, ema 0")
        self.ema = create_ema(model, recipe.ema) if recipe.ema else None
        device = self.accelerator.device
        method = configure_student(model, self.job.teacher, device, recipe.distill.feature)
        if recipe.compile:
            model.compile()
        optimizer = optim.create_optimizer(model, recipe)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.unwrapped = self.model
        if not self.sharded:
            self.unwrapped = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=True)
        self.call = StudentCall(self.model, self.unwrapped, method, self.accelerator.autocast)
        weights = self.job.class_weights()
        self.objective = Objective(
            recipe=recipe,
            student=self.unwrapped,
            teacher=self.job.teacher,
            autocast=self.accelerator.autocast,
            weights=None if weights is None else weights.to(self.accelerator.device),
        )
        self.torch_optimizer = self.optimizer.optimizer
        self.schedule = optim.Schedule(self.torch_optimizer, recipe, self._length())

    def _length(self) -> int:
        if self.recipe.seconds is not None:
            return optim.TICKS
        return max(1, self.recipe.epochs * self.batch_schedule.updates)

    # ---- how far ---------------------------------------------------------------------------------

    @property
    def fraction_done(self) -> float:
        """The share of the run that lies behind, 0 to 1."""
        if self.recipe.seconds is not None:
            return min(1.0, self.progress.seconds / self.recipe.seconds)
        return min(1.0, self.progress.step / self._length()) if self.recipe.epochs else 1.0

    def run(self) -> None:
        """Train to the end.

        Raises:
            Interrupted: asked to stop; everything is kept.
            UserError: the loss is not finite, the folder cannot be written, or a process that
                reads images died; what could be kept is, and the message says how to go on.
        """
        try:
            while not self.progress.finished:
                self._epoch()
                self._close_epoch()
        except data.WorkerError as error:
            self._save_after_lost_worker(error)
        self.save()

    def _save_after_lost_worker(self, error: data.WorkerError) -> NoReturn:
        """Save: batches are awaited between updates only, so the state is consistent here."""
        if self.accelerator.num_processes == 1:
            if self.stop.asked:  # the signal went to the workers too
                self._interrupt()
            self.save()
        raise lost_worker_error(error, self.job.out, self.progress.step) from error

    def _epoch(self) -> None:
        progress = self.progress
        if self.recipe.fits_head_only:
            return
        order = self.batch_schedule.epoch(progress.epoch, progress.update)
        batches = self.loaders.loader("train").epoch(order, epoch=progress.epoch)
        while progress.update < self.batch_schedule.updates and self.fraction_done < 1:
            began = time.perf_counter()
            self.schedule.set(self.fraction_done)
            progress.lr = max(group["lr"] for group in self.torch_optimizer.param_groups)
            microbatches = [next(batches) for _ in range(self.recipe.accumulate)]
            waited = time.perf_counter() - began
            loss = self._update(microbatches)
            self._count(loss, time.perf_counter() - began, waited)

    def _count(self, loss: Tensor, seconds: float, waited: float) -> None:
        progress = self.progress
        state = processes.all_reduce_state(
            self.accelerator,
            loss,
            stop=self.stop.asked,
            save=self._save_due(progress.step + 1),
            seconds=progress.seconds + seconds,
        )
        progress.step += 1
        progress.update += 1
        progress.loss_sum += state.loss if math.isfinite(state.loss) else 0.0
        progress.loss_count += math.isfinite(state.loss)
        progress.epoch_seconds += state.seconds - progress.seconds
        progress.seconds = state.seconds
        progress.waited += waited
        progress.images += self.batch_schedule.batch
        progress.epoch_images += self.batch_schedule.batch
        self._emit_step(state.loss)
        if state.stop:
            self._interrupt()
        elif state.save:
            self.save()

    def _emit_step(self, loss: float) -> None:
        progress = self.progress
        event = {
            "kind": "step",
            "step": progress.step,
            "epoch": progress.epoch,
            "done": self.fraction_done,
            "loss": loss,
            "lr": progress.lr,
            "images_per_s": progress.epoch_images / max(progress.epoch_seconds, 1e-9),
        }
        self.emit(event)

    # ---- one update ------------------------------------------------------------------------------

    def _update(self, microbatches: list[data.loader.Batch]) -> Tensor:
        """One step of the optimiser over this process's ``microbatches``; gives their mean loss."""
        total = torch.zeros((), device=self.accelerator.device)
        for part, (images, labels, _) in enumerate(microbatches):
            number = self.batch_schedule.microbatch(part)
            sampling.reseed(self.recipe.seed, self.progress.step, number)
            last = part == len(microbatches) - 1
            with processes.sync_gradients(self.accelerator, self.model, last=last):
                loss = self._loss(images, labels) / len(microbatches)
                self.accelerator.backward(loss)
            total += loss.detach()
        norm = torch.zeros(())
        if self.recipe.clip:
            norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
            norm = getattr(norm, "full_tensor", lambda norm=norm: norm)()  # sharded gradients
        self._refuse_non_finite(total + 0 * norm.to(total.device))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._after_step()
        return total

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        share = self.recipe.mix_share if self.fraction_done < self.recipe.mix_until else 0.0
        images, targets = mixup.apply_mix(images, labels, self.choices, share)
        images = images.to(self.accelerator.device, non_blocking=True)
        return self.objective(self.call(images), images, targets.to(self.accelerator.device))

    def _refuse_non_finite(self, check: Tensor) -> None:
        if self.accelerator.scaler is not None:
            return
        check = self.accelerator.reduce(check, "sum")
        if math.isfinite(float(check)):
            return
        recipe, progress = self.recipe, self.progress
        raise UserError(
            f"the loss or its gradient is {float(check)} at step {progress.step} (epoch "
            f"{progress.epoch + 1}, lr {self.progress.lr:.2g}); the weights before it are in "
            f"{str(self.job.out)!r}; train anew with a lower lr ({recipe.lr / 3:.1g}), "
            f"clip 1 or less (now {recipe.clip:g}), precision fp32 (now {recipe.precision})"
        )

    def _after_step(self) -> None:
        progress = self.progress
        progress.skipped = progress.skipped + 1 if self.optimizer.step_was_skipped else 0
        if progress.skipped > _TOO_MANY_SKIPS:
            raise UserError(
                f"fp16 found no finite gradient in {progress.skipped} updates in a row (step "
                f"{progress.step}); train anew with precision bf16, or a lower lr"
            )
        if self.ema is not None and not progress.skipped:
            self.ema.update_parameters(self.unwrapped)

    # ---- the end of an epoch ---------------------------------------------------------------------

    def _close_epoch(self) -> None:
        progress, recipe = self.progress, self.recipe
        by_count = recipe.seconds is None and progress.epoch + 1 >= recipe.epochs
        over = by_count or (recipe.seconds is not None and self.fraction_done >= 1)
        due = over or (progress.epoch + 1) % recipe.validate_every == 0
        scores = self.validate("val") if due and self.job.parts.get("val") else None
        row = self._row(scores)
        best = self._is_best(row, due)
        if best:
            progress.best, progress.epochs_since_best = row, 0
            self.pending = self.weights()
        elif due:
            progress.epochs_since_best += 1
        progress.rows.append(row)
        progress.epoch, progress.update = progress.epoch + 1, 0
        progress.loss_sum, progress.loss_count = 0.0, 0
        progress.epoch_seconds, progress.epoch_images = 0.0, 0
        progress.finished = over or 0 < recipe.patience <= progress.epochs_since_best
        self._write_metrics()
        self.emit({"kind": "epoch", "row": row, "best": best})
        self._sync_after_epoch()

    def _sync_after_epoch(self) -> None:
        nothing = torch.zeros(())
        due = self._save_due(0)
        state = processes.all_reduce_state(
            self.accelerator, nothing, stop=self.stop.asked, save=due, seconds=0.0
        )
        if state.stop and not self.progress.finished:
            self._interrupt()
        elif state.save:
            self.save()

    def _row(self, scores: Scores | None) -> dict[str, Any]:
        progress = self.progress
        return {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "seconds": round(progress.seconds, 3),
            "train_loss": progress.loss_sum / progress.loss_count if progress.loss_count else None,
            "val_loss": scores.loss if scores else None,
            "accuracy": scores.accuracy if scores else None,
            "balanced_accuracy": scores.balanced_accuracy if scores else None,
            "lr": self.progress.lr,
            "images_per_s": round(progress.epoch_images / max(progress.epoch_seconds, 1e-9), 1),
        }

    def _is_best(self, row: Mapping[str, Any], due: bool) -> bool:
        """By the recipe's score; without a validation part the latest is the best."""
        best = self.progress.best
        if row["val_loss"] is None:
            return due and not self.job.parts.get("val")
        if best is None:
            return True
        return ranking_key(row, self.recipe.best) > ranking_key(best, self.recipe.best)

    # ---- validation ------------------------------------------------------------------------------

    def validate(self, part: str) -> Scores:
        """Score a part in the precision of training, which is the fastest here."""
        with self.accelerator.autocast():
            return self.scores_of(part)

    def scores_of(self, part: str) -> Scores:
        """Score the averaged weights (or the model's own) on a part; all processes share it."""
        accelerator, count = self.accelerator, len(self.job.parts[part])
        world, rank = accelerator.num_processes, accelerator.process_index
        batch = max(self.batch_schedule.microbatch_size, 32)
        order = sampling.evaluation_batches(count, batch, world, rank)
        module = self.unwrapped if self.ema is None else self.ema.module
        if not self.sharded:
            processes.broadcast_buffers(accelerator, module)
        loader = self.loaders.loader(part).epoch(order)
        pairs = list(collect_logits(module, loader, accelerator.device))
        logits, labels = (torch.cat(each) for each in zip(*pairs, strict=True))
        logits = processes.gather_interleaved(accelerator, logits, count)
        labels = processes.gather_interleaved(accelerator, labels, count)
        return score_logits(logits, labels, len(self.job.card.classes))

    # ---- keeping ---------------------------------------------------------------------------------

    def weights(self) -> dict[str, Tensor]:
        """CPU copies of what is validated and saved: the averaged weights, or the model's own."""
        state = (
            checkpoint.model_state(self.model) if self.ema is None else self.ema.module.state_dict()
        )
        return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}

    def _save_due(self, step: int) -> bool:
        every = self.recipe.checkpoint_steps
        by_clock = time.monotonic() - self.saved_at >= self.recipe.checkpoint_seconds
        return by_clock or bool(every and step and step % every == 0)

    def save(self) -> None:
        """Write the checkpoint first, so that no other file is ever ahead of it."""
        snapshot = self.snapshot()
        weights = self.weights()
        if self.accelerator.is_main_process:
            checkpoint.save(self.job.out / checkpoint.NAME, snapshot)
            self._write_best()
            save_weights(self.job.out / LAST, weights, self._card(self.progress.step, None))
        self.accelerator.wait_for_everyone()
        self.pending = {}
        self.saved_at = time.monotonic()

    def _write_best(self) -> None:
        best = self.progress.best
        if self.pending and best is not None:
            save_weights(self.job.out / BEST, self.pending, self._card(best["step"], best))

    def _card(self, step: int, row: dict[str, Any] | None) -> Card:
        names = ("epoch", "train_loss", "val_loss", "accuracy", "balanced_accuracy")
        extra: dict[str, Any] = {"step": step, "averaged": self.ema is not None}
        extra |= {name: row[name] for name in names} if row else {}
        card = self.job.card
        return Card(**vars(card) | {"extra": {**card.extra, **extra}})

    def _write_metrics(self) -> None:
        if self.accelerator.is_main_process:
            folder.write_rows(self.job.out / METRICS, self.progress.rows)

    def snapshot(self) -> Snapshot:
        """Everything to go on with (a collective call)."""
        scaler = self.accelerator.scaler
        return Snapshot(
            progress=self.progress,
            model=checkpoint.model_state(self.model),
            ema=self.ema.state_dict() if self.ema is not None else {},
            best=self.pending,
            optim=checkpoint.optimizer_state(self.model, self.torch_optimizer),
            scaler=scaler.state_dict() if scaler is not None else {},
            world=self.accelerator.num_processes,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from ``snapshot``; the files that people read are brought to the same moment.

        Raises:
            UserError: the run was made by another number of processes.
        """
        world = self.accelerator.num_processes
        if snapshot.world not in (0, world):
            raise UserError(
                f"{str(self.job.out)!r} was trained by {snapshot.world} processes, not {world}; "
                f"go on with {snapshot.world} (accelerate launch --num_processes {snapshot.world})"
            )
        checkpoint.set_model_state(self.model, snapshot.model)
        if self.ema is not None and snapshot.ema:
            self.ema.load_state_dict(snapshot.ema)
        elif self.ema is not None:
            self.ema.module.load_state_dict(snapshot.model)
        checkpoint.set_optimizer_state(self.model, self.torch_optimizer, snapshot.optim)
        if snapshot.scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(snapshot.scaler)
        self.progress, self.pending = snapshot.progress, snapshot.best
        if self.accelerator.is_main_process:
            self._write_best()
            self._write_metrics()
        self.pending = {}
        if self.progress.best is not None:
            folder.require_best(self.job.out)

    def score_best(self) -> dict[str, Scores]:
        """The best weights on every part but the training one, in their own precision."""
        folder.require_best(self.job.out)
        state = load_weights(self.job.out / BEST)
        if self.ema is not None:
            self.ema.module.load_state_dict(state)
        else:
            checkpoint.set_model_state(self.model, state)
        return {p: self.scores_of(p) for p in ("val", "test") if self.job.parts.get(p)}

    def _interrupt(self) -> NoReturn:
        self.save()
        progress = self.progress
        raise Interrupted(
            f"stopped at step {progress.step} (epoch {progress.epoch + 1}); nothing is lost, go on "
            f"with: {resume_command(self.job.out)}"
        )
