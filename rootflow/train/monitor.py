"""Which number says how good a model is, and which of its directions is the better one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from torch import nn

from rootflow.errors import ConfigError, RunError, did_you_mean
from rootflow.tasks import Task
from rootflow.train.methods import method_of

_HIGHER = re.compile(
    r"acc|f1|auc|auroc|precision|recall|r2|iou|dice|bleu|rouge|top\d|psnr|ssim|score|reward|map\b"
)
_LOWER = re.compile(r"loss|error|err\b|mse|mae|rmse|perplexity|ppl|nll|bce|entropy|fid|wer|cer")

Mode = Literal["auto", "min", "max"]


def find_monitor(setting: str, task: Task | None, *, model: nn.Module, has_val: bool) -> str | None:
    """Return the metric to monitor; None where only the first evaluation can tell.

    Args:
        setting: `auto`, or a metric.
        task: has one of its own.
        model: may measure for itself, and then whatever it likes.
        has_val: whether there is data to evaluate on.
    """
    if setting != "auto":
        return setting
    if not has_val:
        return "train/loss"
    if any(
        method_of(model, name) for name in ("validation_step", "check_performance", "training_step", "loss")
    ):
        return None
    return "val/loss" if task is None else task.monitor


def find_direction(
    setting: str, mode: Mode, task: Task | None, *, model: nn.Module, has_val: bool
) -> tuple[str | None, bool]:
    """Return the metric to monitor, see `find_monitor`, and whether more of it is better."""
    monitor = find_monitor(setting, task, model=model, has_val=has_val)
    return monitor, monitor is not None and is_higher_better(monitor, mode, task)


def choose_monitor(metrics: Iterable[str], task: Task | None) -> str:
    """Return the metric to monitor out of those that a model's own validation measured.

    Raises:
        RunError: there is none.
    """
    measured = [name for name in metrics if name.startswith("val/")]
    wanted = [name for name in (task.monitor if task else "", "val/loss") if name in measured]
    if not (wanted or measured):
        raise RunError("the validation measured nothing.")
    return (wanted or measured)[0]


def is_higher_better(monitor: str, mode: Mode, task: Task | None) -> bool:
    """Return whether a higher value of a metric is the better one.

    Raises:
        ConfigError: the mode contradicts the metric's name.
    """
    name = monitor.rpartition("/")[2].lower()
    by_name = None if not (_HIGHER.search(name) or _LOWER.search(name)) else not _LOWER.search(name)
    known = task.higher_is_better if task is not None and task.monitor == monitor else by_name
    if mode == "auto":
        return bool(known)
    if known is not None and known != (mode == "max"):
        raise ConfigError(
            f"trainer.monitor_mode is {mode!r}, but of {monitor!r} the "
            f"{'higher' if known else 'lower'} value is the better one; leave it at auto."
        )
    return mode == "max"


def check_measured(monitor: str, metrics: Iterable[str]) -> None:
    """Check that the monitored metric was measured.

    Raises:
        RunError: it was not; lists what was.
    """
    names = list(metrics)
    if monitor not in names:
        raise RunError(
            f"{monitor!r} is monitored, but only {', '.join(names)} were measured."
            f"{did_you_mean(monitor, names)} Set trainer.monitor."
        )
