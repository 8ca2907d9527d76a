"""The searches of one training: when they are worth their time, and what an equal one found before."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.optim import Optimizer

import rootflow
from rootflow.discover.batch_size import BatchSizeReport, search_batch_size
from rootflow.discover.cache import Record, describe_code, describe_model, recall_or
from rootflow.discover.found import Found
from rootflow.discover.learning_rate import LrReport, search_lr
from rootflow.discover.memory import memory_of
from rootflow.discover.settings import DiscoverSettings, LrSettings
from rootflow.discover.trials import Trials
from rootflow.runs.text import format_duration
from rootflow.train.objective import shape_of

FEWEST_STEPS = 100
"""Updates below which no search for a learning rate is better than a rule."""
_OPEN_EPOCHS = 20
"""That a training of no set length is taken to last."""
_SHORT_OPERATIONS = 5e11
"""Of a whole training, below which a search would take as long as it: some seconds of one core."""

_Report = TypeVar("_Report", BatchSizeReport, LrReport)


@dataclass(frozen=True)
class LrBudget:
    """How many updates a search for the learning rate may take."""

    max_steps: int
    reason: str = ""
    """Why there is no search, where there is none."""


def lr_budget(
    settings: LrSettings, *, num_steps: int | None, steps_per_epoch: int | None, operations: float
) -> LrBudget:
    """Return how many updates a search may take: 3 % of the training's, of short ones up to 10 %.

    It counts updates and operations rather than time, so that the same experiment is searched everywhere or
    nowhere.

    Args:
        settings: its bound.
        num_steps: updates in the whole training; None where nobody knows.
        steps_per_epoch: updates in an epoch; None where nobody knows.
        operations: floating-point operations of an update; 0 where they can't be counted.
    """
    expected = num_steps or _OPEN_EPOCHS * (steps_per_epoch or 1_000)
    allowed = int(min(settings.max_steps, max(0.03 * expected, min(0.1 * expected, 250))))
    if 0 < operations * expected < _SHORT_OPERATIONS:
        return LrBudget(0, "no search for so short a training")
    if allowed < FEWEST_STEPS:
        return LrBudget(0, f"{allowed} updates are too few for a search")
    return LrBudget(allowed)


@dataclass(frozen=True)
class Searches:
    """Finds values by measuring, or takes those that an equal search found."""

    settings: DiscoverSettings
    about: Mapping[str, Any]
    """What the answers depend on beside model, optimizer and machine: the data, the task, the weights."""
    is_asked: bool = False
    """Whether somebody asked for the search itself: then it is made, and anew."""

    def batch_size(  # those of the search
        self,
        trials: Trials,
        batch: Any,
        *,
        wanted: int | None,
        num_samples: int,
        eval_batch: Any = None,
        is_timed: bool = False,
    ) -> BatchSizeReport:
        """Return a batch size, and how much of it goes through the model at once.

        Args:
            trials: of the training.
            batch: the largest of some.
            wanted: the batch size, where it is set.
            num_samples: in an epoch.
            eval_batch: of the evaluation.
            is_timed: time an update of the size wanted, too.

        Raises:
            RunError: one sample doesn't fit in the memory.
        """
        settings = self.settings
        about = {
            "batch_size": settings.batch_size,
            "micro_batch_size": settings.micro_batch_size,
            "wanted": wanted,
            "num_samples": num_samples,
            "batch": shape_of(batch),
            "eval_batch": shape_of(eval_batch),
            "is_timed": is_timed,
            "threads": torch.get_num_threads(),
        }
        device = trials.arithmetic.device
        return self._recalled_or(
            BatchSizeReport,
            trials,
            lambda: search_batch_size(
                trials,
                batch,
                wanted=wanted,
                num_samples=num_samples,
                batch_settings=settings.batch_size,
                micro_settings=settings.micro_batch_size,
                eval_batch=eval_batch,
                is_timed=is_timed,
            ),
            about,
            is_valid=lambda found: found.fits_in(memory_of(device).free_bytes()),
        )

    def lr(
        self, trials: Trials, train: Sequence[Any], held_out: Sequence[Any], *, max_steps: int
    ) -> LrReport:
        """Return a learning rate for the first parameter group; its suggestion is None if none was found.

        Args:
            trials: of the training, at its batch size.
            train: batches to train on.
            held_out: batches to judge by.
            max_steps: updates that it may take.
        """
        settings = self.settings.lr
        about = {
            "lr": settings,
            "max_steps": max_steps,
            "groups": _groups_of(trials.optimizers),
            "batches": [len(train), len(held_out), shape_of(train[0])],
        }
        return self._recalled_or(
            LrReport,
            trials,
            lambda: search_lr(trials, train, held_out, settings=settings, max_steps=max_steps),
            about,
        )

    def _recalled_or(
        self,
        kind: type[_Report],
        trials: Trials,
        search: Callable[[], _Report],
        about: Mapping[str, Any],
        *,
        is_valid: Callable[[_Report], bool] = lambda _: True,
    ) -> _Report:
        if not self.settings.cache or (dist.is_available() and dist.is_initialized()):
            return search()  # several processes that train together search together

        def holds(record: Record) -> bool:
            try:
                return not self.is_asked and is_valid(kind.from_record(record))
            except (KeyError, TypeError, AttributeError):  # of another version
                return False

        record, age_s = recall_or(
            lambda: search().record(),
            {**self._about(trials), **about},
            is_valid=holds,
            while_waiting=trials.leave_if_interrupted,
        )
        report = kind.from_record(record)
        if age_s is None:
            return report
        return dataclasses.replace(report, reason=f"{report.reason}; found {format_duration(age_s)} ago")

    def _about(self, trials: Trials) -> dict[str, Any]:
        """Return what every answer depends on: not the weights, the seed, or which of equal devices it is."""
        arithmetic = trials.arithmetic
        return {
            **self.about,
            "model": describe_model(trials.objective.model),
            "task": describe_code(type(trials.objective.task)),
            "optimizers": [
                [describe_code(type(o)), f"{type(o).__module__}.{type(o).__qualname__}", _settings_of(o)]
                for o in trials.optimizers
            ],
            "arithmetic": [str(arithmetic.dtype), arithmetic.channels_last],
            "update": [trials.grad_clip_norm, trials.micro_batch_size, trials.with_ema],
            "device": _device_name(arithmetic.device),
            "versions": [rootflow.__version__, torch.__version__],
        }


def _settings_of(optimizer: Optimizer) -> dict[str, str]:
    """Return an optimizer's settings but the learning rate, which is what is searched, or known by groups."""
    return {
        key: repr(value) for key, value in optimizer.defaults.items() if key not in ("lr", "weight_decay")
    }


def _groups_of(optimizers: Sequence[Optimizer]) -> list[dict[str, Any]]:
    """Return the settings of parameter groups; of the parameters their number only."""
    return [
        {key: len(value) if key == "params" else repr(value) for key, value in group.items()}
        for optimizer in optimizers
        for group in optimizer.param_groups
    ]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} of {platform.node()}"


def as_found(report: LrReport, rule: Found) -> Found:
    """Return the learning rate of a search, or that of the rule where it has none."""
    if report.suggestion is None:
        return Found(rule.value, f"{rule.reason}; {report.reason}")
    return Found(report.suggestion, report.reason)
