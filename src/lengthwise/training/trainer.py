"""Training on a measured criterion, on one process or many, resumable to the same weights."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import reduce
from torch import Tensor

from lengthwise.bias import CalibratedBias, MatrixBias
from lengthwise.engine.flat_weights import FlatWeights
from lengthwise.files import append_text, write_text
from lengthwise.model import Transformer
from lengthwise.runs.folder import (
    CALIBRATED,
    CHECKPOINT,
    CHECKPOINTS,
    CONFIG,
    METRICS,
    WEIGHTS,
    check_folder,
    locked,
    prepare,
)
from lengthwise.runs.metrics import Metrics, read_metrics
from lengthwise.runs.parts import (
    check_new,
    check_reach,
    compiled,
    fitted,
    make_bias,
    make_device,
    make_model,
)
from lengthwise.runs.run import Run
from lengthwise.runs.weights import load_weights
from lengthwise.settings.config import Config, InputError
from lengthwise.training.batches import draw_positions, make_batches
from lengthwise.training.checkpoint import save_checkpoint, taking_up
from lengthwise.training.halves import Shards, accumulated, choose_shards, shard_threads
from lengthwise.training.interrupts import stop_requests
from lengthwise.training.keeping import Finite, thin_out
from lengthwise.training.loss import Loss
from lengthwise.training.processes import Others, make_accelerator, prepared, rank_rows, together
from lengthwise.training.resuming import is_finished, reopen, save_settings
from lengthwise.training.schedule import Schedule


class NotInterpolatedError(RuntimeError):
    """Training ended at `max_steps` without meeting its criterion; the run is kept."""

    def __init__(self, run: Run, last: Metrics) -> None:
        wanted = run.config.training
        super().__init__(
            f"{run.path} did not interpolate within {last.step} steps: exact match "
            f"{last.exact_match:.2%} (wanted {wanted.exact_match:.2%}), loss "
            f"{last.validation_loss:.2g} (wanted {wanted.loss:.2g}), worst loss of a symbol "
            f"{last.worst_loss:.2g} (wanted {wanted.worst_loss:.2g}), phase {last.phase}; --resume with a "
            f"larger {'re' * (run.path.name == CALIBRATED)}training.max_steps goes on"
        )
        self.run, self.last = run, last


Progress = Callable[[Metrics], None]


def train_run(
    config: Config,
    path: Path,
    *,
    bias: CalibratedBias | MatrixBias | None = None,
    resume: bool = False,
    force: bool = False,
    on_progress: Progress | None = None,
) -> Run:
    """Train a model in a run folder until it meets its criterion.

    Args:
        path: the run folder.
        bias: a calibrated bias, or one of matrices; without one, the settings name the bias.
        resume: continue from the last checkpoint (or do nothing if the run is done). Settings that were not
            set are the run's own; of those that were, some may differ from it
            (`lengthwise.training.resuming`).
        force: start over where a run exists.
        on_progress: called with each row of metrics.

    Raises:
        InputError: when the folder may not be written, the bias does not fit, or the model can't be trained
            so. Nothing is written then.
        NotInterpolatedError: when the criterion is not met within `max_steps`.
    """
    check_folder(path, resume=resume, force=force)
    bias = fitted(bias, config)
    run = Run(path, config, bias or make_bias(config))
    begun = resume and (path / CONFIG).exists()
    if begun:
        run = reopen(path, config, bias)
        if is_finished(run):
            save_settings(run)
            raise_if_unfinished(run)
            return run
    else:
        check_new(config, bias)
    # Where attention copies, queries and keys get no gradient; processes must know not to wait for it.
    drawn = config.model.bias == "window" or isinstance(run.bias, CalibratedBias | MatrixBias)
    accelerator = make_accelerator(
        make_device(config.device), find_unused=drawn or config.training.frozen != "nothing"
    )
    trainer = Trainer(run.config, run, accelerator, on_progress)
    trainer.check()
    # One process writes; the others wait until the folder is ready.
    with locked(path) if accelerator.is_main_process else contextlib.nullcontext():
        if accelerator.is_main_process:
            prepare(path, resume=resume, force=force)
            if begun:
                save_settings(run)
            else:
                Run.create(path, config, bias)
        with together(accelerator, path):
            accelerator.wait_for_everyone()
            return trainer.train()


def check_training(config: Config, path: Path, bias: CalibratedBias | None = None) -> None:
    """Refuse settings that no model can be trained with, before anything is written (`InputError`)."""
    check_new(config, bias)
    accelerator = make_accelerator(make_device(config.device), find_unused=False)
    Trainer(config, Run(path, config, bias or make_bias(config)), accelerator).check()


def raise_if_unfinished(run: Run) -> None:
    """Raise `NotInterpolatedError` if a finished training missed its criterion."""
    rows = read_metrics(run)
    if not rows:
        raise InputError(f"{run.path / METRICS} holds no rows: nothing says how its training ended")
    if rows[-1].phase != "done":
        raise NotInterpolatedError(run, rows[-1])


class Trainer:
    """One training: the model, the optimizer, and how far they are."""

    def __init__(
        self,
        config: Config,
        run: Run,
        accelerator: Accelerator,
        on_progress: Progress | None = None,
    ) -> None:
        self.config, self.run, self.accelerator = config, run, accelerator
        self.others = Others(accelerator)
        self.on_progress = on_progress or (lambda metrics: None)
        self.settings, self.device = config.training, accelerator.device
        torch.manual_seed(config.seed)
        model = make_model(config)
        if self.settings.frozen == "embeddings":
            model.source_embedding.requires_grad_(False)
            model.target_embedding.requires_grad_(False)
        self.model = prepared(accelerator, model)
        self.bare: Transformer = accelerator.unwrap_model(self.model)
        if self.settings.execution == "compiled":
            self.model = compiled(self.model, self.device)
        # Not earlier: preparing a model for several processes gives its weights other memory.
        self.weights = FlatWeights(w for w in self.bare.parameters() if w.requires_grad)
        # Fused: one pass over the numbers, where a loop costs a tenth of a step on the CPU.
        self.optimizer = torch.optim.Adam(
            [self.weights.whole], lr=self.settings.learning_rate, betas=(0.9, 0.98), fused=True
        )
        self.schedule = Schedule(self.settings)
        self.batches = make_batches(config)
        self.held_out = self.batches.validation(self.settings.validation_problems)
        self.layout = self.batches.layout
        check_reach(self.bare, self.layout)
        self.loss = Loss(config, run.bias, self.bare, self.device)
        self.plan = self.loss.plan_for(self.layout, self.held_out.target)
        self.shards = self._choose_shards()
        self.rank_rows = rank_rows(
            self.settings.batch_size,
            accelerator.process_index,
            accelerator.num_processes,
            self.settings.accumulate,
        )
        self.step, self.seconds = 0, 0.0
        self.loss_sum, self.loss_count = torch.zeros((), device=self.device), 0
        self.tokens = 0  # since the last row of metrics
        self.finite = Finite(self.device)

    def _choose_shards(self) -> Shards | None:
        """How batches are computed; several processes, and compiled models, have ways of their own."""
        apart = self.accelerator.num_processes > 1 or self.settings.execution == "compiled"
        # Threads share what autocast has converted: sums would differ from run to run.
        if apart or self.settings.precision != "float32":
            return None
        problems = self.settings.batch_size // self.settings.accumulate
        rows = self.held_out.target.shape[1] - 1
        return choose_shards(self.bare, self.plan, problems, rows)

    def check(self) -> None:
        """What else could be refused after the folder is made: a first batch, and the initial weights.

        Raises:
            InputError: when there are none.
        """
        if not (self.run.path / CHECKPOINT).exists():
            batch = self.batches.train(0)
            if self.bare.ids is not None:  # a method of a user's own may number tokens wrongly
                plan = self.loss.plan_for(batch.layout, batch.target)
                drawn = draw_positions(self.bare.ids.method, self.config, 0, batch.layout)
                ids = self.bare.ids.ids(plan, batch.target[:, :-1].clamp(min=0), drawn)
                self.bare.ids.check(ids)
        if self.settings.initial is not None:
            initial = Run.open(self.settings.initial)
            _ = initial.model  # whole, and of its settings
            load_weights(self.bare, initial.path / WEIGHTS)

    def train(self) -> Run:
        if (self.run.path / CHECKPOINT).exists():
            self._load()
        self.others.begin_alike(self.weights)
        if self.accelerator.is_main_process:
            self._trim_metrics()
        held_out, share = self.held_out, self.others.share(len(self.held_out.source))
        validation = tuple(t[share].to(self.device) for t in (held_out.source, held_out.target))
        self.model.train()
        with stop_requests() as stopping, shard_threads(self.shards):
            self._mark = time.perf_counter()
            while self.step < self.settings.max_steps:
                self.one_step()
                if (kept := self.settings.keep_checkpoints_every) and self.step % kept == 0:
                    self._keep()
                metrics = None
                if self.schedule.due(self.step):
                    metrics = self._measure(*validation)
                    if metrics.phase == "done":
                        break
                if self.others.any_asked(bool(stopping), self.step):
                    self._save()
                    # One that ended sooner would have the others ended before the checkpoint is whole.
                    self.accelerator.wait_for_everyone()
                    raise KeyboardInterrupt
                if self.step % self.settings.checkpoint_every == 0:
                    self._save()
        self.accelerator.wait_for_everyone()
        self._save()
        if self.accelerator.is_main_process:
            self.run.save_model(self.bare)
        self.accelerator.wait_for_everyone()
        raise_if_unfinished(self.run)
        return self.run

    def one_step(self) -> None:
        """One step; a loop of them belongs into `shard_threads`."""
        batch = self.batches.train(self.step)
        source = batch.source[self.rank_rows].to(self.device, non_blocking=True)
        target = batch.target[self.rank_rows].to(self.device, non_blocking=True)
        rate = self.schedule.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        plan = self.loss.plan_for(batch.layout, target)
        parts = (source, target)
        if self.bare.ids is not None:
            drawn = draw_positions(self.bare.ids.method, self.config, self.step, batch.layout)
            parts = (*parts, drawn[self.rank_rows].to(self.device))
        mean_loss = self.loss.of_problems(self.model, batch.layout, plan)
        # Accelerate's own calls would check for mixed precision and accumulation, a fiftieth of a step.
        count = self.settings.accumulate
        self.loss_sum += accumulated(mean_loss, parts, self.weights, self.shards, count)
        self.others.average(self.weights)
        self.optimizer.step()
        self.finite.add(self.loss_sum)
        self.loss_count += 1
        self.tokens += self.settings.batch_size * (target.shape[1] - 1)
        self.step += 1

    @torch.inference_mode()
    def _measure(self, source: Tensor, target: Tensor) -> Metrics:
        """Validation on this process's share, a row of metrics, and the schedule's decision."""
        now = time.perf_counter()
        spent = now - self._mark
        self.seconds += spent
        self.bare.eval()
        wanted = target[:, 1:]
        logits = self.loss.logits(self.bare, self.layout, source, target, self.plan)
        losses = F.cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
        right = ((logits.argmax(dim=-1) == wanted) | (wanted < 0)).all(dim=1).float().mean()
        self.bare.train()
        found = (right, losses.mean(), losses.max(), self.loss_sum / self.loss_count)
        # Every process decides on the same numbers: those of all.
        each = self.others.each(torch.stack([*found, right.new_tensor(len(source))]))
        of_all = each[:, 4] / each[:, 4].sum()
        exact, loss = (each[:, :2] * of_all[:, None]).sum(0).tolist()
        worst, mean_loss = each[:, 2].max().item(), each[:, 3].mean().item()
        self._check_finite(loss, worst, mean_loss)
        rate = self.optimizer.param_groups[0]["lr"]
        done = self.schedule.measured(self.step, exact, loss, worst)
        metrics = Metrics(
            step=self.step,
            loss=mean_loss,
            validation_loss=loss,
            worst_loss=worst,
            exact_match=exact,
            learning_rate=rate,
            seconds=round(self.seconds, 3),
            tokens_per_second=round(self.tokens / max(spent, 1e-9), 1),
            phase="done" if done else self.schedule.phase,
        )
        if self.accelerator.is_main_process:
            append_text(self.run.path / METRICS, json.dumps(asdict(metrics)) + "\n")
            self.on_progress(metrics)
        self.loss_sum.zero_()
        self.finite.restart()
        self.loss_count = self.tokens = 0
        self._mark = time.perf_counter()
        return metrics

    def _check_finite(self, *losses: float) -> None:
        """Stop where numbers are not finite; the last checkpoint, which is, stays."""
        self.finite.check(self.run, self.step, self.loss_count, self.weights.whole.detach(), losses)

    def _keep(self) -> None:
        """Keep the model so far, as a run folder."""
        if self.accelerator.is_main_process:
            self._check_finite()
            bias = self.run.bias
            drawn = bias if isinstance(bias, CalibratedBias | MatrixBias) else None
            folder = self.run.path / CHECKPOINTS / f"step-{self.step}"
            Run.create(folder, self.config, drawn).save_model(self.bare)
            thin_out(self.run, read_metrics(self.run), self.settings.keep_checkpoints)

    def _save(self) -> None:
        """Write a checkpoint: everything that the next step depends on, however many processes do it."""
        # Of all processes: on as many or on others, each goes on from the mean.
        loss_sum = cast(Tensor, reduce(self.loss_sum, reduction="mean"))
        if not self.accelerator.is_main_process:
            return
        self._check_finite()
        state = {
            "model": self.bare.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
            "step": self.step,
            "seconds": self.seconds + time.perf_counter() - self._mark,
            "cooling_since": self.schedule.cooling_since,
            "warming_since": self.schedule.warming_since,
            "cooldowns": self.schedule.cooldowns,
            "loss_sum": loss_sum,
            "loss_count": self.loss_count,
        }
        save_checkpoint(self.run, state)

    def _load(self) -> None:
        with taking_up(self.run) as state:
            self.bare.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["random"])
            if state["random_gpu"] is not None and self.device.type == "cuda":
                torch.cuda.set_rng_state(state["random_gpu"])
            self.step, self.seconds = state["step"], state["seconds"]
            self.schedule.cooling_since = state["cooling_since"]
            self.schedule.warming_since = state["warming_since"]
            self.schedule.cooldowns = state.get("cooldowns", 0)
            self.loss_sum.copy_(state["loss_sum"])
            self.loss_count = state["loss_count"]
            self.finite.restart(self.loss_count)

    def _trim_metrics(self) -> None:
        """Drop the rows of steps that will be done again, and a row cut off by a crash."""
        path = self.run.path / METRICS
        rows = [row for row in read_metrics(self.run) if row.step <= self.step]
        write_text(path, "".join(json.dumps(asdict(row)) + "\n" for row in rows))
