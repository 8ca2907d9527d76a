"""Early stopping as somebody else's loop would use it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rootflow.checkpoint import Checkpoints
from rootflow.train.hooks import EvaluationReport
from rootflow.train.stopping import EarlyStopping
from rootflow.train.trainer import FitResult, Trainer

UP, DOWN = {"higher_is_better": True}, {"higher_is_better": False}
NAN, INF = math.nan, math.inf

SEQUENCES: dict[str, tuple[dict[str, Any], list[float], int | None, float]] = {
    "one evaluation of patience": ({**UP, "patience": 1}, [1, 2, 1, 5], 3, 2),
    "three, where lower is better": ({**DOWN, "patience": 3}, [5, 4, 4.5, 4.2, 4.1], 5, 4),
    "patience begins anew at each gain": ({**UP, "patience": 2}, [1, 0.5, 2, 1, 3, 2, 2], 7, 3),
    "an equal value is no gain": ({**UP, "patience": 2}, [1, 1, 1], 3, 1),
    "no patience never stops": ({**DOWN, "patience": None}, [1, 2, 3, 4, 5, 6], None, 1),
    "a gain that is too small is none": (
        {**UP, "patience": 3, "min_gain_frac": 0.1}, [1, 1.05, 1.09, 1.2, 1.21, 1.22, 1.23], 7, 1.23
    ),
    "small gains add up": ({**UP, "patience": 3, "min_gain_frac": 0.1}, [1, 1.04, 1.08, 1.12, 1.12], None, 1.12),
    "a share of a value below zero": ({**DOWN, "patience": 2, "min_gain_frac": 0.1}, [-1, -1.05, -1.09], 3, -1.09),
    "patience grows to half of the evaluations": (
        {**UP, "patience": 1, "patience_frac": 0.5}, [1, 2, 3, 4, 4, 4, 4, 4], 8, 4
    ),
    "before it has grown the least patience holds": (
        {**UP, "patience": 2, "patience_frac": 0.5}, [4, 3, 2], 3, 4
    ),
    "nothing finite is a gain": ({**DOWN, "patience": 2}, [2, NAN, -INF], 3, 2),
    "nothing finite at first": ({**UP, "patience": 2}, [NAN, 3, NAN, INF], 4, 3),
}  # fmt: skip


def test_the_best_value_is_remembered_in_either_direction() -> None:
    up, down = EarlyStopping(higher_is_better=True), EarlyStopping(higher_is_better=False)
    assert [up.update(v) for v in (0.1, 0.3, 0.2, 0.3)] == [True, True, False, True]
    assert [down.update(v) for v in (0.5, 0.7, 0.4)] == [True, False, True]
    assert (up.best, down.best) == (0.3, 0.4)


def test_it_stops_when_patience_has_run_out_and_not_before() -> None:
    stopping = EarlyStopping(patience=2)
    stops = []
    for value in (0.5, 0.4, 0.6, 0.6, 0.5):
        stopping.update(value)
        stops.append(stopping.should_stop)
    assert stops == [False, False, False, False, True]


def test_a_value_that_is_not_finite_is_never_the_best() -> None:
    stopping = EarlyStopping(higher_is_better=False)
    assert not stopping.update(math.nan)
    assert not stopping.update(-math.inf)
    assert stopping.update(3.0)
    assert not stopping.update(math.nan)
    assert stopping.best == 3.0


def stop_and_best(
    settings: dict[str, Any], values: list[float], *, resume_at: int = 0
) -> tuple[int | None, float | None]:
    """Return after which evaluation it stops, and the best value; it is saved and restored before one of them."""
    stopping = EarlyStopping(**settings)
    for number, value in enumerate(values, start=1):
        if number == resume_at:
            saved = json.loads(json.dumps(stopping.state_dict()))
            stopping = EarlyStopping(**settings)
            stopping.load_state_dict(saved)
        stopping.update(value)
        if stopping.should_stop:
            return number, stopping.best
    return None, stopping.best


@pytest.mark.parametrize("name", SEQUENCES)
def test_each_sequence_stops_where_it_should_also_if_it_is_resumed_anywhere(name: str) -> None:
    settings, values, stop, best = SEQUENCES[name]
    for resume_at in range(len(values) + 1):
        assert stop_and_best(settings, values, resume_at=resume_at) == (stop, best)


class InterruptAfter:
    """Ends the training in an update of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.seen: list[tuple[int, bool]] = []

    def on_post_performance_check(self, report: EvaluationReport) -> None:
        self.seen.append((report.epoch, report.is_best))

    def on_batch_start(self) -> None:
        if self.seen and self.seen[-1][0] == self.epoch:
            raise KeyboardInterrupt


def train(hook: InterruptAfter, **given: Any) -> FitResult:
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    inputs = torch.ones(4, 2)
    data = (inputs, inputs.sum(dim=1, keepdim=True))
    trainer = Trainer(
        max_epochs=50, patience=3, save_every="1 steps", device="cpu", precision="fp32", batch_size=4
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=3.0)  # diverges: the first evaluation is the best
    return trainer.fit(model, data, data, loss="mse_loss", optimizer=optimizer, hooks=[hook], **given)


def test_a_resumed_training_has_as_much_patience_left_as_one_that_never_stopped(tmp_path: Path) -> None:
    whole, first, rest = InterruptAfter(0), InterruptAfter(2), InterruptAfter(0)
    expected = train(whole)
    assert (expected.epoch, expected.stop_reason) == (4, "no improvement in 3 evaluations")
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(first, checkpoints=checkpoints)
    result = train(rest, resume=checkpoints.load())
    assert (result.epoch, result.stop_reason, result.best) == (4, expected.stop_reason, expected.best)
    assert whole.seen == [(1, True), (2, False), (3, False), (4, False)]
    assert rest.seen == whole.seen[-len(rest.seen) :]
