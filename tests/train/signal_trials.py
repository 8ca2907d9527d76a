"""Trainings that get signals from outside, each in a fork of this process.

It has trained once, and so imported everything, and has no thread.

    python -m tests.train.signal_trials FOLDER

prints for each trial, as JSON, how the process ended and what it left.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rootflow.checkpoint import Checkpoints
from rootflow.tasks.classification import Classification
from rootflow.train.loop import StepReport
from rootflow.train.trainer import Trainer
from tests.train.exactness import BATCH_SIZE, Case, Noisy, make_train_data, make_val_data

LONG_S = 60.0
"""A step of that length isn't waited for; a trial that does fails by the time limit of its test."""
APART_S = 0.5
"""Between two signals that are two, and not one that was delivered twice."""


@dataclass
class Ending:
    """How a training ended."""

    exit_code: int
    last_step: int
    """Of the updates that were told."""
    saved_step: int | None
    saved_phase: str | None
    told: str
    """What it wrote to the standard error."""
    is_group_gone: bool


class Telling:
    """Tells the parent of each update, and of the begin of each long wait."""

    def __init__(self, pipe: int, wait: str = "") -> None:
        self.pipe = pipe
        self.wait = wait

    def on_batch_end(self, report: StepReport) -> None:
        os.write(self.pipe, b"u%08d" % report.step)

    def on_batch_start(self) -> None:
        if self.wait == "step":
            os.write(self.pipe, b"w00000000")
            time.sleep(LONG_S)

    def on_pre_performance_check(self) -> None:
        if self.wait == "evaluation":
            os.write(self.pipe, b"w00000000")
            time.sleep(APART_S)


def train(
    folder: Path, pipe: int, *, wait: str = "", num_workers: int = 0, max_epochs: int = 100_000
) -> None:
    case = Case("drawing" if num_workers else "tensors", num_workers=num_workers)
    Trainer(max_epochs=max_epochs, device="cpu", precision="fp32", batch_size=BATCH_SIZE, patience=None).fit(
        Noisy(),
        make_train_data(case),
        make_val_data(case),
        task=Classification(),
        optimizer="sgd",
        checkpoints=Checkpoints(folder / "checkpoints"),
        hooks=[Telling(pipe, wait)],
    )


def try_signals(
    folder: Path, *numbers: signal.Signals, wait: str = "", to_group: bool = False, num_workers: int = 0
) -> Ending:
    """Train, send signals after some updates (or in a long wait), and tell how it ended."""
    folder.mkdir()
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.setsid()
        os.dup2(os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT), 2)
        _exit_as_python_does(lambda: train(folder, writing, wait=wait, num_workers=num_workers))
    os.close(writing)
    steps, is_sent = [0], False
    while told := os.read(reading, 9):
        if told[:1] == b"u":
            steps.append(int(told[1:]))
        if not is_sent and (told[:1] == b"w" if wait else steps[-1] == 9):
            is_sent = True
            send(pid, numbers, to_group=to_group)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    found = Checkpoints(folder / "checkpoints").load()
    return Ending(
        status,
        steps[-1],
        found.step if found else None,
        found.state["progress"]["phase"] if found else None,
        (folder / "stderr").read_text(),
        is_gone(pid),
    )


def send(pid: int, numbers: tuple[signal.Signals, ...], *, to_group: bool) -> None:
    for count, number in enumerate(numbers):
        time.sleep(APART_S * bool(count))
        (os.killpg if to_group else os.kill)(pid, number)


def is_gone(group: int) -> bool:
    """Whether no process of a group is left, given the time to end."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def _exit_as_python_does(body: Callable[[], None]) -> NoReturn:
    code: Any = 1
    try:
        body()
        code = 0
    except SystemExit as error:
        code = error.code
    except KeyboardInterrupt:
        code = 130
    except BaseException:  # noqa: BLE001  # the process ends here
        traceback.print_exc()
    finally:
        os._exit(code)


def main(folder: Path) -> dict[str, Ending]:
    train(folder, os.open(os.devnull, os.O_WRONLY), max_epochs=1)
    interrupt, terminate, user = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1
    return {
        "SIGTERM": try_signals(folder / "1", terminate),
        "SIGUSR1": try_signals(folder / "2", user),
        "SIGINT": try_signals(folder / "3", interrupt),
        "SIGTERM in an evaluation": try_signals(folder / "4", terminate, wait="evaluation"),
        "SIGINT in an evaluation": try_signals(folder / "5", interrupt, wait="evaluation"),
        "two SIGTERM": try_signals(folder / "6", terminate, terminate, wait="step"),
        "two SIGINT": try_signals(folder / "7", interrupt, interrupt, wait="step"),
        "SIGINT after SIGUSR1": try_signals(folder / "8", user, interrupt, wait="step"),
        "SIGTERM to all": try_signals(folder / "9", terminate, to_group=True, num_workers=2),
        "SIGINT to all": try_signals(folder / "10", interrupt, to_group=True, num_workers=2),
    }


if __name__ == "__main__":
    endings = main(Path(sys.argv[1]))
    print(json.dumps({name: dataclasses.asdict(ending) for name, ending in endings.items()}))
