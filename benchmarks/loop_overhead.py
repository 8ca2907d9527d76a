"""What does the loop cost beside the model? The same training by rootflow and by a loop written by hand.

Both train the same model on the same resident data with the same optimizer, in one process, in turns.
What counts is the ratio of the two times, its median over the rounds: 1.00 means that rootflow costs nothing.

    python benchmarks/loop_overhead.py [--device cuda] [--rounds 9]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.data import TensorDataset

from rootflow.data.loaders import LoaderSettings, build_loader
from rootflow.models.convnet import ConvNet
from rootflow.models.mlp import MLP
from rootflow.tasks.classification import Classification
from rootflow.train.trainer import Trainer

NUM_SAMPLES = 8192


def by_hand(
    model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, batch_size: int, epochs: int
) -> None:
    """Train as a person would write it: shuffle, index, forward, backward, step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    for _ in range(epochs):
        order = torch.randperm(len(inputs)).to(inputs.device)
        for start in range(0, len(inputs) - batch_size + 1, batch_size):
            index = order[start : start + batch_size]
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(model(inputs[index]), targets[index])
            loss.backward()
            optimizer.step()
        loss.item()


def by_rootflow(
    model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, batch_size: int, epochs: int
) -> None:
    """Train the same by the Trainer."""
    device = inputs.device
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    loader = build_loader(
        TensorDataset(inputs, targets),
        batch_size=batch_size,
        device=device,
        is_train=True,
        seed=0,
        transform=None,
        settings=LoaderSettings(),
    )
    trainer = Trainer(max_epochs=epochs, device=str(device), precision="fp32", channels_last=False)
    trainer.fit(model, loader, task=Classification(), optimizer=optimizer)


def measure(
    make_model: Callable[[], nn.Module],
    inputs: torch.Tensor,
    targets: torch.Tensor,
    batch_size: int,
    rounds: int,
) -> tuple[float, float, float]:
    """Return the median ratio, and the two median times of a step in milliseconds."""
    times: dict[str, list[float]] = {"hand": [], "rootflow": []}
    for round_index in range(rounds + 1):
        for name, train in (("hand", by_hand), ("rootflow", by_rootflow)):
            torch.manual_seed(0)
            model = make_model().to(inputs.device)
            if inputs.device.type == "cuda":
                torch.cuda.synchronize()
            started = time.perf_counter()
            train(model, inputs, targets, batch_size, epochs=4)
            if inputs.device.type == "cuda":
                torch.cuda.synchronize()
            if round_index:  # the first round warms up
                times[name].append(time.perf_counter() - started)
    steps = 4 * (len(inputs) // batch_size)
    ratios = [r / h for r, h in zip(times["rootflow"], times["hand"], strict=True)]
    hand, ours = (statistics.median(times[name]) / steps * 1e3 for name in ("hand", "rootflow"))
    return statistics.median(ratios), hand, ours


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    device = torch.device(args.device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(NUM_SAMPLES, 1, 8, 8, generator=generator).to(device)
    targets = torch.randint(10, (NUM_SAMPLES,), generator=generator).to(device)
    cases: list[tuple[str, Callable[[], nn.Module]]] = [
        ("mlp", lambda: MLP(in_features=64, num_classes=10)),
        ("convnet", lambda: ConvNet(in_channels=1, num_classes=10)),
    ]
    print(f"{'model':8} {'batch':>5} {'by hand':>10} {'rootflow':>10} {'ratio':>6}")
    for name, make_model in cases:
        for batch_size in (128, 512):
            ratio, hand, ours = measure(make_model, images, targets, batch_size, args.rounds)
            print(f"{name:8} {batch_size:5} {hand:7.3f} ms {ours:7.3f} ms {ratio:6.3f}", flush=True)


if __name__ == "__main__":
    main()
