"""Trainings in which everything is random, stopped and resumed; and all that is compared of them.

As a program it goes on with a training in a process of its own, and prints what came of it as JSON:
`python -m tests.train.exactness CASE FOLDER`, CASE as `json.dumps(dataclasses.asdict(case))`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from rootflow.checkpoint import Checkpoint, Checkpoints
from rootflow.data.augment import Augment, Preprocess
from rootflow.data.loaders import LoaderSettings, build_loader
from rootflow.errors import DivergedError
from rootflow.tasks.classification import Classification
from rootflow.train.hooks import EvaluationReport
from rootflow.train.loop import StepReport
from rootflow.train.seeding import seed_everything
from rootflow.train.session import Session
from rootflow.train.trainer import Trainer

NUM_SAMPLES = 100
BATCH_SIZE = 16
_generator = torch.Generator().manual_seed(0)
IMAGES = torch.randn(NUM_SAMPLES, 1, 8, 8, generator=_generator)
TARGETS = (IMAGES[:, 0, 0, 0] + torch.randn(NUM_SAMPLES, generator=_generator) > 0).long()


@dataclass(frozen=True)
class Case:
    """A training."""

    data: str = "drawing"
    """Of data sets `drawing` or `tensors`; or a `ready` loader, one with generators of its `own`, or an `unknown` one."""
    num_workers: int = 0
    ema_decay: float | str | None = None
    micro_batch_size: int | str = "auto"
    max_epochs: int | str = 4
    patience: int | None = None
    eval_every: str = "1 epoch"
    scheduler: str | None = "default"
    optimizer: str = "adamw"
    bad_steps: tuple[int, ...] = ()
    """Steps at which a gradient isn't finite."""
    max_lr_halvings: int = 3
    blown_up: tuple[int, ...] = ()
    """Steps before which the weights are multiplied: the n-th after n halvings of the learning rate."""
    is_compiled_later: bool = False
    """Compile the model after the first epoch."""

    def __str__(self) -> str:
        settings = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        odd = {f.name for f in dataclasses.fields(self) if settings[f.name] != f.default}
        return ",".join(
            [self.data, *(f"{name}={settings[name]}" for name in settings if name in odd - {"data"})]
        )


@dataclass
class Outcome:
    """All that must be equal of two trainings."""

    state: dict[str, str]
    """Of the last checkpoint: each of its values, tensors as digests; none after a divergence."""
    log: list[str]
    """A line for each update and each evaluation."""
    result: str
    """What `fit` returned; why it ended, if it didn't."""

    @classmethod
    def of_json(cls, text: str) -> Outcome:
        return cls(**json.loads(text))


class Noisy(nn.Module):
    """A model that draws from all three global generators, also while it is evaluated, and counts its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(144, 2)
        self.num_batches = 0
        self.factor = 1.0

    def compile(self) -> None:  # type: ignore[override]
        """Stands for torch's, which takes seconds: what is compiled rounds otherwise."""
        self.factor = 1.0001

    def forward(self, images: Tensor) -> Tensor:
        images = images * (self.factor + 0.1 * random.random() + 0.1 * float(np.random.rand()))
        if self.training:
            self.num_batches += 1
        else:
            images = images + 0.1 * torch.randn(images.shape)
        return self.head(self.dropout(self.norm(self.conv(images)).relu()).flatten(1))

    def get_save_dict(self) -> dict[str, Any]:
        return {"num_batches": self.num_batches}

    def load_model_specific(self, saved: Mapping[str, Any]) -> None:
        self.num_batches = saved["num_batches"]


class Drawing(Dataset[Any]):
    """Samples with random transforms that draw from all three global generators."""

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = IMAGES[index].roll(random.randrange(3), dims=2) * float(np.random.uniform(0.8, 1.2))
        return image + 0.1 * torch.randn(image.shape), TARGETS[index]


class DrawnOrder:
    """Batches of no known kind, in an order that all three global generators decide when a pass begins."""

    def __len__(self) -> int:
        return NUM_SAMPLES // BATCH_SIZE

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = list(range(NUM_SAMPLES))
        random.shuffle(order)
        index = torch.as_tensor(order)[torch.from_numpy(np.random.permutation(NUM_SAMPLES))]
        index = index[torch.randperm(NUM_SAMPLES)]
        for here in index.split(BATCH_SIZE)[: len(self)]:
            yield IMAGES[here], TARGETS[here]


class Log:
    """Writes down, to the bit, what is reported."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_batch_end(self, report: StepReport) -> None:
        loss, lr = float(report.loss).hex(), report.lr.hex()
        self.lines.append(f"step {report.step}, epoch {report.epoch}: {loss} {lr} {report.num_samples}")

    def on_post_performance_check(self, report: EvaluationReport) -> None:
        metrics = {name: float(value).hex() for name, value in report.metrics.items()}
        self.lines.append(f"evaluation at {report.step} of {report.weights}: {metrics} {report.is_best}")


class Counting:
    """A hook with a state."""

    def __init__(self) -> None:
        self.num_samples = 0

    def on_batch_end(self, report: StepReport) -> None:
        self.num_samples += report.num_samples

    def state_dict(self) -> dict[str, Any]:
        return {"num_samples": self.num_samples}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.num_samples = state["num_samples"]


class Spoiling:
    """Makes one element of one gradient NaN at some steps."""

    def __init__(self, steps: Sequence[int]) -> None:
        self.steps = steps

    def on_after_backward(self, session: Session) -> None:
        if session.step + 1 in self.steps:
            gradient = next(session.state.model.parameters()).grad
            assert gradient is not None
            gradient.view(-1)[0] = torch.nan


class BlowingUp:
    """Multiplies the last weights before some steps, the n-th only when the learning rate was halved n times."""

    def __init__(self, steps: Sequence[int]) -> None:
        self.steps = dict(enumerate(steps))

    def on_run_start(self, session: Session) -> None:
        self.session = session

    @torch.no_grad()
    def on_batch_start(self) -> None:
        state = self.session.state
        if self.steps.get(state.num_lr_halvings) == state.step + 1:
            state.model.head.weight.mul_(1000)  # type: ignore[union-attr, operator]


class CompileLater:
    """Compiles the model after the first epoch, as `trainer.compile=auto` does on a GPU."""

    def on_run_start(self, session: Session) -> None:
        self.session = session

    def on_epoch_end(self, session: Session) -> None:
        if session.epoch == 1:
            self.session.compile_model()


class Stop:
    """Lets SIGTERM arrive at a moment: `step 10`, `in evaluation 2` or `after evaluation 2`.

    `saved after evaluation 2` and `saved after epoch 2` save and die there, with no word.
    """

    def __init__(self, moment: str) -> None:
        self.moment, _, number = moment.rpartition(" ")
        self.number = int(number)
        self.num_evaluations = 0
        self.session: Session

    def on_run_start(self, session: Session) -> None:
        self.session = session

    def on_batch_end(self, report: StepReport) -> None:
        if (self.moment, self.number) == ("step", report.step):
            self.session.interrupts.pending = signal.SIGTERM

    def on_pre_performance_check(self, session: Session) -> None:
        self.num_evaluations += 1
        if (self.moment, self.number) == ("in evaluation", self.num_evaluations):
            handle = session.state.model.register_forward_hook(lambda *_: self._signal(handle))

    def on_post_performance_check(self) -> None:
        if self.number == self.num_evaluations:
            if self.moment == "after evaluation":
                self.session.interrupts.pending = signal.SIGTERM
            if self.moment == "saved after evaluation":
                self._save_and_die()

    def on_epoch_end(self, session: Session) -> None:
        if (self.moment, self.number) == ("saved after epoch", session.epoch):
            self._save_and_die()

    def _signal(self, handle: Any) -> None:
        handle.remove()
        self.session.interrupts.pending = signal.SIGTERM

    def _save_and_die(self) -> None:
        self.session.save()
        raise KilledError


class KilledError(Exception):
    """Stands for kill -9 right after a save."""


@dataclass
class Training:
    """One process's share of a training."""

    case: Case
    folder: Path
    hooks: list[Any] = field(default_factory=list)

    def begin(self) -> Outcome:
        seed_everything(0)
        return self._fit(None)

    def resume(self, checkpoint: Checkpoint | None = None) -> Outcome:
        """Go on, from the newest checkpoint if none is given, in a process whose generators are elsewhere."""
        seed_everything(random.SystemRandom().randrange(2**32))
        return self._fit(checkpoint or Checkpoints(self.folder).load())

    def _fit(self, resume: Checkpoint | None) -> Outcome:
        case, log, checkpoints = self.case, Log(), Checkpoints(self.folder)
        trainer = Trainer(
            device="cpu",
            precision="fp32",
            batch_size=BATCH_SIZE,
            log_every=1,
            grad_clip_norm=0.5,
            max_epochs=case.max_epochs,  # type: ignore[arg-type]
            patience=case.patience,
            eval_every=case.eval_every,
            ema_decay=case.ema_decay,  # type: ignore[arg-type]
            micro_batch_size=case.micro_batch_size,  # type: ignore[arg-type]
            max_lr_halvings=case.max_lr_halvings,
        )
        loader = make_train_data(case)
        is_lost = False
        later = [CompileLater()] if case.is_compiled_later else []
        try:
            fit = trainer.fit(
                Noisy(),
                loader,
                make_val_data(case),
                task=Classification(),
                optimizer=case.optimizer,
                scheduler=case.scheduler,
                checkpoints=checkpoints,
                resume=resume,
                hooks=[
                    log,
                    Counting(),
                    Spoiling(case.bad_steps),
                    BlowingUp(case.blown_up),
                    *later,
                    *self.hooks,
                ],
            )
            told = (fit.step, fit.epoch, fit.stop_reason, fit.num_skipped, fit.last, fit.best)
            result = repr(told)
        except (SystemExit, KilledError) as error:
            result = repr(error)
        except DivergedError as error:
            result, is_lost = repr(error), True
        finally:
            if hasattr(loader, "close"):
                loader.close()
        saved = None if is_lost else checkpoints.load()
        return Outcome(fingerprint(saved.state) if saved else {}, log.lines, result)


def make_train_data(case: Case) -> Any:
    workers = LoaderSettings(num_workers=case.num_workers)
    ours = {"batch_size": BATCH_SIZE, "device": torch.device("cpu"), "is_train": True, "settings": workers}
    theirs = {"batch_size": BATCH_SIZE, "shuffle": True, "num_workers": case.num_workers}
    if case.data == "drawing":
        return build_loader(Drawing(), **ours)
    if case.data == "tensors":
        moved = Preprocess(augment=Augment(flip="random", translate=2))
        return build_loader(TensorDataset(IMAGES, TARGETS), transform=moved, **ours)
    if case.data == "unknown":
        return DrawnOrder()
    return DataLoader(Drawing(), generator=own_generator(case), **theirs)


def make_val_data(case: Case) -> Any:
    data, generator = TensorDataset(IMAGES, TARGETS), own_generator(case)
    return DataLoader(data, BATCH_SIZE, shuffle=True, generator=generator) if generator else data


def own_generator(case: Case) -> torch.Generator | None:
    return torch.Generator().manual_seed(1) if case.data == "own" else None


def fingerprint(state: Any, place: str = "") -> dict[str, str]:
    """Return the values of a state by their places, tensors as digests, without the time that it took."""
    if isinstance(state, Mapping):
        dot = "." if place else ""
        items = {f"{place}{dot}{key}": value for key, value in state.items() if key != "clock"}
        return {name: text for key, value in items.items() for name, text in fingerprint(value, key).items()}
    if isinstance(state, Tensor):
        content = state.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return {place: f"{state.dtype} {tuple(state.shape)} {digest(content)}"}
    if isinstance(state, np.ndarray):
        return {place: f"{state.dtype} {state.shape} {digest(state.tobytes())}"}
    if isinstance(state, list | tuple) and len(state) < 20:
        return fingerprint(dict(enumerate(state)), place) if state else {place: "empty"}
    text = repr(state)
    return {place: text if len(text) < 80 else digest(text.encode())}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    told = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    going_on = Training(Case(**told), Path(sys.argv[2]))
    print(json.dumps(dataclasses.asdict(going_on.resume())))
