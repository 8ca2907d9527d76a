"""Is the learning rate that we find a good one? Points of test accuracy lost against the best of a grid.

    python benchmarks/discovery.py [--cases digits-mlp-sgd ...] [--more] [--steps 600 250] [--seeds 3]
                                   [--cache FILE] [--no-peers]

Eight cases: digits, Fashion-MNIST at 14 x 14 and CIFAR-10 at 16 x 16 pixels (12,000 samples each of the last
two), MLPs and CNNs with BatchNorm, SGD with Nesterov momentum and AdamW. A training has 400 to 560 updates,
warms up over a tenth of them and decays linearly to 0; all of it is written out below and knows nothing of
rootflow. The best learning rate is that of a grid of factor 1.78, which goes on until two rates in a row are
2 points worse; its accuracy is the mean over the seeds. A finder searches once for each seed, and what it
suggests is trained in full, at exactly that rate, with that seed. `--more` takes other cases, on which
nothing was tuned.

The bar: at most 0.5 points lost in all but one case, never more than 1.5; none diverges; at most 600 updates.

Peers: Lightning's Tuner and torch-lr-finder by their own code, if they are installed; fastai's four rules by
the formulas of its source (fastai/callback/schedule.py), as installing it takes torchvision. All at their
defaults. Trainings are kept in the cache, from which an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import logging
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from rootflow.data.cifar import cifar10
from rootflow.data.digits import digits
from rootflow.data.mnist import fashion_mnist
from rootflow.data.splits import Split
from rootflow.discover.learning_rate import search_lr, split_held_out
from rootflow.discover.settings import LrSettings
from rootflow.discover.trials import Trials
from rootflow.tasks.classification import Classification
from rootflow.train.precision import Arithmetic

NUM_TRAIN, NUM_TEST = 12_000, 5_000
CLEARLY_WORSE = 2.0
CHANCE = 20.0
"""Accuracy below which a training of ten classes has diverged, or learned nothing."""


class Data(NamedTuple):
    """Standardised images (sample, channel, height, width) and their classes."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


@dataclass(frozen=True)
class Case:
    """What is trained, and for how long."""

    data: str
    make_model: Callable[[], nn.Module]
    optimizer: str
    batch_size: int
    num_steps: int


class Searched(NamedTuple):
    """What a finder says."""

    lr: float | None
    num_steps: int
    elapsed_s: float


def mlp(num_inputs: int) -> nn.Module:
    """Return 256 and 128 hidden units."""
    layers = [nn.Linear(num_inputs, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)]
    return nn.Sequential(nn.Flatten(), *layers)


def cnn(channels: int, *widths: int) -> nn.Module:
    """Return convolutions with BatchNorm, each but the last halves the image."""
    layers: list[nn.Module] = []
    for number, width in enumerate(widths):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if number < len(widths) - 1 else []
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


OPTIMIZERS: dict[str, Callable[[Any, float], Optimizer]] = {
    "sgd": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, nesterov=True, weight_decay=5e-4),
    "adamw": lambda p, lr: torch.optim.AdamW(p, lr, fused=True),
}
SHAPES: dict[str, tuple[str, Callable[[], nn.Module], int, int]] = {
    "digits-mlp": ("digits", lambda: mlp(64), 64, 400),
    "fashion-mlp": ("fashion", lambda: mlp(196), 128, 470),
    "fashion-cnn": ("fashion", lambda: cnn(1, 12, 24, 48), 128, 470),
    "cifar-cnn": ("cifar", lambda: cnn(3, 12, 24, 48), 128, 560),
}
MORE: dict[str, tuple[str, Callable[[], nn.Module], int, int]] = {
    "digits-cnn": ("digits", lambda: cnn(1, 16, 32), 64, 400),
    "fashion-mlp-b32": ("fashion", lambda: mlp(196), 32, 1_200),
    "fashion-mlp-b1024": ("fashion", lambda: mlp(196), 1_024, 240),
    "cifar-mlp": ("cifar", lambda: mlp(768), 128, 560),
}
"""Shapes on which nothing was tuned: another model, smaller and larger batches, a harder task."""


def cases_of(shapes: dict[str, tuple[str, Callable[[], nn.Module], int, int]]) -> dict[str, Case]:
    """Return each shape with each optimizer."""
    return {
        f"{name}-{optimizer}": Case(data, make_model, optimizer, batch_size, num_steps)
        for name, (data, make_model, batch_size, num_steps) in shapes.items()
        for optimizer in OPTIMIZERS
    }


def load(name: str) -> Data:
    """Return a data set as the cases use it."""
    order = torch.Generator().manual_seed(0)
    if name == "digits":
        x, y = digits(split=Split(val_frac=0, test_frac=0)).train.tensors
        chosen = torch.randperm(len(x), generator=order)
        x, y = x[chosen], y[chosen]
        return standardised(Data(x[:1197], y[:1197], x[1197:], y[1197:]))
    splits = {"fashion": fashion_mnist, "cifar": cifar10}[name](split=Split(val_frac=0), download=False)
    (x, y), (test_x, test_y) = splits.train.tensors, splits.test.tensors
    chosen = torch.randperm(len(x), generator=order)[:NUM_TRAIN]
    data = Data(halved(x[chosen]), y[chosen], halved(test_x[:NUM_TEST]), test_y[:NUM_TEST])
    return standardised(data)


def halved(images: Tensor) -> Tensor:
    """Return images of uint8 at half their size."""
    return F.avg_pool2d(images.float() / 255, 2)


def standardised(data: Data) -> Data:
    """Return images of mean 0 and standard deviation 1 in each channel."""
    mean, std = data.x.mean((0, 2, 3), keepdim=True), data.x.std((0, 2, 3), keepdim=True)
    return data._replace(x=(data.x - mean) / std, test_x=(data.test_x - mean) / std)


def batches_of(data: Data, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield full batches for ever, each pass in another order."""
    order = torch.Generator().manual_seed(seed)
    while True:
        chosen = torch.randperm(len(data.x), generator=order)
        for start in range(0, len(chosen) - size + 1, size):
            part = chosen[start : start + size]
            yield data.x[part], data.y[part]


def train(case: Case, data: Data, lr: float, seed: int) -> float:
    """Return the accuracy on the test set in percent after a whole training; 0 where the loss broke."""
    torch.manual_seed(seed)
    model = case.make_model()
    optimizer = OPTIMIZERS[case.optimizer](model.parameters(), lr)
    batches = batches_of(data, case.batch_size, seed)
    warmup = round(0.1 * case.num_steps)
    for step in range(case.num_steps):
        rest = (case.num_steps - step) / (case.num_steps - warmup)
        optimizer.param_groups[0]["lr"] = lr * ((step + 1) / warmup if step < warmup else rest)
        x, y = next(batches)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0 and not math.isfinite(loss.item()):
            return 0.0
    model.eval()
    with torch.no_grad():
        outputs = torch.cat([model(x) for x in data.test_x.split(500)])
    return 100 * float((outputs.argmax(1) == data.test_y).float().mean())


class Trainings:
    """Whole trainings, each made once: a file holds their accuracies."""

    def __init__(self, path: Path | None, seeds: Sequence[int]) -> None:
        self.path = path
        self.seeds = seeds
        self.known: dict[str, float] = json.loads(path.read_text()) if path and path.exists() else {}

    def accuracy(self, name: str, case: Case, data: Data, lr: float, seed: int) -> float:
        """Return the accuracy that a learning rate leads to."""
        key = f"{name} lr={lr:.6g} seed={seed}"
        if key not in self.known:
            self.known[key] = train(case, data, lr, seed)
            if self.path:
                self.path.write_text(json.dumps(self.known, indent=0))
        return self.known[key]

    def grid(self, name: str, case: Case, data: Data) -> dict[float, float]:
        """Return mean accuracies by learning rate, from the middle outward until it is clearly worse."""
        found: dict[float, float] = {}
        for direction in (1, -1):
            place, num_worse = (-3 if case.optimizer == "sgd" else -8), 0
            while num_worse < 2:
                lr = 10 ** (place / 4)
                found[lr] = statistics.fmean(self.accuracy(name, case, data, lr, s) for s in self.seeds)
                is_worse = found[lr] < max(found.values()) - CLEARLY_WORSE
                num_worse = num_worse + 1 if is_worse else 0
                place += direction
        return found


Finder = Callable[[Case, Data, int], Searched]


def fresh(case: Case, seed: int, lr: float) -> tuple[nn.Module, Optimizer]:
    """Return the model that a training begins with, and its optimizer."""
    torch.manual_seed(seed)
    model = case.make_model()
    return model, OPTIMIZERS[case.optimizer](model.parameters(), lr)


def ours(max_steps: int) -> Finder:
    """Return our search within a number of updates."""

    def find(case: Case, data: Data, seed: int) -> Searched:
        model, optimizer = fresh(case, seed, 1e-3)
        source = batches_of(data, case.batch_size, seed + 100)
        drawn = [next(source) for _ in range(min(len(data.x) // case.batch_size, 256))]
        with Trials(
            model, Classification(), [optimizer], arithmetic=Arithmetic(torch.device("cpu"))
        ) as trials:
            report = search_lr(trials, *split_held_out(drawn), settings=LrSettings(), max_steps=max_steps)
        return Searched(report.suggestion, report.num_steps, report.elapsed_s)

    return find


def fastai(rule: Callable[[Tensor, Tensor], float]) -> Finder:
    """Return `Learner.lr_find` of fastai with one of its rules."""

    def find(case: Case, data: Data, seed: int) -> Searched:
        began = time.perf_counter()
        model, optimizer = fresh(case, seed, 1e-7)
        lrs, losses = fastai_curve(model, optimizer, batches_of(data, case.batch_size, seed + 100))
        lr = rule(torch.tensor(lrs[10:-5]), torch.tensor(losses[10:-5]))
        return Searched(lr, len(lrs), time.perf_counter() - began)

    return find


def fastai_curve(
    model: nn.Module, optimizer: Optimizer, batches: Iterator[tuple[Tensor, Tensor]]
) -> tuple[list[float], list[float]]:
    """Return learning rates and smoothed losses: `LRFinder` and `AvgSmoothLoss(beta=0.98)`."""
    lrs, losses, total, best = [], [], 0.0, math.inf
    for number in range(100):
        lr = 1e-7 * (10 / 1e-7) ** (number / 100)
        optimizer.param_groups[0]["lr"] = lr
        x, y = next(batches)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total = 0.98 * total + 0.02 * loss.item()
        smooth = total / (1 - 0.98 ** (number + 1))
        if math.isnan(smooth):
            break
        lrs.append(lr)
        losses.append(smooth)
        best = min(best, smooth)
        if smooth > 4 * best:
            break
    return lrs, losses


def fastai_valley(lrs: Tensor, losses: Tensor) -> float:
    n, longest, start, end = len(losses), [1] * len(losses), 0, 0
    for i in range(1, n):
        for j in range(i):
            if losses[i] < losses[j] and longest[i] < longest[j] + 1:
                longest[i] = longest[j] + 1
            if longest[end] < longest[i]:
                end = i
                start = end - longest[end]
    sections = (end - start) / 3
    return float(lrs[start + int(sections) + int(sections / 2)])


def fastai_slide(lrs: Tensor, losses: Tensor) -> float:
    slopes = np.gradient(losses.numpy())
    right, left = -1, -16
    found = lrs[left]
    while left >= -len(losses) and abs(slopes[right] - slopes[left]) > 0.005:
        found = lrs[left]
        right, left = right - 1, left - 1
    return float(found)


def fastai_steep(lrs: Tensor, losses: Tensor) -> float:
    return float(lrs[((losses[1:] - losses[:-1]) / (lrs[1:].log() - lrs[:-1].log())).argmin()])


def fastai_minimum(lrs: Tensor, losses: Tensor) -> float:
    return float(lrs[losses.argmin()]) / 10


def lightning(case: Case, data: Data, seed: int) -> Searched:
    """Return what Lightning's `Tuner.lr_find` suggests."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.tuner import Tuner

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.lr = 1e-3
            self.model, _ = fresh(case, seed, 1e-3)

        def training_step(self, batch: Any, _: int) -> Tensor:
            return F.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> Optimizer:
            return OPTIMIZERS[case.optimizer](self.parameters(), self.lr)

    began = time.perf_counter()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = Trainer(accelerator="cpu", max_epochs=100, enable_checkpointing=False, **quiet)
    found = Tuner(trainer).lr_find(Module(), train_dataloaders=peer_loader(case, data, seed))
    assert found is not None
    return Searched(found.suggestion(), len(found.results["lr"]), time.perf_counter() - began)


def torch_lr_finder(case: Case, data: Data, seed: int) -> Searched:
    """Return what the plot of torch-lr-finder suggests."""
    from matplotlib.figure import Figure
    from torch_lr_finder import LRFinder

    began = time.perf_counter()
    model, optimizer = fresh(case, seed, 1e-7)
    finder = LRFinder(model, optimizer, nn.CrossEntropyLoss(), device="cpu")
    finder.range_test(peer_loader(case, data, seed), end_lr=10, num_iter=100)
    _, lr = finder.plot(ax=Figure().add_subplot(), suggest_lr=True)
    return Searched(lr, len(finder.history["lr"]), time.perf_counter() - began)


def peer_loader(case: Case, data: Data, seed: int) -> DataLoader[Any]:
    order = torch.Generator().manual_seed(seed + 100)
    dataset = TensorDataset(data.x, data.y)
    return DataLoader(dataset, case.batch_size, shuffle=True, drop_last=True, generator=order)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep what peers print, log and warn of from the table."""
    logging.disable(logging.CRITICAL)
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def is_installed(package: str) -> bool:
    """Whether a peer's code is here; says so where it isn't."""
    found = importlib.util.find_spec(package) is not None
    if not found:
        print(f"not compared: {package} is not installed")
    return found


def compare(
    names: dict[str, Case], finders: dict[str, Finder], trainings: Trainings
) -> dict[str, list[tuple[float, int, int]]]:
    """Print a row for each case and finder; return by finder points lost, failed trainings, and updates."""
    results: dict[str, list[tuple[float, int, int]]] = {name: [] for name in finders}
    for name, case in names.items():
        data = load(case.data)
        grid = trainings.grid(name, case, data)
        best = max(grid, key=lambda lr: grid[lr])
        shown = "  ".join(f"{lr:.2g}: {accuracy:.1f}" for lr, accuracy in sorted(grid.items()))
        print(f"\n{name}: best {best:.3g} with {grid[best]:.2f} %\n    {shown}", flush=True)
        for title, find in finders.items():
            with silence():
                found = [find(case, data, seed) for seed in trainings.seeds]
            reached = [
                trainings.accuracy(name, case, data, item.lr, seed) if item.lr else 0.0
                for item, seed in zip(found, trainings.seeds, strict=True)
            ]
            lost = grid[best] - statistics.fmean(reached)
            num_failed = sum(accuracy < CHANCE for accuracy in reached)
            most = max(item.num_steps for item in found)
            results[title].append((lost, num_failed, most))
            lrs = ", ".join("none" if item.lr is None else f"{item.lr:.2g}" for item in found)
            seconds = statistics.fmean(item.elapsed_s for item in found)
            row = f"lost {lost:6.2f}  updates {most:4d}  {seconds:5.1f} s  lr {lrs}"
            print(f"    {title:20s} {row}{f'  {num_failed} failed' if num_failed else ''}", flush=True)
    return results


def judge(results: dict[str, list[tuple[float, int, int]]]) -> None:
    """Print how each finder stands to the bar."""
    print(f"\n{'':20s} lost <= 0.5      mean     worst  failed  updates")
    for title, rows in results.items():
        lost = [row[0] for row in rows]
        good, worst, failed = sum(x <= 0.5 for x in lost), max(lost), sum(row[1] for row in rows)
        most = max(row[2] for row in rows)
        is_met = good >= len(rows) - 1 and worst <= 1.5 and not failed and most <= 600
        numbers = f"{statistics.fmean(lost):9.2f} {worst:9.2f} {failed:7d} {most:8d}"
        print(f"{title:20s} {good:6d} of {len(rows)} {numbers}  {'met' if is_met else 'missed'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", nargs="*", help="names; all if left away")
    parser.add_argument("--more", action="store_true", help="the cases on which nothing was tuned")
    parser.add_argument(
        "--steps", type=int, nargs="*", default=[600], help="updates that our search may take"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, help="a file for the accuracies of trainings")
    parser.add_argument("--no-peers", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    known = cases_of(MORE if args.more else SHAPES)
    finders: dict[str, Finder] = {f"rootflow, {steps}": ours(steps) for steps in args.steps}
    if not args.no_peers:
        peers = {"lightning": lightning, "torch_lr_finder": torch_lr_finder}
        finders |= {package: find for package, find in peers.items() if is_installed(package)}
        rules = (fastai_valley, fastai_slide, fastai_steep, fastai_minimum)
        finders |= {rule.__name__.replace("_", " "): fastai(rule) for rule in rules}
    cases = {name: case for name, case in known.items() if args.cases is None or name in args.cases}
    judge(compare(cases, finders, Trainings(args.cache, range(args.seeds))))


if __name__ == "__main__":
    main()
