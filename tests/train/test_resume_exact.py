"""A training that was stopped and resumed is, bit for bit, the one that never stopped."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rootflow.checkpoint import Checkpoint, Checkpoints
from rootflow.train.loop import StepReport
from tests.train.exactness import Case, Counting, KilledError, Outcome, Stop, Training

ROOT = Path(__file__).parents[2]

IN_AN_EPOCH_OF_6 = (
    "step 1",  # also inside the warm-up, which ends at step 1.2
    "step 10",
    "step 12",
    "step 13",
    "in evaluation 2",
    "after evaluation 2",
    "saved after epoch 2",
)
PLAIN = [
    Case(ema_decay=ema, micro_batch_size=micro) for ema, micro in itertools.product((None, 0.9), ("auto", 5))
]
OTHER_DATA = [
    Case("tensors", micro_batch_size=5),
    Case("ready", ema_decay=0.9),
    Case("own", eval_every="4 steps"),
    Case("unknown"),
]
WITHIN = Case(eval_every="3 steps", ema_decay=0.9)
OPEN = Case(max_epochs="auto", patience=2, ema_decay="auto")
PATIENT = Case(max_epochs=12, patience=3, scheduler=None)
PATIENT_WITHIN = replace(PATIENT, eval_every="4 steps")
SKIPPING = Case(bad_steps=(3, 8, 9, 10), max_lr_halvings=0)
BLOWN_UP = Case(max_epochs=8, blown_up=(15,))  # which is seen at step 34, and undone from step 12 on
BLOWN_UP_TWICE = Case(max_epochs=8, blown_up=(15, 21), max_lr_halvings=1)
COMPILED = Case(is_compiled_later=True)

STOPS = [
    *itertools.product(PLAIN, IN_AN_EPOCH_OF_6),
    *itertools.product(OTHER_DATA, ("step 10", "in evaluation 2", "saved after epoch 2")),
    *itertools.product(
        [WITHIN], ("step 9", "in evaluation 3", "after evaluation 3", "saved after evaluation 3")
    ),
    *itertools.product([OPEN], ("step 8", "after evaluation 3", "step 20", "in evaluation 4")),
    *itertools.product([PATIENT], ("step 10", "after evaluation 8")),
    (PATIENT_WITHIN, "step 13"),
    (SKIPPING, "step 9"),
    (BLOWN_UP, "after evaluation 2"),
    (BLOWN_UP, "after evaluation 6"),
    (Case(optimizer="sgd"), "step 10"),
    (Case(optimizer="LBFGS", max_lr_halvings=0), "step 10"),
    (COMPILED, "step 10"),
]
WITH_WORKERS = [
    (Case(ema_decay=0.9, micro_batch_size=5, num_workers=2), "step 10"),
    (Case(num_workers=2), "step 12"),
    (Case(num_workers=2), "in evaluation 2"),
    (Case("ready", num_workers=2), "step 10"),
    (Case("own", num_workers=2), "step 14"),
]

Whole = Callable[[Case], Outcome]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The outcome of a training that never stopped."""

    @functools.cache
    def of(case: Case) -> Outcome:
        return Training(case, tmp_path_factory.mktemp("whole")).begin()

    return of


def joined(*parts: Outcome) -> Outcome:
    """What a training was that several processes shared."""
    return replace(parts[-1], log=[line for part in parts for line in part.log])


@pytest.mark.parametrize(("case", "moment"), [*STOPS, *WITH_WORKERS], ids=str)
def test_resuming_gives_what_never_stopping_gives(
    case: Case, moment: str, whole: Whole, tmp_path: Path
) -> None:
    stopped = Training(case, tmp_path, [Stop(moment)]).begin()
    assert stopped.result in ("SystemExit(143)", "KilledError()")
    resumed = Training(case, tmp_path).resume()
    assert len(resumed.log) > 1
    assert joined(stopped, resumed) == whole(case)


def test_what_stops_are_about_is_there_at_them(tmp_path: Path) -> None:
    folders = map(str, itertools.count())

    def state_at(case: Case, moment: str) -> dict[str, str]:
        return Training(case, tmp_path / next(folders), [Stop(moment)]).begin().state

    assert state_at(PATIENT, "after evaluation 8")["stopping.num_since_best"] != "0"
    assert state_at(OPEN, "after evaluation 3")["stopping.num_since_best"] != "0"
    assert state_at(OPEN, "step 8")["progress.decay_end"] == "None"
    assert state_at(OPEN, "step 20")["progress.decay_end"] != "None"
    assert state_at(SKIPPING, "step 9")["skipped.bad_steps"] == "2"
    assert state_at(PLAIN[0], "in evaluation 2")["progress.phase"] == "'evaluating'"
    assert state_at(WITHIN, "in evaluation 3")["progress.phase"] == "'training'"
    assert state_at(COMPILED, "step 10")["progress.is_compiled"] == "True"
    assert state_at(BLOWN_UP, "after evaluation 2")["progress.num_lr_halvings"] == "0"
    assert state_at(BLOWN_UP, "after evaluation 6")["progress.num_lr_halvings"] == "1"
    assert state_at(BLOWN_UP, "after evaluation 6")["progress.step"] == "18"


@pytest.mark.parametrize(
    ("case", "moment"),
    [(PLAIN[3], "step 10"), (OTHER_DATA[2], "in evaluation 2")],
    ids=str,
)
def test_resuming_in_another_process_gives_the_same(
    case: Case, moment: str, whole: Whole, tmp_path: Path
) -> None:
    stopped = Training(case, tmp_path, [Stop(moment)]).begin()
    arguments = [json.dumps(dataclasses.asdict(case)), str(tmp_path)]
    command = [sys.executable, "-m", "tests.train.exactness", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    assert joined(stopped, Outcome.of_json(done.stdout)) == whole(case)


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0)])
def test_another_number_of_workers_gives_the_same(
    before: int, after: int, whole: Whole, tmp_path: Path
) -> None:
    case = Case()
    stopped = Training(replace(case, num_workers=before), tmp_path, [Stop("step 10")]).begin()
    resumed = Training(replace(case, num_workers=after), tmp_path).resume()
    assert joined(stopped, resumed) == whole(case)


@pytest.mark.parametrize("moment", ["step 16", "in evaluation 4", "step 33"])
def test_what_is_saved_in_doubt_is_the_last_good_state(moment: str, whole: Whole, tmp_path: Path) -> None:
    stopped = Training(BLOWN_UP, tmp_path, [Stop(moment)]).begin()
    assert stopped.state["progress.step"] == "12"
    assert Training(BLOWN_UP, tmp_path).resume() == replace(
        whole(BLOWN_UP), log=lines_after(12, whole(BLOWN_UP))
    )


@pytest.mark.parametrize("case", [PLAIN[1], OTHER_DATA[1], OPEN], ids=str)
def test_stopping_several_times_gives_the_same(case: Case, whole: Whole, tmp_path: Path) -> None:
    parts = [Training(case, tmp_path, [Stop("step 3")]).begin()]
    parts += [
        Training(case, tmp_path, [Stop(moment)]).resume()
        for moment in ("step 10", "in evaluation 1", "step 20")
    ]
    assert [part.result for part in parts] == ["SystemExit(143)"] * 4
    assert joined(*parts, Training(case, tmp_path).resume()) == whole(case)


@pytest.mark.parametrize("case", [OPEN, replace(OPEN, eval_every="4 steps")], ids=str)
def test_the_stable_state_goes_on_to_the_same_cooldown(case: Case, whole: Whole, tmp_path: Path) -> None:
    class Death:
        def on_checkpoint(self, path: Path) -> None:
            raise KilledError

    assert Training(case, tmp_path, [Death()]).begin().result == "KilledError()"
    stable = Checkpoints(tmp_path).load("stable")
    assert stable is not None
    assert stable.state["progress"]["decay_end"] is None
    resumed = Training(case, tmp_path).resume(stable)
    assert resumed == replace(whole(case), log=lines_after(stable.step, whole(case)))


def lines_after(step: int, outcome: Outcome) -> list[str]:
    """Return what was logged of later updates."""
    start = next(i for i, line in enumerate(outcome.log) if line.startswith(f"step {step + 1},"))
    return outcome.log[start:]


def test_patience_that_runs_out_within_an_epoch_ends_the_training_there(whole: Whole) -> None:
    ended = whole(PATIENT_WITHIN)
    assert "'no improvement in 3 evaluations'" in ended.result
    assert ended.log[-1].startswith(f"evaluation at {ended.state['progress.step']} ")
    assert int(ended.state["progress.step"]) % 6 == 4


def test_two_hooks_of_one_class_get_each_its_own_state_back(tmp_path: Path) -> None:
    class Twice(Counting):
        def on_batch_end(self, report: StepReport) -> None:
            self.num_samples += 2 * report.num_samples

    Twice.__name__ = "Counting"
    hooks = [Counting(), Twice(), Counting()]
    Training(PLAIN[0], tmp_path, [*hooks, Stop("step 10")]).begin()
    again = [Counting(), Twice(), Counting()]
    Training(PLAIN[0], tmp_path, again).resume()
    assert [hook.num_samples for hook in again] == [24 * 16, 2 * 24 * 16, 24 * 16]


@pytest.mark.parametrize("case", [PLAIN[3], OTHER_DATA[1]], ids=str)
def test_evaluating_more_often_changes_no_bit_of_the_training(case: Case, whole: Whole) -> None:
    def trained(eval_every: str) -> tuple[list[str], dict[str, str]]:
        outcome = whole(replace(case, eval_every=eval_every))
        parts = ("model", "ema", "optimizer", "scheduler", "skipped", "generators", "pass_generators")
        state = {place: value for place, value in outcome.state.items() if place.partition(".")[0] in parts}
        return [line for line in outcome.log if line.startswith("step")], state

    assert trained("10 steps") == trained("1 epoch")
    assert len(whole(replace(case, eval_every="10 steps")).log) != len(whole(case).log)


@pytest.mark.parametrize("case", [PLAIN[3], OTHER_DATA[2]], ids=str)
def test_a_training_that_is_as_long_as_it_may_be_stays_as_it_is(case: Case, tmp_path: Path) -> None:
    ended = Training(case, tmp_path).begin()
    assert Training(case, tmp_path).resume() == replace(ended, log=[])


ENDED = "ended"
MISSED_AT: dict[str, tuple[Case, str]] = {
    "model": (PLAIN[0], "step 10"),
    "ema": (PLAIN[2], "step 10"),
    "optimizer": (PLAIN[0], "step 10"),
    "scheduler": (PLAIN[0], "step 10"),
    "hooks": (PLAIN[0], "step 10"),
    "user": (PLAIN[0], "step 10"),
    "stopping.best": (PATIENT, "step 10"),
    "stopping.num_evaluations": (PATIENT, "step 10"),
    "stopping.num_since_best": (PATIENT, "after evaluation 8"),
    "stopping.reference": (PATIENT, "step 10"),
    "skipped.bad_steps": (replace(SKIPPING, bad_steps=(5, 6, 7, 8, 9)), "step 6"),
    "skipped.num_skipped": (SKIPPING, "step 9"),
    "generators.python": (PLAIN[0], "step 10"),
    "generators.numpy": (PLAIN[0], "step 10"),
    "generators.torch": (PLAIN[0], "step 10"),
    "generators.own": (OTHER_DATA[2], "saved after epoch 2"),
    "pass_generators.python": (OTHER_DATA[3], "step 10"),
    "pass_generators.numpy": (OTHER_DATA[3], "step 10"),
    "pass_generators.torch": (OTHER_DATA[3], "step 10"),
    "pass_generators.own": (OTHER_DATA[2], "step 10"),
    "progress.step": (PLAIN[0], "step 10"),
    "progress.epoch": (PLAIN[0], "step 10"),
    "progress.batch": (PLAIN[0], "step 10"),
    "progress.loss_sum": (PLAIN[0], "step 10"),
    "progress.num_samples": (PLAIN[0], "step 10"),
    "progress.num_seen": (PLAIN[0], "step 10"),
    "progress.first": (BLOWN_UP, "after evaluation 1"),
    "progress.phase": (PLAIN[0], "step 10"),
    "progress.evaluated_step": (WITHIN, "saved after evaluation 3"),
    "progress.decay_end": (OPEN, "step 20"),
    "progress.decay_reason": (OPEN, "step 20"),
    "progress.num_lr_halvings": (BLOWN_UP_TWICE, "after evaluation 6"),
    "progress.last": (PLAIN[0], ENDED),
    "progress.best": (PATIENT, "after evaluation 8"),
    "progress.stop_reason": (PATIENT, ENDED),
    "progress.is_compiled": (COMPILED, "step 10"),
}
"""Where a training stops that goes on otherwise without an item of its state."""
IN_PARTS = ("stopping", "skipped", "generators", "pass_generators", "progress")


def test_no_item_of_a_state_is_without_a_training_that_would_miss_it(tmp_path: Path) -> None:
    Training(PLAIN[0], tmp_path).begin()
    state = load(tmp_path).state
    items = [f"{key}.{name}" for key in IN_PARTS for name in state[key]]
    items += [key for key in state if key not in (*IN_PARTS, "clock")]
    assert sorted(items) == sorted(MISSED_AT)


@pytest.mark.parametrize("item", MISSED_AT)
def test_a_training_goes_on_otherwise_without_an_item_of_its_state(
    item: str, whole: Whole, tmp_path: Path
) -> None:
    case, moment = MISSED_AT[item]
    stopped = Training(case, tmp_path, [] if moment == ENDED else [Stop(moment)]).begin()
    saved = load(tmp_path)
    with_item = Training(case, tmp_path).resume(saved)
    if item != "progress.stop_reason":  # without which patience doesn't begin anew
        assert with_item == replace(whole(case), log=whole(case).log[len(stopped.log) :])
    without = Training(case, tmp_path).resume(
        replace(saved, state=dropped(item, saved.state, begun(case, tmp_path)))
    )
    assert without != with_item


def load(folder: Path) -> Checkpoint:
    found = Checkpoints(folder).load()
    assert found is not None
    return found


def begun(case: Case, folder: Path) -> Mapping[str, Any]:
    """Return the state of a training before its first update, in another process as far as generators tell."""

    class AtStart:
        state: Mapping[str, Any]

        def on_run_start(self, session: Any) -> None:
            session.checkpoints = Checkpoints(folder / "begun")
            session.save()
            raise KilledError

    Training(case, folder / "none", [AtStart()]).begin()
    state = load(folder / "begun").state
    return {**state, "pass_generators": state["generators"]}


def dropped(item: str, state: Mapping[str, Any], begun: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state of which one item is as at the start."""
    key, _, name = item.partition(".")
    return {**state, key: {**state[key], name: begun[key][name]} if name else begun[key]}
