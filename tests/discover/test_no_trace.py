"""Trials, and the drawing of batches for them, leave everything as it was: to the bit, and the same objects.

As a program this file tries updates until a signal comes, four times each, and prints whether that left a trace:
`python -m tests.discover.test_no_trace CASES`.
"""

from __future__ import annotations

import functools
import random
import signal
import subprocess
import sys
import threading
import time
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from rootflow.data.digits import digits
from rootflow.data.loaders import LoaderSettings, as_loader, build_loader
from rootflow.discover.batches import draw_batches
from rootflow.discover.trials import Trials
from rootflow.discover.undo import Undo, undoing
from rootflow.errors import RunError
from rootflow.optim.muon import muon
from rootflow.tasks import LossTask
from rootflow.tasks.classification import Classification
from rootflow.train.evaluation import evaluate
from rootflow.train.precision import Arithmetic
from rootflow.train.trainer import Trainer
from tests.discover.traces import traces

CPU = torch.device("cpu")
ARITHMETIC = Arithmetic(CPU)
_drawn = torch.Generator().manual_seed(0)
IMAGES = torch.randn(16, 3, 6, 6, generator=_drawn)
TARGETS = torch.randint(4, (16,), generator=_drawn)
BATCH = (IMAGES, TARGETS)


class Meter:
    """An object of the user's own, such as models keep beside their layers."""

    def __init__(self) -> None:
        self.total = 0.0
        self.history: list[float] = []
        self.mean = torch.zeros(1)
        self.rng = random.Random(0)

    def add(self, value: float) -> None:
        self.total += value
        self.history.append(value)
        self.mean += value * self.rng.random()
        self.__dict__.setdefault("first", value)


class Keeping(nn.Module):
    """Keeps things in all the ways in which a module can, and changes them all in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(4))
        self.listed = nn.ParameterList([nn.Parameter(torch.ones(4)) for _ in range(2)])
        self.register_buffer("counted", torch.zeros(4))
        self.register_buffer("transient", torch.zeros(4), persistent=False)
        self.register_buffer("expanded", torch.zeros(1).expand(4))
        self.register_buffer("sum", torch.zeros(4))
        self.register_buffer("empty", None)
        self.scale.note = ["a parameter can have attributes, too"]
        self.plain = torch.zeros(2, 4)
        self.view = self.plain[0]
        self.sparse = torch.eye(2).to_sparse()
        self.array = np.zeros(4)
        self.number, self.items, self.names, self.last = 0, [[0]], {"a"}, deque([0], maxlen=2)
        self.by_name: dict[str, Any] = {"inner": {"n": torch.zeros(1)}, "n": 0}
        self.meter = Meter()
        self.add = self.meter.add
        self.by_tensor = {torch.zeros(1): 0}
        self.pair = (torch.zeros(1), [0])
        self.space = types.SimpleNamespace(number=0)
        self.partly = functools.partial(torch.mul, other=torch.ones(4))
        self.noise = torch.Generator().manual_seed(0)
        self.draws = [np.random.default_rng(0), np.random.RandomState(0)]

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            for tensor in (
                self.counted,
                self.transient,
                self.view,
                self.partly.keywords["other"],
                *self.by_tensor,
                self.pair[0],
            ):
                tensor.add_(1)
            self.by_name["inner"]["n"].add_(1)
            self.sparse.mul_(2)
        self.expanded = self.expanded + 1
        self.sum.detach_().add_(self.scale)
        self.empty = torch.ones(1)
        self.array += 1
        self.number += 1
        self.space.number += 1
        self.items[0].append(1)
        self.pair[1].append(1)
        self.names.add(str(self.number))
        self.last.append(self.number)
        self.by_name = {**self.by_name, "n": self.number}
        self.scale.note.append("changed")
        self.add(1.5)
        self.lazy = torch.ones(1)
        self.register_forward_hook(lambda *_: None)
        drawn = torch.rand(4, generator=self.noise) + self.draws[0].random() + float(self.draws[1].rand())
        held = self.scale * self.frozen + self.unused + self.listed[0] * self.listed[1] + self.sum
        return inputs * held + drawn + random.random() + float(np.random.rand()) + torch.rand(4)


class Rich(nn.Module):
    """A small network of all that is special."""

    def __init__(self, *more: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm, self.resting = nn.BatchNorm2d(4), nn.BatchNorm1d(4)
        self.resting.eval()
        self.dropout = nn.Dropout(0.3)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.more = nn.Sequential(*more)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.norm(self.conv(images)).relu().mean((2, 3))
        hidden = self.dropout(self.second(self.first(self.resting(hidden))))
        self.dropout.eval()
        return self.more(hidden)


class ContrastiveLoss(nn.Module):
    """A loss with weights and a state of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))
        self.register_buffer("seen", torch.zeros(4))
        self.num_calls = 0

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.seen += torch.bincount(targets, minlength=4)
        self.num_calls += 1
        return F.cross_entropy(outputs * self.temperature, targets)


@dataclass
class Case:
    """What is tried."""

    model: nn.Module
    optimizers: list[Optimizer]
    task: Any = field(default_factory=Classification)
    settings: dict[str, Any] = field(default_factory=dict)

    def trials(self) -> Trials:
        settings = {"arithmetic": ARITHMETIC, **self.settings}
        return Trials(self.model, self.task, self.optimizers, **settings)

    def traces(self) -> dict[str, str]:
        return traces(self.model, self.task, self.optimizers)


def _groups(model: Rich) -> list[dict[str, Any]]:
    return [
        {"params": list(model.conv.parameters()), "lr": 0.1, "name": "stem"},
        {"params": [*model.first.parameters(), model.second.bias], "lr": 0.2, "weight_decay": 0.1},
    ]


def _case(make: Callable[[Any], Optimizer], *more: nn.Module, num_before: int = 0, **settings: Any) -> Case:
    """Return a training that has made some updates already."""
    torch.manual_seed(0)
    model = Rich(Keeping(), *more)
    case = Case(model, [make(model)], **settings)
    for _ in range(num_before):
        case.optimizers[0].zero_grad()
        F.cross_entropy(model(IMAGES), TARGETS).backward()
        case.optimizers[0].step()
    return case


def _lbfgs(model: nn.Module) -> Optimizer:
    return torch.optim.LBFGS([p for p in model.parameters() if p.requires_grad], lr=0.1, max_iter=3)


def _sgd_of_channels_last(model: nn.Module) -> Optimizer:
    return torch.optim.SGD(model.to(memory_format=torch.channels_last).parameters(), 0.1, momentum=0.9)


def _with_scheduler() -> Case:
    case = _case(lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9))
    case.task = torch.optim.lr_scheduler.StepLR(
        case.optimizers[0], 1
    )  # which replaces the optimizer's `step`
    case.task.loss, case.task.measure = Classification().loss, Classification().measure
    return case


def _several() -> Case:
    case = _case(lambda m: torch.optim.SGD(_groups(m), momentum=0.9))
    loss = ContrastiveLoss()
    case.optimizers.append(torch.optim.AdamW(loss.parameters()))
    case.task = LossTask(loss)
    return case


def _old_style() -> Case:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(108, 4)))
    return Case(model, [torch.optim.SGD(model.parameters(), 0.1)])


def _scripted() -> Case:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.jit.trace(nn.Sequential(nn.Flatten(), nn.Linear(108, 4), nn.BatchNorm1d(4)), IMAGES)
    model.eval()
    return Case(model, [torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)])


def _sparse() -> Case:
    table = nn.EmbeddingBag(10, 4, sparse=True, mode="sum")
    model = nn.Sequential(nn.Flatten(), nn.Flatten(), table)
    model.register_forward_pre_hook(lambda _, given: ((given[0] > 0).long(),))
    F.cross_entropy(model(IMAGES), TARGETS).backward()  # its gradient is sparse
    return Case(model, [torch.optim.SparseAdam(table.parameters())])


CASES: dict[str, Callable[[], Case]] = {
    "sgd": lambda: _case(lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9)),
    "sgd after 2 updates": lambda: _case(
        lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9), num_before=2
    ),
    "adamw": lambda: _case(lambda m: torch.optim.AdamW(m.parameters())),
    "adamw after 2 updates": lambda: _case(
        lambda m: torch.optim.AdamW(m.parameters(), amsgrad=True, foreach=False), num_before=2
    ),
    "fused adamw": lambda: _case(lambda m: torch.optim.AdamW(m.parameters(), fused=True), num_before=1),
    "adagrad": lambda: _case(lambda m: torch.optim.Adagrad(m.parameters())),
    "lr as a tensor": lambda: _case(lambda m: torch.optim.Adam(m.parameters(), lr=torch.tensor(0.1))),
    "muon": lambda: _case(lambda m: muon(m, lr=0.01)),
    "muon after 2 updates": lambda: _case(lambda m: muon(m, lr=0.01), num_before=2),
    "lbfgs": lambda: _case(_lbfgs),
    "channels last, bf16": lambda: _case(
        _sgd_of_channels_last,
        settings={"arithmetic": Arithmetic(CPU, torch.bfloat16, channels_last=True)},
    ),
    "spectral norm": lambda: _case(
        lambda m: torch.optim.RMSprop(m.parameters()),
        nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)),
    ),
    "groups": lambda: _case(lambda m: torch.optim.SGD(_groups(m), momentum=0.9), num_before=1),
    "averaged": lambda: _case(
        lambda m: torch.optim.AdamW(m.parameters()), settings={"with_ema": True, "grad_clip_norm": 0.1}
    ),
    "micro batches": lambda: _case(
        lambda m: torch.optim.AdamW(m.parameters()), settings={"micro_batch_size": 5}
    ),
    "several": _several,
    "a scheduler": _with_scheduler,
    "old weight norm": _old_style,
    "traced": _scripted,
    "sparse": _sparse,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, in which a file would be seen."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


def _spoil(case: Case, learner: Any, num_updates: int) -> None:
    """Do in a trial all that searches do in one."""
    for _ in range(num_updates):
        for optimizer in learner.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * 1.5
                group["new"] = [1]
        learner.update(BATCH)
    if learner.ema is not None:
        learner.ema.applied().__enter__()
    if not isinstance(case.model, torch.jit.ScriptModule):
        evaluate(case.model, [BATCH], arithmetic=ARITHMETIC, task=case.task)
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)


def test_a_trial_leaves_no_trace(case: Case) -> None:
    before = case.traces()
    with case.trials() as trials:
        for num_updates in (1, 3):
            with trials.trial() as learner:
                _spoil(case, learner, num_updates)
                assert case.traces() != before
            handlers = {"handlers": before["handlers"]}
            assert case.traces() | handlers == before
    assert case.traces() == before


def test_every_trial_has_the_same_beginning(case: Case) -> None:
    losses = []
    with case.trials() as trials:
        for _ in range(2):
            with trials.trial() as learner:
                losses.append([float(learner.update(BATCH)[0]).hex() for _ in range(3)])
    assert losses[0] == losses[1]
    assert len(set(losses[0])) > 1


def _try(case: Case, batches: list[Any], after: Callable[[], object] = lambda: None) -> None:
    with case.trials() as trials, trials.trial() as learner:
        for batch in batches:
            learner.update(batch)
        after()


class Ends:
    """Ends a training by an error at one call of many: in a forward or backward pass, or in the optimizer."""

    def __init__(self, case: Case, error: type[BaseException], place: str) -> None:
        self.error, self.num_calls = error, 0
        if place == "forward":
            case.model.register_forward_hook(self)
        elif place == "backward":
            groups = case.optimizers[0].param_groups
            parameter = next(p for group in groups for p in group["params"] if p.requires_grad)
            parameter.register_post_accumulate_grad_hook(self)
        elif place == "before the optimizer":
            case.optimizers[0].register_step_pre_hook(self)
        else:
            case.optimizers[0].register_step_post_hook(self)

    def __call__(self, *_: object) -> None:
        self.num_calls += 1
        if self.num_calls == 3:
            raise self.error("in the middle")


PLACES = ("forward", "backward", "before the optimizer", "after the optimizer")


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["adamw after 2 updates", "averaged", "lbfgs", "several"])
def test_a_trial_that_ends_in_the_middle_leaves_no_trace(
    name: str, place: str, error: type[BaseException]
) -> None:
    case = CASES[name]()
    Ends(case, error, place)
    before = case.traces()
    with pytest.raises(error, match="in the middle"):
        _try(case, [BATCH] * 5)
    assert case.traces() == before


def test_a_trial_that_fails_leaves_nothing_for_the_next_one() -> None:
    case = CASES["adamw"]()
    with case.trials() as trials:
        before = case.traces()
        with trials.trial() as learner:
            learner.update(BATCH)
            with pytest.raises(RunError):
                learner.update(())
        assert case.traces() == before


def test_the_model_trains_in_a_trial_even_if_it_came_from_an_evaluation() -> None:
    case = CASES["sgd"]()
    case.model.eval()
    before = case.traces()
    with case.trials() as trials, trials.trial():
        assert case.model.training
    assert case.traces() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_an_update_ends_it_before_the_weights_change(number: signal.Signals) -> None:
    case = CASES["adamw"]()
    case.model.register_forward_hook(lambda *_: signal.raise_signal(number))
    weights = [parameter.clone() for parameter in case.model.parameters()]
    before = case.traces()
    expected = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    with pytest.raises(expected), case.trials() as trials, trials.trial() as learner:  # noqa: PT012
        with pytest.raises(expected):
            learner.update(BATCH)
        assert all(map(torch.equal, weights, case.model.parameters()))
    assert case.traces() == before


def test_a_signal_between_updates_is_told_when_all_is_as_before() -> None:
    case = CASES["adamw"]()
    before = case.traces()
    with pytest.raises(KeyboardInterrupt):
        _try(case, [BATCH], after=lambda: signal.raise_signal(signal.SIGINT))
    assert case.traces() == before


def test_no_signal_interrupts_the_undoing() -> None:
    class Slow(dict[str, int]):
        def clear(self) -> None:
            signal.raise_signal(signal.SIGINT)
            super().clear()

    model = nn.Linear(2, 2)
    model.held = Slow(n=1)
    with pytest.raises(KeyboardInterrupt), undoing([model]):
        vars(model).update(held=model.held | {"n": 2}, after=3)
    assert model.held == {"n": 1}
    assert not hasattr(model, "after")


@pytest.mark.slow
def test_ctrl_c_at_any_moment_leaves_no_trace() -> None:
    names, root = ["averaged", "lbfgs", "muon"], str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "tests.discover.test_no_trace", *names]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for name in names:
            for after_s in (0.0, 0.01, 0.03, 0.1):
                assert process.stdout.readline() == f"trying {name}\n"
                time.sleep(after_s)
                process.send_signal(signal.SIGINT)
                assert process.stdout.readline() == "KeyboardInterrupt, no trace\n"
                process.stdin.write("\n")
                process.stdin.flush()
    assert process.returncode == 0


def _try_until_interrupted(name: str) -> str:
    case = CASES[name]()
    before = case.traces()
    ended = "never"
    try:
        with case.trials() as trials:
            print(f"trying {name}", flush=True)
            for _ in range(10_000):
                with trials.trial() as learner:
                    _spoil(case, learner, 2)
    except KeyboardInterrupt:
        ended = "KeyboardInterrupt"
    return f"{ended}, {'no trace' if case.traces() == before else 'traces'}"


Pass = list[Any]


class Counted(IterableDataset[Any]):
    """A stream with noise that counts what it gave, and learns."""

    def __init__(self) -> None:
        self.num_given = 0
        self.seen: set[int] = set()
        self.total = torch.zeros(3)

    def __iter__(self) -> Iterator[Any]:
        for number in range(20):
            self.num_given += 1
            self.seen.add(number)
            self.total += 1
            yield torch.rand(3) + self.num_given + self.total, number


class Noisy(Dataset[Any]):
    """Samples that depend on generators of everybody and of its own, and on how many were read."""

    def __init__(self) -> None:
        self.num_read = 0
        self.cache: dict[int, Tensor] = {}
        self.transform = Meter()
        self.file: Any = None

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.num_read += 1
        self.file = self.file or object()  # opened when it is first needed, as data sets do
        self.transform.add(1.0)
        drawn = torch.rand(2) + random.random() + float(np.random.rand()) + self.transform.rng.random()
        self.cache.setdefault(index, drawn)
        return drawn + self.num_read, index

    def close(self) -> None:
        self.file = None


class Shuffling:
    """A loader of the user's own, which shuffles its list from pass to pass."""

    def __init__(self) -> None:
        self.order = list(range(2_000))
        self.num_passes = 0

    def __iter__(self) -> Iterator[Any]:
        random.shuffle(self.order)
        self.num_passes += 1
        for start in range(0, 12, 4):
            yield torch.tensor(self.order[start : start + 4]) + self.num_passes + torch.rand(4)

    def close(self) -> None: ...


def _ours(data: Any, **settings: Any) -> Any:
    return build_loader(data, batch_size=4, device=CPU, is_train=True, settings=LoaderSettings(**settings))


def _theirs(data: Any, **settings: Any) -> Any:
    return as_loader(DataLoader(data, 4, **settings), batch_size=4, device=CPU, is_train=True)


def _any(data: Any) -> Any:
    return as_loader(data, batch_size=4, device=CPU, is_train=True)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


LOADERS: dict[str, Callable[[], Any]] = {
    "tensors": lambda: _ours(TensorDataset(IMAGES, TARGETS)),
    "a data set": lambda: _ours(Noisy(), num_workers=0),
    "a data set, workers": lambda: _ours(Noisy(), num_workers=2),
    "a stream": lambda: _any(Counted()),
    "a function": lambda: _any(lambda: iter([(torch.rand(3), n) for n in range(20)])),
    "a shuffled DataLoader": lambda: _theirs(Noisy(), shuffle=True),
    "a DataLoader with a generator": lambda: _theirs(Noisy(), shuffle=True, generator=_generator()),
    "a DataLoader with workers": lambda: _theirs(Noisy(), shuffle=True, num_workers=2),
    "a DataLoader with persistent workers": lambda: _theirs(
        Noisy(), shuffle=True, num_workers=1, persistent_workers=True, generator=_generator()
    ),
    "a loader of the user's own": lambda: _any(Shuffling()),
}


@pytest.fixture(params=LOADERS)
def make_loader(request: pytest.FixtureRequest) -> Callable[[], Any]:
    return LOADERS[request.param]


def _epochs(loader: Any, draw: Callable[[], object]) -> list[Any]:
    """Return the batches of two epochs, with draws before, in and after the first."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    found = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        draw()
        for number, batch in enumerate(loader):
            found.append(batch)
            if number == 1:
                draw()
    return found


def _end_workers(loader: Any) -> None:
    loader.close()
    iterator = getattr(getattr(loader, "source", None), "_iterator", None)
    if iterator is not None:
        iterator._shutdown_workers()


def test_drawing_batches_leaves_no_trace(make_loader: Callable[[], Any]) -> None:
    loader = make_loader()
    before = traces(loader, getattr(loader, "source", None))
    for max_batches in (1, 2, 100):
        assert 1 <= len(draw_batches(loader, max_batches=max_batches)) <= max_batches
        assert traces(loader, getattr(loader, "source", None)) == before


def test_a_pass_under_way_and_those_to_come_are_as_without_a_draw(make_loader: Callable[[], Any]) -> None:
    without, loader = make_loader(), make_loader()
    expected = _epochs(without, lambda: None)
    found = _epochs(loader, lambda: draw_batches(loader, max_batches=2))
    for one in (without, loader):
        _end_workers(one)
    assert repr(found) == repr(expected)
    assert len(found) >= 6


class Failing(Noisy):
    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self.error = error

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if self.num_read == 9:
            raise self.error("no sample")
        return super().__getitem__(index)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize(
    "make",
    [
        lambda data: _ours(data, num_workers=0),
        lambda data: _theirs(data, shuffle=True, generator=_generator()),
    ],
    ids=["ours", "theirs"],
)
def test_a_draw_that_fails_leaves_no_trace(make: Callable[[Any], Any], error: type[BaseException]) -> None:
    loader = make(Failing(error))
    before = traces(loader, getattr(loader, "source", None))
    with pytest.raises(error, match="no sample"):
        draw_batches(loader, max_batches=100)
    assert traces(loader, getattr(loader, "source", None)) == before


@pytest.mark.parametrize("make", [_ours, _theirs], ids=["ours", "theirs"])
def test_a_draw_that_fails_leaves_no_worker(make: Callable[..., Any]) -> None:
    loader = make(Failing(ValueError), num_workers=2)
    before = traces(loader, getattr(loader, "source", None))
    with pytest.raises(ValueError, match="no sample") as failure:
        draw_batches(loader, max_batches=100)
    assert traces(loader, getattr(loader, "source", None)) == before
    assert failure.traceback  # which may keep whatever the draw had


def test_a_signal_ends_a_draw_between_two_batches() -> None:
    read: list[int] = []

    class Signalling(Noisy):
        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            read.append(index)
            if self.num_read == 6:
                signal.raise_signal(signal.SIGINT)
            return super().__getitem__(index)

    loader = _ours(Signalling(), num_workers=0)
    before = traces(loader)
    with pytest.raises(KeyboardInterrupt):
        draw_batches(loader, max_batches=100)
    assert len(read) == 8
    assert traces(loader) == before


def _fit(*, with_trials: bool, as_dataloader: bool) -> tuple[dict[str, Tensor], list[Tensor], str]:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    splits = digits()
    data: Any = DataLoader(splits.train, 64, shuffle=True) if as_dataloader else splits.train
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10)
    )
    task = Classification()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    if with_trials:
        batches = draw_batches(as_loader(data, batch_size=64, device=CPU, is_train=True), max_batches=5)
        with Trials(model, task, [optimizer], arithmetic=ARITHMETIC, with_ema=True) as trials:
            for lr in (0.1, 100.0):
                with suppress(RunError), trials.trial() as learner:
                    optimizer.param_groups[0]["lr"] = lr
                    for batch in batches:
                        learner.update(batch)
                    learner.update(())  # an error
    trainer = Trainer(max_epochs=2, batch_size=64, device="cpu", precision="fp32", ema_decay=0.9)
    fit = trainer.fit(model, data, splits.val, task=task, optimizer=optimizer, scheduler="cosine")
    moments = [value for state in optimizer.state.values() for value in state.values()]
    return model.state_dict(), moments, repr((fit.step, fit.last, fit.best))


@pytest.mark.parametrize("as_dataloader", [False, True])
def test_a_training_after_trials_is_the_training_without_them(as_dataloader: bool) -> None:
    expected, expected_moments, expected_result = _fit(with_trials=False, as_dataloader=as_dataloader)
    weights, moments, result = _fit(with_trials=True, as_dataloader=as_dataloader)
    assert result == expected_result
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    assert len(moments) == len(expected_moments) > 0
    assert all(map(torch.equal, moments, expected_moments))


@pytest.mark.filterwarnings("ignore")
def test_trials_leave_the_compiler_as_if_no_size_had_been_seen() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.linear(inputs).relu()

    sizes: list[Any] = []

    def note_sizes(graph: Any, inputs: list[Any]) -> Any:
        sizes.append(
            [tuple(value.shape) for value in inputs if isinstance(value, Tensor) and value.shape[1:] == (4,)]
        )
        return graph.forward

    model = Net()
    model.compile(backend=note_sizes)
    with Trials(
        model, LossTask("cross_entropy"), [torch.optim.SGD(model.parameters(), 0.1)], arithmetic=ARITHMETIC
    ) as trials:
        for size in (8, 16):
            with trials.trial() as learner:
                learner.update((torch.rand(size, 4), torch.zeros(size, dtype=torch.long)))
    assert sizes == []
    model(torch.rand(32, 4)).sum().backward()
    torch._dynamo.reset()
    assert len(sizes) == 1
    assert (32, 4) in sizes[0]  # and not a size that stands for any


def test_what_was_added_to_a_buffer_with_a_gradient_is_undone() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("memory", torch.zeros(2))
    before = traces(model)
    undo = Undo([model])
    model.memory.add_(model.bias)
    assert not model.memory.is_leaf
    undo.put_back()
    assert traces(model) == before


def test_memory_that_a_trial_gave_to_a_parameter_is_let_go() -> None:
    model = nn.Linear(2, 2)
    before = traces(model)
    undo = Undo([model])
    model.weight.data = torch.zeros(3, 3, dtype=torch.float64)
    model.requires_grad_(requires_grad=False)
    undo.put_back()
    assert traces(model) == before


def test_what_is_ahead_of_its_attributes_is_not_put_back() -> None:
    class File:
        def __init__(self) -> None:
            self.position = 0

        def close(self) -> None: ...

    class Source:
        def __init__(self) -> None:
            self.file, self.lock, self.number = File(), threading.Lock(), 0
            self.batches = iter(DataLoader(TensorDataset(IMAGES)))
            self.data, self.samples = torch.zeros(2**20), [[0] for _ in range(2_000)]

    model, source = nn.Linear(2, 2), Source()
    model.source, model.weights = source, torch.zeros(2**20)
    undo = Undo([model])
    source.file.position, source.number = 1, 1
    next(source.batches)
    for tensor in (source.data, model.weights):
        tensor[0] = 1
    source.samples[0].append(1)
    source.samples.append([1])
    undo.put_back()
    assert (source.file.position, source.number) == (1, 0)
    assert source.batches._num_yielded == 1
    assert float(source.data[0]) == 1  # large, in an object of the user's: data
    assert float(model.weights[0]) == 0
    assert source.samples[0] == [0, 1]
    assert len(source.samples) == 2_000


def test_an_undo_that_fails_somewhere_undoes_all_else() -> None:
    class Stubborn(dict[str, int]):
        def clear(self) -> None:
            raise TypeError("never")

    model = nn.Linear(2, 2)
    model.first, model.stubborn, model.last = [1], Stubborn(n=1), [1]
    weights = model.weight.clone()
    undo = Undo([model])
    with torch.no_grad():
        model.weight.zero_()
    model.first.append(2)
    model.last.append(2)
    with pytest.raises(TypeError, match="never"):
        undo.put_back()
    assert torch.equal(model.weight, weights)
    assert (model.first, model.last) == ([1], [1])


if __name__ == "__main__":
    for told in sys.argv[1:]:
        for _ in range(4):
            print(_try_until_interrupted(told), flush=True)
            sys.stdin.readline()
