"""Writes what happens in a training to the run folder, to W&B and to the console."""

from __future__ import annotations

import dataclasses
import math
import numbers
import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rootflow.runs.record import RunFields
from rootflow.tracking.console import Console
from rootflow.tracking.process_clock import process_age_s
from rootflow.tracking.run_folder import RunFolder
from rootflow.tracking.wandb_mirror import WandbMirror
from rootflow.train.hooks import Adjustment, EvaluationReport
from rootflow.train.loop import StepReport
from rootflow.train.session import Session
from rootflow.train.trainer import FitResult

_SHOW_EVERY_S = 0.05
"""Between two looks at the console; what it shows changes a few times a second at most."""
_MIRROR_EVERY_S = 0.5
"""Between two rows of training metrics on W&B, whose client stops the training for 0.6 ms at each."""


class Recorder:
    """The hook of a recorded run, and its last words.

    Args:
        folder: the open run folder.
        mirror: W&B, or whatever stands for it.
        console: what the terminal shows.
        log_every: updates between two rows of training metrics.
        started_s: the age of the process when the run began, in seconds; 0 for its only run.
    """

    def __init__(
        self,
        folder: RunFolder,
        mirror: WandbMirror,
        console: Console,
        *,
        log_every: int,
        started_s: float = 0.0,
    ) -> None:
        self._folder = folder
        self._mirror = mirror
        self._console = console
        self._log_every = log_every
        self._max_epochs: int | None = None
        self._steps_per_epoch: int | None = None
        self._epoch_began_at = 0
        self._loss = math.nan
        self._lr = 0.0
        self._num_samples = 0
        self._counted_from_s = self._shown_s = time.monotonic()
        self._mirrored_s = -math.inf
        self._timing: dict[str, float] = {}
        self._started_s = started_s
        self._first_step_s = self._last_step_s = 0.0

    def on_run_start(self, session: Session) -> None:
        """Learn how long the training is."""
        limits = session.limits
        self._steps_per_epoch = limits.steps_per_epoch
        if limits.num_steps is not None and limits.steps_per_epoch is not None:
            self._max_epochs = math.ceil(limits.num_steps / limits.steps_per_epoch)
            self._steps_per_epoch = min(limits.steps_per_epoch, limits.num_steps)
        self._epoch_began_at = session.state.step - session.state.position.batch
        self._counted_from_s = time.monotonic()

    def on_epoch_start(self, session: Session) -> None:
        """Start counting the updates of the epoch."""
        self._epoch_began_at = session.step - session.state.position.batch

    def on_batch_end(self, report: StepReport) -> None:
        """Show the progress; every `log_every` updates, log a row, of which W&B gets two a second at most."""
        if not self._timing:
            self._first_step_s = process_age_s()
            self._timing["to_first_step_s"] = round(self._first_step_s - self._started_s, 2)
        self._num_samples += report.num_samples
        self._lr = report.lr
        if report.step % self._log_every == 0:
            self._log_step(report)
        now_s = time.monotonic()
        if now_s - self._shown_s > _SHOW_EVERY_S:
            self._show(report)
            self._shown_s = now_s

    def on_post_performance_check(self, report: EvaluationReport) -> None:
        """Log the metrics of an evaluation, and make them the run's last and perhaps its best."""
        self._log(report.metrics, report.step, report.epoch)
        stamped = {**report.metrics, "step": report.step, "epoch": report.epoch}
        progress = {"step": report.step, "epoch": report.epoch}
        if report.is_best:
            best = {**stamped, "monitor": report.monitor, "weights": report.weights}
            self._folder.update(progress=progress, last=stamped, best=best)
        else:
            self._folder.update(progress=progress, last=stamped)
        metrics = {**report.metrics, "lr": self._lr}
        self._console.epoch(report.epoch, self._max_epochs, metrics=metrics, seconds=report.elapsed_s)
        self._rate()

    def on_adjustment(self, adjustment: Adjustment) -> None:
        """Say and record what a training changed by itself; a resume begins with its micro batch."""
        line = f"step {adjustment.step}: {adjustment.reason}"
        self._console.line(line)
        summary, key = self._folder.summary, adjustment.key
        fields: RunFields = {
            "adjustments": [*summary.get("adjustments", []), dataclasses.asdict(adjustment)],
        }
        if key == "trainer.micro_batch_size":
            found = {"value": adjustment.new, "reason": line}
            fields["discovered"] = {**summary.get("discovered", {}), key: found}
        self._folder.update(**fields)
        self._mirror.summary({f"adjusted/{key}": adjustment.new})

    def on_pre_checkpoint(self) -> None:
        """Make sure that the rows which the checkpoint will count are on the disk."""
        self._folder.sync_metrics()

    def log(self, metrics: Mapping[str, Any], step: int, epoch: int = 0) -> None:
        """Log one row; for a trainer of the user's own."""
        row = {name: shown for name, value in metrics.items() if (shown := _shown(value)) is not None}
        self._log(row, step, epoch)

    def end(self, fit: FitResult, test: Mapping[str, float]) -> None:
        """Record how the training ended, and say it."""
        now_s = process_age_s()
        last_step_s = self._last_step_s or now_s
        self._timing.setdefault("to_first_step_s", round(now_s - self._started_s, 2))
        self._timing["training_s"] = round(max(last_step_s - (self._first_step_s or now_s), 0.0), 2)
        self._timing["after_last_step_s"] = round(now_s - last_step_s, 2)
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
        if fit.num_skipped:
            self._console.line(
                f"{fit.num_skipped} updates had gradients that were not finite, and were skipped"
            )
        self._console.line(
            "time {to_first_step_s:.1f} s to the first step, {training_s:.1f} s of training, "
            "{after_last_step_s:.1f} s after the last step".format(**self._timing)
        )

    def on_run_end(self) -> None:
        """Note when the training ended."""
        self._last_step_s = process_age_s()

    def state_dict(self) -> dict[str, Any]:
        """Return how much of metrics.jsonl is of the updates so far."""
        return {"metrics_bytes": self._folder.metrics_bytes()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take rows of later updates out of metrics.jsonl; `RunFolder.resume` has done so already."""
        self._folder.cut_metrics(state["metrics_bytes"])

    def _log_step(self, report: StepReport) -> None:
        self._loss = float(report.loss)
        row: dict[str, Any] = {
            "step": report.step,
            "epoch": report.epoch,
            "train/loss_step": self._loss,
            "optim/lr": report.lr,
        }
        for name, value in report.logs.items():
            if (shown := _shown(value)) is not None:
                row[f"train/{name}"] = shown
        timing = {"perf/samples_per_s": self._rate()}
        self._folder.log(row, timing=timing)
        if self._counted_from_s - self._mirrored_s >= _MIRROR_EVERY_S:
            self._mirrored_s = self._counted_from_s
            self._mirror.log(row | timing)

    def _show(self, report: StepReport) -> None:
        done = report.step - self._epoch_began_at
        self._console.progress(
            report.epoch,
            self._max_epochs,
            step=done,
            steps_per_epoch=self._steps_per_epoch or done,
            loss=self._loss,
            batch_size=report.num_samples,
        )

    def _rate(self) -> float:
        """Return samples a second since the last call, and start counting anew."""
        now_s = time.monotonic()
        rate = self._num_samples / max(now_s - self._counted_from_s, 1e-9)
        self._num_samples, self._counted_from_s = 0, now_s
        return round(rate, 1)

    def _log(self, metrics: Mapping[str, Any], step: int, epoch: int) -> None:
        row: dict[str, Any] = {"step": step, "epoch": epoch, **metrics}
        self._folder.log(row)
        self._mirror.log(row)


def _shown(value: Any) -> float | str | None:
    """Return what a row can hold of something that a model's step logged."""
    if isinstance(value, Tensor):
        return float(value.item()) if value.numel() == 1 else None
    if isinstance(value, bool | str):
        return value
    return float(value) if isinstance(value, numbers.Real) else None
