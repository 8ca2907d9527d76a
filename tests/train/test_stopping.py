"""Early stopping as somebody else's loop would use it."""

from __future__ import annotations

import math

from rootflow.train.stopping import EarlyStopping


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
