"""A training that is killed (SIGKILL) again and again at random instants, and resumed until it is through.

    python -m tests.train.kill_storm FOLDER --kills 20

One process has trained once, and so imported everything, and has no thread; each life is a fork of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import random
import signal
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch

from rootflow.checkpoint import Checkpoints
from rootflow.errors import CheckpointError
from rootflow.tasks.classification import Classification
from rootflow.train.hooks import EvaluationReport
from rootflow.train.loop import StepReport
from rootflow.train.seeding import seed_everything
from rootflow.train.session import Session
from rootflow.train.trainer import Trainer
from tests.train.exactness import BATCH_SIZE, Case, Noisy, fingerprint, make_train_data, make_val_data

CASE = Case("tensors", ema_decay=0.9)
NUM_EPOCHS = 25  # of 6 updates
MOST_STEPS_OF_A_LIFE = 6


@dataclass
class Counts:
    """What a storm did, and what it broke."""

    kills: int = 0
    inside_a_save: int = 0
    lost: int = 0
    """Kills after which the newest state was older than one whose save had returned."""
    corrupted: int = 0
    """Kills after which a state was found damaged."""
    trainings: int = 0
    equal: int = 0
    """Trainings whose last state and whose log are, byte for byte, those of one that was never killed."""


class LogFile:
    """A line for each update and evaluation, cut back to the checkpoint on resuming, as metrics.jsonl is."""

    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_RDWR | os.O_CREAT)

    def on_run_start(self, session: Session) -> None:
        if not session.state.step:
            os.truncate(self.file, 0)

    def on_batch_end(self, report: StepReport) -> None:
        self._append(f"{report.step} {float(report.loss).hex()} {report.lr.hex()}\n")

    def on_post_performance_check(self, report: EvaluationReport) -> None:
        self._append(f"{report.step} {dict(report.metrics)} {report.is_best}\n")

    def state_dict(self) -> dict[str, Any]:
        os.fsync(self.file)
        return {"bytes": os.fstat(self.file).st_size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        os.truncate(self.file, state["bytes"])

    def _append(self, line: str) -> None:
        os.pwrite(self.file, line.encode(), os.fstat(self.file).st_size)


class Telling:
    """Tells the parent of each update and of each save that has returned."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe
        self.step = 0

    def on_batch_end(self, report: StepReport) -> None:
        self.step = report.step
        os.write(self.pipe, b"u%08d" % report.step)

    def on_checkpoint(self) -> None:
        os.write(self.pipe, b"s%08d" % self.step)


class MarkedCheckpoints(Checkpoints):
    """Checkpoints beside which lies a file while one is saved."""

    def save(self, step: int, state: Mapping[str, Any], *, label: str | None = None) -> Path:
        marker = marker_of(self.folder)
        marker.touch()
        path = super().save(step, state, label=label)
        marker.unlink()
        return path


def marker_of(folder: Path) -> Path:
    return folder.with_name("inside-a-save")


def live(folder: Path, pipe: int, *, save_every: str = "1 steps") -> None:
    """Begin the training, or go on with it, until it is through."""
    folder.mkdir(exist_ok=True)
    checkpoints = MarkedCheckpoints(folder / "checkpoints")
    found = checkpoints.load()
    seed_everything(random.SystemRandom().randrange(2**32) if found else 0)
    trainer = Trainer(
        max_epochs=NUM_EPOCHS,
        device="cpu",
        precision="fp32",
        batch_size=BATCH_SIZE,
        ema_decay=CASE.ema_decay,  # type: ignore[arg-type]
        save_every=save_every,
    )
    trainer.fit(
        Noisy(),
        make_train_data(CASE),
        make_val_data(CASE),
        task=Classification(),
        optimizer=CASE.optimizer,
        scheduler=CASE.scheduler,
        checkpoints=checkpoints,
        resume=found,
        hooks=[LogFile(folder / "log.txt"), Telling(pipe)],
    )


@dataclass
class Life:
    """A fork of this process that trains."""

    pid: int
    pipe: int
    told: list[tuple[str, int, float]] = field(default_factory=list)
    """`u` for an update or `s` for a save, its step, and when it was told."""
    status: int = 0

    @classmethod
    def begin(cls, body: Callable[[int], None]) -> Life:
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reading)
            _die_after(body, writing)
        os.close(writing)
        return cls(pid, reading)

    def updates(self) -> Iterator[int]:
        """Yield the step of each update when it is told."""
        while told := os.read(self.pipe, 9):
            kind, step = told[:1].decode(), int(told[1:])
            self.told.append((kind, step, time.monotonic()))
            if kind == "u":
                yield step

    def end(self) -> None:
        for _ in self.updates():
            pass
        os.close(self.pipe)
        self.status = os.waitpid(self.pid, 0)[1]

    @property
    def saved_step(self) -> int:
        return max((step for kind, step, _ in self.told if kind == "s"), default=0)


def _die_after(body: Callable[[int], None], pipe: int) -> NoReturn:
    status = 1
    try:
        body(pipe)
        status = 0
    except BaseException:  # noqa: BLE001  # the process ends here
        traceback.print_exc()
    finally:
        os._exit(status)


def storm(folder: Path, num_kills: int, seed: int = 0) -> Counts:
    """Kill trainings ``num_kills`` times, one training after the other, and let the last one end."""
    chance, counts = random.Random(seed), Counts()
    whole = folder / "whole"
    live(whole, os.open(os.devnull, os.O_WRONLY), save_every="1 h")
    assert len(list(Path("/proc/self/task").glob("*"))) < 2, "a fork of threads"
    expected = remains(whole)
    delay_s = 0.02
    while counts.kills < num_kills:
        counts.trainings += 1
        training = folder / f"training-{counts.trainings}"
        through, saved_step = False, 0
        while not through and counts.kills < num_kills:
            life = Life.begin(lambda pipe, to=training: live(to, pipe))
            kill_sometime(life, chance, delay_s)
            saved_step = max(saved_step, life.saved_step)
            through = life.status == 0
            assert through or life.status == signal.SIGKILL
            if not through:
                take_stock(training, saved_step, counts)
            delay_s = seconds_of_an_update(life) or delay_s
        if not through:
            assert run_through(training) == 0
        counts.equal += remains(training) == expected
    return counts


def kill_sometime(life: Life, chance: random.Random, delay_s: float) -> None:
    """Kill a life some updates after its begin, at a random instant within the next one or two."""
    num_updates = chance.randrange(MOST_STEPS_OF_A_LIFE)
    fraction = chance.random()
    if num_updates:
        for number, _ in enumerate(life.updates(), 1):
            if number == num_updates:
                break
    time.sleep(2 * delay_s * fraction)
    os.kill(life.pid, signal.SIGKILL)
    life.end()


def take_stock(training: Path, saved_step: int, counts: Counts) -> None:
    """Count a kill, and what it left."""
    counts.kills += 1
    marker = marker_of(training / "checkpoints")
    counts.inside_a_save += marker.exists()
    marker.unlink(missing_ok=True)
    try:
        found = Checkpoints(training / "checkpoints").load()
    except CheckpointError:
        counts.corrupted += 1
        return
    counts.corrupted += bool(found and found.rejected)
    counts.lost += (found.step if found else 0) < saved_step


def seconds_of_an_update(life: Life) -> float | None:
    times = [when for kind, _, when in life.told if kind == "u"]
    return statistics.median(b - a for a, b in itertools.pairwise(times)) if len(times) > 1 else None


def run_through(folder: Path) -> int:
    life = Life.begin(lambda pipe: live(folder, pipe))
    life.end()
    return life.status


def remains(folder: Path) -> tuple[dict[str, str], bytes]:
    """Return the last state and the log of a training."""
    found = Checkpoints(folder / "checkpoints").load()
    assert found is not None
    return fingerprint(found.state), (folder / "log.txt").read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(dataclasses.asdict(storm(args.folder, args.kills, args.seed))))


if __name__ == "__main__":
    main()
