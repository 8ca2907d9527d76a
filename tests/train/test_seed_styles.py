"""Five styles of writing a model give one training."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rootflow.checkpoint import Checkpoints
from rootflow.train.loop import StepReport
from rootflow.train.trainer import FitResult, Trainer
from tests.train import seed_styles as styles
from tests.train.seed_styles import LR, make_loader

Run = tuple[nn.Module, FitResult]
SETTINGS: dict[str, Any] = {"max_epochs": 3, "device": "cpu", "precision": "fp32"}


def run_plain() -> Run:
    model = styles.PlainNet()
    return model, fit(Trainer(**SETTINGS), model)


def run_wrapped() -> Run:
    model = styles.WrappedModel()
    return model, fit(styles.EpochTrainer(**SETTINGS), model)


def run_problem() -> Run:
    model = styles.ClassificationProblem(styles.ProblemConfig())
    return model, Trainer(**SETTINGS).fit(model, make_loader(is_train=True), make_loader(is_train=False))


def run_config() -> Run:
    model = styles.ConfigModel(styles.CONFIG, styles.METADATA)
    return model, Trainer(**SETTINGS).fit(
        model,
        make_loader(is_train=True),
        make_loader(is_train=False),
        optimizer=torch.optim.SGD(model.parameters(), lr=LR),
    )


def run_lightning() -> Run:
    model = styles.CoolModel(argparse.Namespace(learning_rate=LR))
    return model, Trainer(**SETTINGS).fit(model)


def fit(trainer: Trainer, model: nn.Module) -> FitResult:
    return trainer.fit(
        model,
        make_loader(is_train=True),
        make_loader(is_train=False),
        loss="cross_entropy",
        optimizer=torch.optim.SGD(model.parameters(), lr=LR),
    )


def by_hand() -> tuple[nn.Module, float, float]:
    """Return a network, its mean loss in the third epoch, and that on the validation data after it."""
    model = styles.make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    loader = make_loader(is_train=True)
    for _ in range(3):
        losses = []
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item() * len(inputs))
    with torch.no_grad():
        val = sum(F.cross_entropy(model(x), y).item() * len(x) for x, y in make_loader(is_train=False)) / 64
    return model, sum(losses) / 70, val


class InterruptAt:
    """Ends the training in an update, as a signal or an error would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_batch_end(self, report: StepReport) -> None:
        if report.step == self.step:
            raise KeyboardInterrupt


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("run", [run_plain, run_wrapped, run_problem, run_config, run_lightning])
def test_every_style_trains_as_a_loop_written_by_hand_to_the_bit(run: Callable[[], Run]) -> None:
    torch.manual_seed(0)
    expected, train_loss, val_loss = by_hand()
    torch.manual_seed(0)
    model, result = run()
    assert torch.equal(weights(model), weights(expected))
    assert (result.step, result.epoch, result.stop_reason) == (15, 3, "max_epochs reached")
    assert result.last["train/loss"] == train_loss
    assert result.last["val/loss"] == val_loss
    assert 0 < val_loss < 1


def test_the_styles_inherit_from_torch_alone() -> None:
    classes = [
        styles.PlainNet, styles.WrappedModel, styles.ClassificationProblem, styles.ConfigModel, styles.CoolModel
    ]  # fmt: skip
    assert all(cls.__bases__ == (nn.Module,) for cls in classes)


def test_the_parts_of_a_loss_are_measured_beside_it() -> None:
    torch.manual_seed(0)
    _, result = run_config()
    assert result.last["val/cross_entropy"] == result.last["val/loss"]
    assert 1 / 3 < result.last["val/confidence"] < 1


def test_a_metric_and_logs_of_a_problem_are_measured() -> None:
    _, result = run_problem()
    assert result.last["val/num_samples"] == 64


def test_what_the_earliest_lightning_saves_and_loads_goes_through_a_checkpoint(tmp_path: Any) -> None:
    checkpoints = Checkpoints(tmp_path)
    torch.manual_seed(0)
    whole = styles.CoolModel(argparse.Namespace(learning_rate=LR))
    Trainer(**SETTINGS).fit(whole)

    torch.manual_seed(0)
    first = styles.CoolModel(argparse.Namespace(learning_rate=LR))
    with pytest.raises(KeyboardInterrupt):
        Trainer(**SETTINGS, save_every="3 steps").fit(first, checkpoints=checkpoints, hooks=[InterruptAt(8)])
    assert checkpoints.steps()[-1] == 6
    rest = styles.CoolModel(argparse.Namespace(learning_rate=LR))
    Trainer(**SETTINGS).fit(rest, resume=checkpoints.load())
    assert torch.equal(weights(rest), weights(whole))
