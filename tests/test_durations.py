"""Durations: their one spelling, and how many updates each is."""

from __future__ import annotations

import pytest

from rootflow.durations import count_steps, read_span
from rootflow.errors import ConfigError
from rootflow.limits import Unit


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        ("500 steps", 500),
        ("1 step", 1),
        ("7", 7),
        ("2 epochs", 160),
        ("0.5 epochs", 40),
        ("5%", 160),
        ("100%", 3200),
        ("0 steps", 0),
    ],
)
def test_a_duration_is_a_number_of_updates(duration: str, steps: float) -> None:
    assert count_steps(duration, key="warmup", steps_per_epoch=80, total_steps=3200) == steps


def test_a_share_of_few_updates_is_a_part_of_one() -> None:
    assert count_steps("5%", key="warmup", steps_per_epoch=10, total_steps=10) == 0.5


def test_only_a_share_needs_the_length_of_the_training() -> None:
    counted = [
        count_steps(duration, key="warmup", steps_per_epoch=80, total_steps=None)
        for duration in ("3 steps", "2 epochs")
    ]
    assert counted == [3, 160]
    with pytest.raises(ConfigError) as caught:
        count_steps("5%", key="scheduler.warmup", steps_per_epoch=80, total_steps=None)
    assert str(caught.value) == (
        "scheduler.warmup is '5%', a share of the training, whose length is not known. Give it in steps or "
        "epochs, as in '500 steps', or give trainer.max_epochs or trainer.max_steps."
    )


def test_epochs_of_data_without_a_length_are_refused() -> None:
    assert count_steps("3 steps", key="warmup", steps_per_epoch=None, total_steps=None) == 3
    assert count_steps("50%", key="warmup", steps_per_epoch=None, total_steps=10) == 5
    with pytest.raises(ConfigError) as caught:
        count_steps("2 epochs", key="scheduler.warmup", steps_per_epoch=None, total_steps=10)
    assert str(caught.value) == (
        "scheduler.warmup is '2 epochs', but the training data has no length, so nobody knows how many updates "
        "an epoch has. Give it in steps, as in '500 steps'."
    )


def test_what_is_no_duration_is_told_with_what_is() -> None:
    with pytest.raises(ConfigError) as caught:
        count_steps("5 min", key="scheduler.warmup", steps_per_epoch=80, total_steps=3200)
    assert str(caught.value) == (
        "scheduler.warmup is '5 min'; it must be a duration like '500 steps', '2 epochs' or '5%'."
    )


@pytest.mark.parametrize(
    ("given", "spelt"),
    [("1 steps", "1 step"), ("1 epochs", "1 epoch"), ("5.0%", "5%"), ("1e-4%", "0.0001%"), (0, "0 steps")],
)
def test_a_duration_has_one_spelling(given: str | int, spelt: str) -> None:
    assert str(read_span(given)) == spelt
    assert read_span(spelt) == read_span(given)


def test_which_units_there_are_is_up_to_the_parameter() -> None:
    units = (Unit("batches"), Unit("s"))
    assert [str(read_span(text, units)) for text in ("1 batch", "3", "2 min")] == [
        "1 batch",
        "3 batches",
        "120 s",
    ]
    with pytest.raises(ValueError, match=r"'2 epochs' is not a duration like '2 batches' or '90 s'"):
        read_span("2 epochs", units)
