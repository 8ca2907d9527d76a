"""What does the loop cost beside the model? Microseconds a step, and the time of an epoch.

    python benchmarks/overhead.py [--device cuda] [--rounds 41] [--no-peers] [--only steps|epoch]

The step: a tiny MLP (64-64-10, batch 32) on one thread, all in one process, in turns of 500 updates whose
order changes each round. All read the same batches from the same loader, which also takes the time, after the
first 50 updates of a turn: no start, no evaluation and no checkpoint (by default there is one a minute) is in
it. rootflow runs at its defaults, with run folder, console, checkpoints and W&B (offline) open; the peers of
the extra `bench` run at theirs, as far as they are installed.

A turn is compared with another's turn of the same round; shown is the median of these differences, and the
95 % interval of that median. Once for whole turns; and once for what is left of them without what other
programs on the machine do: each update's time is the lower quartile of those that come in the same place of
the ten periods of `log_every` = 50 updates in a turn, so that one row of metrics counts for every 50 updates.
On CUDA that is the time of the host alone.

The epoch: the 60,000 images of MNIST in batches of three sizes, against the usual loop over a `DataLoader`
of a `TensorDataset`, in the same order, with an MLP (784-64-10); the losses must be the same. And reading
alone, without a model.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import gc
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from rootflow.checkpoint import Checkpoints, WeightKeeper
from rootflow.data.augment import Preprocess
from rootflow.data.batch_order import BatchOrder
from rootflow.data.download import default_root
from rootflow.data.loaders import TensorLoader, build_loader
from rootflow.data.mnist import read_idx
from rootflow.optim.schedules import WarmupDecay
from rootflow.tasks.classification import Classification
from rootflow.tracking.console import Console
from rootflow.tracking.provenance import Provenance
from rootflow.tracking.run_folder import RunFolder
from rootflow.tracking.settings import WandbSettings
from rootflow.tracking.wandb_mirror import WandbMirror
from rootflow.train.ema import ema_decay
from rootflow.train.loop import StepReport
from rootflow.train.recorder import Recorder
from rootflow.train.trainer import Trainer

BATCH_SIZE = 32
UNTIMED_STEPS = 50
STEPS = 500
PERIOD = 50
LR = 1e-3
CLIP = 1.0
STEPS_PER_EPOCH = 3_000  # a turn never comes to the end
WARMUP_STEPS = STEPS_PER_EPOCH  # as ours by default

Contender = Callable[["TimedLoader"], None]


class TurnOverError(Exception):
    """Ends a turn from within the loader, whatever loop reads it."""


class StepTime(NamedTuple):
    """Microseconds a step, in one turn."""

    whole: float
    """Mean of all."""
    undisturbed: float
    """Without what other programs did, see above."""


class TimedLoader(TensorLoader):
    """The data set in memory, batch by batch, which notes when each is asked for."""

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(super().__iter__(), -UNTIMED_STEPS):
            if number == 0:
                self.began_s = now_s(self.device)
                self.times_s: list[float] = []
            if number == STEPS:
                self.ended_s = now_s(self.device)
                raise TurnOverError
            if number >= 0:
                self.times_s.append(time.perf_counter())
            yield batch

    def step_time(self) -> StepTime:
        """Return what the last turn took."""
        steps_s = [after - before for before, after in pairwise([*self.times_s, self.ended_s])]
        places_s = [statistics.quantiles(steps_s[place::PERIOD])[0] for place in range(PERIOD)]
        return StepTime((self.ended_s - self.began_s) / STEPS * 1e6, statistics.mean(places_s) * 1e6)


def now_s(device: torch.device) -> float:
    """Return the time when the device has done everything."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def make_loader(device: torch.device) -> TimedLoader:
    """Return random data."""
    num_samples = STEPS_PER_EPOCH * BATCH_SIZE
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(num_samples, 64, generator=generator)
    targets = torch.randint(10, (num_samples,), generator=generator)
    order = BatchOrder(num_samples, BATCH_SIZE, is_train=True)
    return TimedLoader(TensorDataset(inputs, targets), order, device=device)


def make_model(device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)


def make_optimizer(model: nn.Module) -> Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=LR, fused=True)


def bare(loader: TimedLoader) -> None:
    """Forward, backward, step, and nothing else."""
    model = make_model(loader.device)
    optimizer = make_optimizer(model)
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()


def by_hand(loader: TimedLoader, *, clip: float | None) -> None:
    """Do by hand what rootflow does by default: a warm-up and an EMA."""
    model = make_model(loader.device)
    parameters = list(model.parameters())
    optimizer = make_optimizer(model)
    averages = [p.detach().clone() for p in parameters]
    share = 1 - ema_decay(len(loader))
    for step, (inputs, targets) in enumerate(loader):
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1.0, (step + 0.5) / WARMUP_STEPS)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, share)


@dataclass(frozen=True)
class Recording:
    """Where runs of rootflow are recorded."""

    folder: RunFolder
    mirror: WandbMirror
    console: Console
    keeper: WeightKeeper


@contextlib.contextmanager
def recording(parent: Path) -> Iterator[Recording]:
    """Open a run folder with everything that `rootflow train` opens, W&B offline."""
    provenance = Provenance(versions={}, hardware={})
    wandb = WandbSettings(mode="offline")
    with (
        RunFolder.create(parent, "overhead", config={}, config_yaml="", provenance=provenance) as folder,
        Console.open() as console,
        WandbMirror.open(wandb, folder.path, name="overhead", config={}, say=console.line) as mirror,
        WeightKeeper(folder.checkpoints_dir) as keeper,
    ):
        assert mirror.record["mode"] == "offline"
        yield Recording(folder, mirror, console, keeper)


def by_rootflow(loader: TimedLoader, *, to: Recording, clip: float | None) -> None:
    """Train by `Trainer.fit` at its defaults, in the number format of the others."""
    model = make_model(loader.device)
    trainer = Trainer(grad_clip_norm=clip, device=str(loader.device), precision="fp32")
    trainer.fit(
        model,
        loader,
        task=Classification(),
        optimizer=make_optimizer(model),
        scheduler=WarmupDecay,
        keeper=to.keeper,
        checkpoints=Checkpoints(to.folder.checkpoints_dir),
        hooks=[Recorder(to.folder, to.mirror, to.console, log_every=trainer.log_every)],
    )


def by_rootflow_alone(loader: TimedLoader) -> None:
    """Train by `Trainer.fit` with everything off that can be."""
    model = make_model(loader.device)
    trainer = Trainer(ema_decay=None, device=str(loader.device), precision="fp32")
    trainer.fit(model, loader, task=Classification(), optimizer=make_optimizer(model))


def take_turns(
    contenders: Mapping[str, Contender], loader: TimedLoader, rounds: int
) -> dict[str, list[StepTime]]:
    """Return what a step of each contender took in each round."""
    times: dict[str, list[StepTime]] = {name: [] for name in contenders}
    shuffle = random.Random(0).shuffle
    for number in range(rounds + 1):
        names = list(contenders)
        shuffle(names)
        for name in names:
            loader.set_epoch(number)
            gc.collect()
            gc.freeze()  # nobody's turn is to pay for what the libraries of others left behind
            with contextlib.suppress(TurnOverError):
                contenders[name](loader)
            if number:  # the first round warms up
                times[name].append(loader.step_time())
    return times


def compare_steps(device: torch.device, rounds: int, *, with_peers: bool) -> None:
    """Print a line for each contender: its step, and how much more it takes than which other one."""
    absent: list[str] = []
    with tempfile.TemporaryDirectory() as scratch, recording(Path(scratch)) as to:
        contenders: dict[str, Contender] = {
            "bare loop": bare,
            "by hand": functools.partial(by_hand, clip=None),
            "by hand, clipping": functools.partial(by_hand, clip=CLIP),
            "rootflow": functools.partial(by_rootflow, to=to, clip=None),
            "rootflow, clipping": functools.partial(by_rootflow, to=to, clip=CLIP),
            "rootflow, all off": by_rootflow_alone,
        }
        references = {"rootflow": "by hand", "rootflow, clipping": "by hand, clipping"}
        if with_peers:
            import peers

            found, absent = peers.find(make_model, make_optimizer)
            contenders |= found
        times = take_turns(contenders, make_loader(device), rounds)
    print(f"{'microseconds':22} {'a step':>7}   {'above':18} {'whole turns':>27} {'undisturbed':>27}")
    for name, measured in times.items():
        reference = references.get(name, "bare loop")
        cells = [difference(measured, times[reference], which) for which in StepTime._fields]
        typical = statistics.median(step.undisturbed for step in measured)
        print(f"{name:22} {typical:7.1f}   {reference:18} {cells[0]:>27} {cells[1]:>27}")
    if absent:
        print(f"not installed: {', '.join(absent)}")


def difference(measured: Sequence[StepTime], other: Sequence[StepTime], which: str) -> str:
    """Return the median difference of two contenders over the rounds, and its interval, as text."""
    pairs = zip(measured, other, strict=True)
    median, low, high = median_with_interval([getattr(a, which) - getattr(b, which) for a, b in pairs])
    return f"{median:+.1f} ({low:+.1f} to {high:+.1f})"


def median_with_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, and the order statistics that enclose the true one with 95 % certainty."""
    ordered, n = sorted(values), len(values)
    low = max(0, math.floor((n - 1.96 * math.sqrt(n)) / 2))
    return statistics.median(ordered), ordered[low], ordered[n - 1 - low]


def compare_epochs(device: torch.device, rounds: int) -> None:
    """Print how long an epoch over MNIST takes in either loop, for several sizes of a batch.

    The smaller the batch, the more of the epoch is the model's own updates, which are the same in both.
    """
    images, labels = load_images()
    for batch_size in (128, 512, 2048):
        compare_epochs_of(batch_size, images, labels, device, rounds)


def compare_epochs_of(
    batch_size: int, images: torch.Tensor, labels: torch.Tensor, device: torch.device, rounds: int
) -> None:
    """Print how long an epoch takes in either loop, and how far their losses are apart."""
    preprocess = Preprocess([0.1307], [0.3081])
    loader = build_loader(
        TensorDataset(images, labels),
        batch_size=batch_size,
        device=device,
        is_train=True,
        transform=preprocess,
    )
    assert isinstance(loader, TensorLoader)
    prepared = TensorDataset(preprocess(images, index=torch.arange(len(images)), epoch=0), labels)
    reading = {
        "usual": functools.partial(read, DataLoader(prepared, batch_size, shuffle=True)),
        "ours": functools.partial(read, loader),
    }
    training = {
        "usual": functools.partial(usual_epoch, prepared, loader.order, device),
        "ours": functools.partial(our_epoch, loader),
    }
    print(f"{f'an epoch, batch {batch_size}':22} {'usual':>8} {'rootflow':>8}   ratio")
    for name, epochs in {"reading alone": reading, "training": training}.items():
        times, losses = time_in_turns(epochs, device, rounds)
        usual, ours = times["usual"], times["ours"]
        ratio, low, high = median_with_interval([a / b for a, b in zip(usual, ours, strict=True)])
        for label, typical in ((name, statistics.median), (f"{name}, quickest", min)):
            seconds = f"{typical(usual):6.3f} s {typical(ours):6.3f} s"
            print(f"{label:22} {seconds}   {typical(usual) / typical(ours):.2f}")
        print(f"{'':40}   {ratio:.2f} ({low:.2f} to {high:.2f}) in the median round")
    apart = max(abs(a - b) for a, b in zip(losses["usual"], losses["ours"], strict=True))
    print(f"the {len(losses['ours'])} losses are {apart:.3g} apart at most")


def time_in_turns(
    epochs: Mapping[str, Callable[[], list[float]]], device: torch.device, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the seconds of each epoch in each round, and what each returned at last."""
    times: dict[str, list[float]] = {name: [] for name in epochs}
    returned: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for name, epoch in epochs.items():
            gc.collect()
            began_s = now_s(device)
            returned[name] = epoch()
            if number:  # the first round warms up
                times[name].append(now_s(device) - began_s)
    return times, returned


def read(loader: Iterable[Any]) -> list[float]:
    collections.deque(loader, maxlen=0)
    return []


def usual_epoch(dataset: TensorDataset, order: BatchOrder, device: torch.device) -> list[float]:
    """Train an epoch as tutorials do, in a given order; return the losses."""
    model = make_mnist_model(device)
    optimizer = make_optimizer(model)
    losses = []
    for inputs, targets in DataLoader(dataset, order.batch_size, sampler=order.positions(1).tolist()):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs.to(device)), targets.to(device))
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).tolist()


def our_epoch(loader: TensorLoader) -> list[float]:
    """Train the same epoch by `Trainer.fit`; return the losses."""
    model = make_mnist_model(loader.device)
    losses = Losses()
    trainer = Trainer(max_epochs=1, device=str(loader.device), precision="fp32")
    trainer.fit(model, loader, task=Classification(), optimizer=make_optimizer(model), hooks=[losses])
    return torch.stack(losses.seen).tolist()


class Losses:
    """Keeps the loss of each update."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_batch_end(self, report: StepReport) -> None:
        self.seen.append(report.loss)


def make_mnist_model(device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)


def load_images() -> tuple[Tensor, Tensor]:
    """Return the training images of MNIST, or noise of their shape where they aren't on this disk."""
    folder = default_root() / "mnist"
    try:
        images = read_idx(folder / "train-images-idx3-ubyte", (60_000, 28, 28))
        labels = read_idx(folder / "train-labels-idx1-ubyte", (60_000,))
    except FileNotFoundError:
        print(f"noise in place of MNIST, which is not in {folder}")
        return torch.randint(256, (60_000, 1, 28, 28), dtype=torch.uint8), torch.randint(10, (60_000,))
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long()


def main() -> None:
    """Print both comparisons."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=41, help="turns of each contender")
    parser.add_argument("--no-peers", action="store_true", help="leave other libraries out")
    parser.add_argument("--only", choices=("steps", "epoch"), help="one of the comparisons")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.set_num_threads(1)
    if args.only != "epoch":
        compare_steps(device, args.rounds, with_peers=not args.no_peers)
    if args.only != "steps":
        compare_epochs(device, max(args.rounds // 4, 5))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"torch {torch.__version__}, one thread; load average of the machine {load}")


if __name__ == "__main__":
    main()
