"""What is found by running updates of the training itself: its sizes, its workers, its learning rate.

Everything is as it was afterwards, to the bit; only the values stay.
"""

from __future__ import annotations

import dataclasses

from rootflow.assemble.data import Loading
from rootflow.assemble.training import Training
from rootflow.data.foreign import ForeignLoader
from rootflow.data.loaders import TensorLoader
from rootflow.discover.batch_size import BatchSizeReport, batch_size_by_data
from rootflow.discover.batches import draw_batches, largest_of, resized
from rootflow.discover.found import Found
from rootflow.discover.learning_rate import split_held_out
from rootflow.discover.pins import Pins
from rootflow.discover.search import LrBudget, Searches, as_found, lr_budget
from rootflow.discover.threads import count_operations
from rootflow.discover.trials import Trials
from rootflow.errors import DataError
from rootflow.train.objective import Objective, count_samples, take_part

_BACKWARD = 3
"""Operations of an update over those of its forward pass: the backward pass takes twice as many."""
_DRAWN = 8
"""Batches of which the largest is measured with, where they differ in size."""
_MOST_DRAWN = 256
"""Batches that a learning rate is tried on; then they come again."""
_UPDATES_PER_SCORED = 20
"""Of a search, for each batch that its trainings are judged by: judging must not take longer than they do."""
_COUNTED = 32
"""Samples whose operations are counted; more of them might not fit at once."""


def settle_sizes(made: Training, loading: Loading, searches: Searches, pins: Pins) -> None:
    """Find the batch size and the micro batch size where they are `auto`, and then how many workers read.

    Data that the model brings itself, and a trainer of the user's own, have sizes of their own: for those,
    the rule.
    """
    trainer, num_train = made.trainer, loading.facts.num_train
    batch_size, micro = trainer.batch_size, trainer.micro_batch_size
    seconds_per_update = None
    report = _search_sizes(made, loading, searches) if "auto" in (batch_size, micro) else None
    if report is not None:
        seconds_per_update = report.seconds_per_update
        by_size = Found(report.suggestion, report.reason)
        by_memory = Found(report.micro_batch_size, report.micro_reason)
        if len(report.curve) > 1:  # else one size was run, to see that it fits
            pins.keep("batch_size", report)
    else:
        by_size = _size_without_search(made, num_train, searches)
        by_memory = Found(by_size.value if batch_size == "auto" else batch_size, "the whole batch at once")
    if batch_size == "auto":
        batch_size = pins.pin("trainer.batch_size", by_size)
    if micro == "auto":
        micro = pins.pin("trainer.micro_batch_size", by_memory)
    made.trainer = dataclasses.replace(trainer, batch_size=batch_size, micro_batch_size=micro)
    loading.decide_workers(int(batch_size), seconds_per_update=seconds_per_update)
    loading.resize(made, int(batch_size), at_once=int(micro))


def settle_lr(made: Training, rule: Found, searches: Searches, pins: Pins) -> float:
    """Find the learning rate; return it.

    Args:
        made: all but the scheduler; its optimizer has the rule's learning rate.
        rule: what it is without a search.
        searches: how it is searched.
        pins: takes it.
    """
    if searches.settings.lr.method == "rule" or not _can_be_tried(made):
        return float(pins.pin("optimizer.lr", rule))
    budget = budget_of(made, searches)
    max_steps = budget.max_steps or (searches.settings.lr.max_steps if searches.is_asked else 0)
    if not max_steps:
        return float(pins.pin("optimizer.lr", Found(rule.value, f"{rule.reason}; {budget.reason}")))
    batches = draw_batches(made.train, max_batches=_MOST_DRAWN)
    if len(batches) == 1:
        return float(pins.pin("optimizer.lr", Found(rule.value, f"{rule.reason}; one batch is all the data")))
    train, held_out = split_held_out(batches, most=max(max_steps // _UPDATES_PER_SCORED, 1))
    with trials_of(made) as trials:
        report = searches.lr(trials, train, held_out, max_steps=max_steps)
    pins.keep("learning_rate", report)
    if report.suggestion is None:
        pins.say(f"warning: no learning rate was found, the rule decides; {report.reason}")
    return float(pins.pin("optimizer.lr", as_found(report, rule)))


def budget_of(made: Training, searches: Searches) -> LrBudget:
    """Return how many updates a search for the learning rate may take; none for a short training."""
    limits = made.trainer.limits(made.train)
    (batch,) = draw_batches(made.train, max_batches=1)
    size = count_samples(batch)
    part = min(size, _COUNTED)
    counted = count_operations(Objective(made.model, made.task), take_part(batch, 0, part, size))
    return lr_budget(
        searches.settings.lr,
        num_steps=limits.num_steps,
        steps_per_epoch=limits.steps_per_epoch,
        operations=_BACKWARD * counted * size / part,
    )


def trials_of(made: Training) -> Trials:
    """Return trials of a training's updates."""
    trainer = made.trainer
    assert made.optimizer is not None
    return Trials(
        made.model,
        made.task,
        [made.optimizer],
        arithmetic=trainer.arithmetic(made.model),
        grad_clip_norm=trainer.grad_clip_norm,
        micro_batch_size=None if trainer.micro_batch_size == "auto" else trainer.micro_batch_size,
        with_ema=trainer.is_open or trainer.ema_decay not in (None, "auto"),
    )


def _size_without_search(made: Training, num_train: int, searches: Searches) -> Found:
    """Return the size of the model's own batches, or one by the rule."""
    if "train" in made.own_data and made.train.batch_size is not None:
        return Found(made.train.batch_size, "of its own data")
    return batch_size_by_data(num_train, searches.settings.batch_size)


def _can_be_tried(made: Training) -> bool:
    """Whether a training's own updates can be run beforehand, on data that is there for the training, too."""
    is_used_up = isinstance(made.train, ForeignLoader) and made.train.is_one_pass
    return made.own_trainer is None and made.optimizer is not None and not is_used_up


def _search_sizes(made: Training, loading: Loading, searches: Searches) -> BatchSizeReport | None:
    """Search for sizes; None where the training can't be tried, or its batches can't be made larger."""
    if not _can_be_tried(made) or "train" in made.own_data:
        return None
    is_even = isinstance(made.train, TensorLoader)  # all its samples are of one size
    batch = largest_of(draw_batches(made.train, max_batches=1 if is_even else _DRAWN))
    eval_batch = None
    if made.val is not None and "val" not in made.own_data:
        (eval_batch,) = draw_batches(made.val, max_batches=1)
    wanted = made.trainer.batch_size
    if wanted == "auto" and not searches.is_asked and not budget_of(made, searches).max_steps:
        wanted = batch_size_by_data(loading.facts.num_train, searches.settings.batch_size).value
    with trials_of(made) as trials:
        try:
            resized(batch, 1)
        except DataError:
            return None
        report = searches.batch_size(
            trials,
            batch,
            wanted=None if wanted == "auto" else wanted,
            num_samples=loading.facts.num_train,
            eval_batch=eval_batch,
            is_timed=loading.wants_workers,
        )
    if made.trainer.batch_size == "auto" and wanted != "auto":
        by_data = batch_size_by_data(loading.facts.num_train, searches.settings.batch_size)
        report = dataclasses.replace(report, reason=by_data.reason)
    return report
