"""One network in five styles of writing a model, each as its authors would, ported as far as it must be.

All are a `torch.nn.Module` and inherit from nothing of rootflow; the docstrings are the porting notes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, TensorDataset

from rootflow.train.session import Session
from rootflow.train.trainer import Trainer

LR = 0.2


def make_loader(*, is_train: bool) -> DataLoader[tuple[Tensor, ...]]:
    """Return five batches of 14, or two of 32: three classes that two of six numbers decide."""
    generator = torch.Generator().manual_seed(int(is_train))
    inputs = torch.randn(70 if is_train else 64, 6, generator=generator)
    data = TensorDataset(inputs, (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long())
    return DataLoader(data, batch_size=14 if is_train else 32, shuffle=is_train, generator=generator)


def make_net(num_inputs: int = 6, width: int = 16, num_classes: int = 3) -> nn.Sequential:
    """Return the network that every style holds; its weights are those of the global seed."""
    return nn.Sequential(nn.Linear(num_inputs, width), nn.ReLU(), nn.Linear(width, num_classes))


class PlainNet(nn.Module):
    """rootflow's own style: a module, and no more. Data, loss and optimizer are given to `fit`."""

    def __init__(self) -> None:
        super().__init__()
        self.net = make_net()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs)  # type: ignore[no-any-return]


class WrappedModel(nn.Module):
    """A wrapper around a network at `self.net`, with the import path and the name to build it again.

    Port: inherit from `nn.Module` in place of the framework's model class. The other attributes may stay;
    nobody needs them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.net = make_net()
        self.import_path = "tests.train.seed_styles"
        self.model_name = "WrappedModel"

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs)  # type: ignore[no-any-return]


class EpochTrainer(Trainer):
    """A trainer of one's own that writes `train_epoch` itself, and leaves `val_epoch` to the class.

    Port: batches come from `session.batches()`, so that a resumed training goes on with the right one;
    `position.advance` counts an update, and `session.end_pass()` says that the epoch's data is used up. Hooks
    on updates and limits within an epoch are the loop's own business now.
    """

    def train_epoch(self, session: Session) -> None:
        """Train on one epoch, as a loop written by hand does."""
        model, (optimizer,) = session.state.model, session.state.optimizers
        model.train()
        for inputs, targets in session.batches():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            session.state.position.advance(loss.detach(), len(inputs))
        session.end_pass()


@dataclass
class ProblemConfig:
    """What the problem is built from."""

    num_inputs: int = 6
    width: int = 16
    num_classes: int = 3
    lr: float = LR
    weight_decay: float = 0.0


class ClassificationProblem(nn.Module):
    """A problem: it makes the model and the optimizer from a dataclass, and says what a step is.

    Port: inherit from `nn.Module`, so that its model's parameters are found; `train_step(data, it)` is called
    `training_step`, `validation(ds)` is called `check_performance`, and the optimizer is returned by
    `configure_optimizers`. What they take and return stays: `(loss, logs)` and `(metric, logs)`.
    """

    def __init__(self, cfg: ProblemConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.model = make_net(cfg.num_inputs, cfg.width, cfg.num_classes)

    def configure_optimizers(self) -> Optimizer:
        """Return what was made in the constructor, where there were no parameters to move yet."""
        return SGD(self.model.parameters(), lr=self.cfg.lr, weight_decay=self.cfg.weight_decay)

    def training_step(self, data: tuple[Tensor, Tensor], it: int) -> tuple[Tensor, dict[str, Any]]:
        """Return the loss of a batch, and logs; `it` is the batch's index in the epoch."""
        inputs, targets = data
        loss = F.cross_entropy(self.model(inputs), targets)
        return loss, {"loss": loss, "iteration": it}

    def check_performance(self, ds: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, dict[str, Any]]:
        """Return the metric over a data set, and logs."""
        total, num_samples = 0.0, 0
        for inputs, targets in ds:
            total += float(F.cross_entropy(self.model(inputs), targets)) * len(targets)
            num_samples += len(targets)
        return total / num_samples, {"num_samples": num_samples}


CONFIG: dict[str, Any] = {
    "model": {"type": "mlp", "layers": {"hidden": 16}},
    "loss": {"type": "cross_entropy", "weights": {"confidence": 0.0}},
}
METADATA: dict[str, Any] = {"input_shape": (6,), "num_classes": 3, "name": "toy"}


class ConfigModel(nn.Module):
    """A model built from a nested config, and from metadata of the data; outputs and losses are dicts.

    Port: inherit from `nn.Module`; `compute_loss(out, targets)` is called `loss`. Its dict needs a `loss`; the
    other parts are logged.
    """

    def __init__(self, config: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        super().__init__()
        self.config, self.metadata = config, metadata
        (num_inputs,) = metadata["input_shape"]
        self.layers = make_net(num_inputs, config["model"]["layers"]["hidden"], metadata["num_classes"])

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        logits = self.layers(inputs)
        return {"logits": logits, "confidence": logits.softmax(dim=1).amax(dim=1)}

    def loss(self, out: Mapping[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """Return the loss and its parts, weighted as the config says."""
        parts = {
            "cross_entropy": F.cross_entropy(out["logits"], targets),
            "confidence": out["confidence"].mean(),
        }
        weight = self.config["loss"]["weights"]["confidence"]
        return {"loss": parts["cross_entropy"] + weight * parts["confidence"], **parts}


class CoolModel(nn.Module):
    """The ten methods of the earliest Lightning, by the names and in the forms of its document.

    Port: inherit from `nn.Module` in place of `RootModule`. `add_model_specific_args` may stay; nobody calls it,
    for parameters are the constructor's.
    """

    def __init__(self, hparams: argparse.Namespace) -> None:
        super().__init__()
        self.hparams = hparams
        self.l1 = make_net()

    def training_step(self, data_batch: Any) -> tuple[Tensor, dict[str, Any]]:
        """Called with a batch; returns a scalar, and a dict for logging."""
        x, y = data_batch
        loss_val = F.cross_entropy(self.l1(x), y)
        return loss_val, {"loss_train": loss_val, "whatever_you_want": "a"}

    def validation_step(self, data_batch: Any) -> tuple[Tensor, dict[str, Any]]:
        """Called with a batch of the validation data."""
        x, y = data_batch
        loss_val = F.cross_entropy(self.l1(x), y)
        return loss_val, {"whatever_you_want": "a"}

    def validation_end(self, outputs: list[Any]) -> dict[str, float]:
        """Called with what all validation steps returned; collates it."""
        return {"loss": sum(float(loss_val) for loss_val, _ in outputs) / len(outputs)}

    def get_save_dict(self) -> dict[str, Any]:
        """Return what is to be saved."""
        return {"state_dict": self.state_dict()}

    def load_model_specific(self, checkpoint: Mapping[str, Any]) -> None:
        """Called with what was saved."""
        self.load_state_dict(checkpoint["state_dict"])

    def configure_optimizers(self) -> list[Optimizer]:
        """Return a list of optimizers."""
        return [SGD(self.parameters(), lr=self.hparams.learning_rate)]

    @property
    def tng_dataloader(self) -> DataLoader[Any]:
        """The training data."""
        return make_loader(is_train=True)

    @property
    def val_dataloader(self) -> DataLoader[Any]:
        """The validation data."""
        return make_loader(is_train=False)

    @property
    def test_dataloader(self) -> DataLoader[Any]:
        """The test data, which a training never asks for."""
        raise AssertionError("the training asked for the test data")

    @staticmethod
    def add_model_specific_args(parent_parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        """Nobody calls this."""
        raise AssertionError("add_model_specific_args was called")
