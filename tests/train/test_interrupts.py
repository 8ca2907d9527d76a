"""Signals end a training at the next boundary between two updates, and the state is saved there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from rootflow.checkpoint import Checkpoints
from rootflow.interrupts import WHILE_TRAINING
from rootflow.tasks.classification import Classification
from rootflow.train.loop import StepReport
from rootflow.train.trainer import Trainer
from tests.train.exactness import IMAGES, TARGETS, Noisy

ROOT = Path(__file__).parents[2]
NOTE = "stopping after this update; once more leaves at once\n"

Endings = Mapping[str, Mapping[str, Any]]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> Endings:
    """How trainings in processes of their own ended, by the signals that they got."""
    done = run(["-m", "tests.train.signal_trials", str(tmp_path_factory.mktemp("signals"))])
    assert done.stderr == ""
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGUSR1", 143), ("SIGINT", 130)])
def test_a_signal_saves_the_update_that_was_under_way_and_ends(
    name: str, code: int, endings: Endings
) -> None:
    ending = endings[name]
    assert ending["exit_code"] == code
    assert ending["saved_step"] == ending["last_step"] >= 9
    assert ending["saved_phase"] in ("training", "evaluating")  # it may have come at the end of an epoch
    assert ending["told"] == NOTE


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_ends_an_evaluation_which_is_still_to_come_after_resuming(
    name: str, code: int, endings: Endings
) -> None:
    ending = endings[f"{name} in an evaluation"]
    assert (ending["exit_code"], ending["told"]) == (code, NOTE)
    assert (ending["saved_step"], ending["last_step"], ending["saved_phase"]) == (6, 6, "evaluating")


@pytest.mark.parametrize(
    ("name", "code"), [("two SIGTERM", 143), ("two SIGINT", 130), ("SIGINT after SIGUSR1", 130)]
)
def test_a_second_signal_leaves_in_the_middle_of_an_update(name: str, code: int, endings: Endings) -> None:
    """The update would take a minute, which nobody waited for."""
    ending = endings[name]
    assert (ending["exit_code"], ending["told"]) == (code, NOTE)
    assert (ending["last_step"], ending["saved_step"]) == (0, None)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_to_the_whole_group_leaves_no_worker_and_no_trace(
    name: str, code: int, endings: Endings
) -> None:
    ending = endings[f"{name} to all"]
    assert (ending["exit_code"], ending["told"]) == (code, NOTE)
    assert ending["saved_step"] == ending["last_step"] >= 9
    assert ending["is_group_gone"]


SCRIPT = """
import os, signal, sys
import torch
from rootflow.checkpoint import Checkpoints
from rootflow.train.trainer import Trainer

class Signal:
    def on_batch_end(self, report):
        if report.step == 3:
            os.kill(os.getpid(), int(sys.argv[1]))

x = torch.randn(64, 4)
model = torch.nn.Linear(4, 1)
Trainer(max_steps=100, device="cpu").fit(
    model, (x, x[:, :1]), loss="mse_loss", optimizer="sgd", checkpoints=Checkpoints(sys.argv[2]), hooks=[Signal()])
print("went on")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_script_ends_with_the_code_that_a_shell_expects(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """After SIGINT Python sends it to itself, which a shell calls 130."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    done = run([str(script), str(int(number)), str(tmp_path / "checkpoints")])
    assert (done.returncode, done.stdout) == (code, "")
    assert Checkpoints(tmp_path / "checkpoints").steps() == [3]


class AtStep:
    """Does something after a step."""

    def __init__(self, step: int, action: Any) -> None:
        self.step = step
        self.action = action

    def on_batch_end(self, report: StepReport) -> None:
        if report.step == self.step:
            self.action()


def fit(*hooks: object, **given: Any) -> None:
    Trainer(max_steps=8, device="cpu", precision="fp32").fit(
        Noisy(), TensorDataset(IMAGES, TARGETS), task=Classification(), optimizer="sgd", hooks=hooks, **given
    )


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in WHILE_TRAINING]


class BadError(Exception):
    pass


def test_handlers_are_those_of_before_however_fit_ends() -> None:
    def fail() -> None:
        during.append(handlers())
        raise BadError

    during: list[Any] = []
    before = handlers()
    fit(AtStep(3, lambda: during.append(handlers())))
    assert handlers() == before
    with pytest.raises(BadError):
        fit(AtStep(3, fail))
    assert handlers() == before
    with pytest.raises(SystemExit):
        fit(AtStep(3, lambda: signal.raise_signal(signal.SIGTERM)))
    assert handlers() == before
    assert len(during) == 2
    assert all(now != then for found in during for now, then in zip(found, before, strict=True))


def test_a_handler_of_the_users_own_is_back_after_fit() -> None:
    calls: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: calls.append(number))
    try:
        with pytest.raises(SystemExit) as caught:
            fit(AtStep(3, lambda: signal.raise_signal(signal.SIGUSR1)))
        assert (caught.value.code, calls) == (143, [])
        signal.raise_signal(signal.SIGUSR1)
        assert calls == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_fit_in_another_thread_leaves_handlers_alone() -> None:
    before, during, errors = handlers(), [], []

    def train() -> None:
        try:
            fit(AtStep(3, lambda: during.append(handlers())))
        except BaseException as error:  # noqa: BLE001  # the thread has nobody else to tell
            errors.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert errors == []
    assert during == [before]
    assert handlers() == before


def test_an_exit_of_the_users_own_is_no_reason_to_save(tmp_path: Path) -> None:
    def leave() -> None:
        raise SystemExit(3)

    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(SystemExit) as caught:
        fit(AtStep(3, leave), checkpoints=checkpoints)
    assert (caught.value.code, checkpoints.steps()) == (3, [])


def test_a_signal_in_a_save_ends_the_training_after_it(tmp_path: Path) -> None:
    class InSave(Checkpoints):
        def save(self, step: int, state: Any, *, label: str | None = None) -> Path:
            if step == 4:
                signal.raise_signal(signal.SIGTERM)
            return super().save(step, state, label=label)

    checkpoints = InSave(tmp_path)
    trainer = Trainer(max_steps=8, device="cpu", precision="fp32", save_every="2 steps")
    with pytest.raises(SystemExit):
        trainer.fit(
            torch.nn.Linear(4, 1),
            (torch.randn(320, 4), torch.randn(320, 1)),
            loss="mse_loss",
            optimizer="sgd",
            checkpoints=checkpoints,
        )
    assert checkpoints.steps() == [4, 5]
