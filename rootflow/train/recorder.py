"""Writes what happens in a training to the run folder, to W&B and to the console."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from rootflow.tracking.console import Console
from rootflow.tracking.process_clock import process_age_s
from rootflow.tracking.run_folder import RunFolder
from rootflow.tracking.wandb_mirror import WandbMirror
from rootflow.train.hooks import EvaluationReport
from rootflow.train.loop import StepReport
from rootflow.train.trainer import FitResult, Trainer


class Recorder:
    """The hooks of a recorded run, and its last words.

    Args:
        folder: the open run folder.
        mirror: W&B, or whatever stands for it.
        console: what the terminal shows.
        trainer: how often to log, and how long the training is.
        steps_per_epoch: updates of a whole epoch.
        started_s: the age of the process when the run began, in seconds; 0 for its only run.
    """

    def __init__(
        self,
        folder: RunFolder,
        mirror: WandbMirror,
        console: Console,
        trainer: Trainer,
        *,
        steps_per_epoch: int,
        started_s: float = 0.0,
    ) -> None:
        self._folder = folder
        self._mirror = mirror
        self._console = console
        self._log_every = trainer.log_every
        self._max_epochs = _max_epochs(trainer, steps_per_epoch)
        self._steps_per_epoch = min(steps_per_epoch, trainer.num_steps(steps_per_epoch) or steps_per_epoch)
        self._loss = math.nan
        self._lr = 0.0
        self._num_samples = 0
        self._counted_from_s = time.monotonic()
        self._timing: dict[str, float] = {}
        self._started_s = started_s
        self._first_step_s = self._last_step_s = 0.0

    def on_step(self, report: StepReport) -> None:
        """Show the progress; every `log_every` updates, log a row."""
        self._last_step_s = process_age_s()
        if not self._timing:
            self._first_step_s = self._last_step_s
            self._timing["to_first_step_s"] = round(self._last_step_s - self._started_s, 2)
        self._num_samples += report.num_samples
        self._lr = report.lr
        if report.step % self._log_every == 0:
            self._loss = float(report.loss)
            row = {"train/loss_step": self._loss, "optim/lr": report.lr, "perf/samples_per_s": self._rate()}
            self._log(row, report.step, report.epoch)
        self._console.progress(
            report.epoch,
            self._max_epochs,
            step=(report.step - 1) % self._steps_per_epoch + 1,
            steps_per_epoch=self._steps_per_epoch,
            loss=self._loss,
            batch_size=report.num_samples,
        )

    def on_evaluation(self, report: EvaluationReport) -> None:
        """Log the metrics of an epoch, and make them the run's last and perhaps its best."""
        self._log(report.metrics, report.step, report.epoch)
        stamped = {**report.metrics, "step": report.step, "epoch": report.epoch}
        progress = {"step": report.step, "epoch": report.epoch}
        if report.is_best:
            best = {**stamped, "monitor": report.monitor}
            self._folder.update(progress=progress, last=stamped, best=best)
        else:
            self._folder.update(progress=progress, last=stamped)
        metrics = {**report.metrics, "lr": self._lr}
        self._console.epoch(report.epoch, self._max_epochs, metrics=metrics, seconds=report.elapsed_s)
        self._rate()

    def end(self, fit: FitResult, test: Mapping[str, float]) -> None:
        """Record how the training ended, and say it."""
        now_s = process_age_s()
        self._timing["training_s"] = round(self._last_step_s - self._first_step_s, 2)
        self._timing["after_last_step_s"] = round(now_s - self._last_step_s, 2)
        best = {f"best/{name}": value for name, value in fit.best.items()}
        discovered = self._folder.summary.get("discovered", {})
        found = {f"discovered/{key}": found["value"] for key, found in discovered.items()}
        self._mirror.summary({**found, **best, **test})
        self._folder.update(test=dict(test), timing=dict(self._timing))
        self._folder.finish(stop_reason=fit.stop_reason)
        metrics = {k: v for k, v in {**fit.best, **test}.items() if k.startswith(("val/", "test/"))}
        figures = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        best_epoch = f"best at epoch {fit.best['epoch']}" if fit.best else "no evaluation was finite"
        self._console.line(f"{fit.stop_reason}; {best_epoch}  {figures}")
        self._console.line(
            "time {to_first_step_s:.1f} s to the first step, {training_s:.1f} s of training, "
            "{after_last_step_s:.1f} s after the last step".format(**self._timing)
        )

    def _rate(self) -> float:
        """Return samples a second since the last call, and start counting anew."""
        now_s = time.monotonic()
        rate = self._num_samples / max(now_s - self._counted_from_s, 1e-9)
        self._num_samples, self._counted_from_s = 0, now_s
        return round(rate, 1)

    def _log(self, metrics: Mapping[str, float], step: int, epoch: int) -> None:
        row: dict[str, Any] = {"step": step, "epoch": epoch, **metrics}
        self._folder.log(row)
        self._mirror.log(row)


def _max_epochs(trainer: Trainer, steps_per_epoch: int) -> int | None:
    num_steps = trainer.num_steps(steps_per_epoch)
    return None if num_steps is None else math.ceil(num_steps / steps_per_epoch)
