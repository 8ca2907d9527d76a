"""Other libraries' training loops, for overhead.py: each at its defaults, on its model and its batches.

Loaders that a library would wrap are handed over as they are, which spares it that cost.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

MakeModel = Callable[[torch.device], nn.Module]
MakeOptimizer = Callable[[nn.Module], Optimizer]
Train = Callable[[Any], None]


def find(make_model: MakeModel, make_optimizer: MakeOptimizer) -> tuple[dict[str, Train], list[str]]:
    """Return what trains a new model on a loader, for each library installed; and which aren't."""
    known: dict[str, tuple[str, Callable[[MakeModel, MakeOptimizer], Train]]] = {
        "Lightning": ("lightning", lightning),
        "Accelerate": ("accelerate", accelerate),
        "Ignite": ("ignite", ignite),
        "Ignite with its bar": ("ignite", ignite_with_bar),
        "HF Trainer": ("transformers", hf_trainer),
        "skorch": ("skorch", skorch),
        "Keras": ("keras", keras),
    }
    is_installed = {name: importlib.util.find_spec(module) is not None for name, (module, _) in known.items()}
    found = {
        name: _quiet(make(make_model, make_optimizer))
        for name, (_, make) in known.items()
        if is_installed[name]
    }
    return found, [name for name, is_there in is_installed.items() if not is_there]


def lightning(make_model: MakeModel, make_optimizer: MakeOptimizer) -> Train:
    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
            inputs, targets = batch
            return nn.functional.cross_entropy(self.model(inputs), targets)

        def configure_optimizers(self) -> Optimizer:
            return make_optimizer(self)

    def train(loader: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            trainer = lightning.Trainer(max_epochs=1, accelerator=loader.device.type, default_root_dir=folder)
            trainer.fit(Module(make_model(loader.device)), loader)

    return train


def accelerate(make_model: MakeModel, make_optimizer: MakeOptimizer) -> Train:
    from accelerate import Accelerator

    def train(loader: Any) -> None:
        accelerator = Accelerator(cpu=loader.device.type == "cpu")
        model = make_model(loader.device)
        model, optimizer = accelerator.prepare(model, make_optimizer(model))
        for inputs, targets in loader:
            with accelerator.accumulate(model):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(inputs), targets)
                accelerator.backward(loss)
                optimizer.step()

    return train


def ignite(make_model: MakeModel, make_optimizer: MakeOptimizer) -> Train:
    return _ignite(make_model, make_optimizer, has_bar=False)


def ignite_with_bar(make_model: MakeModel, make_optimizer: MakeOptimizer) -> Train:
    return _ignite(make_model, make_optimizer, has_bar=True)


def _ignite(make_model: MakeModel, make_optimizer: MakeOptimizer, *, has_bar: bool) -> Train:
    from ignite.engine import create_supervised_trainer
    from ignite.handlers import ProgressBar

    def train(loader: Any) -> None:
        model = make_model(loader.device)
        trainer = create_supervised_trainer(
            model, make_optimizer(model), nn.CrossEntropyLoss(), loader.device
        )
        if has_bar:
            ProgressBar().attach(trainer, output_transform=lambda loss: {"loss": loss})
        trainer.run(loader, max_epochs=1)

    return train


def hf_trainer(make_model: MakeModel, make_optimizer: MakeOptimizer) -> Train:
    import transformers

    class Model(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.model(inputs)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    class Named:
        """The batches by the names of the model's arguments."""

        def __init__(self, loader: Any) -> None:
            self.loader = loader

        def __len__(self) -> int:
            return len(self.loader)

        def __iter__(self) -> Iterable[dict[str, Tensor]]:
            for inputs, targets in self.loader:
                yield {"inputs": inputs, "labels": targets}

    def train(loader: Any) -> None:
        model = Model(make_model(loader.device))
        with tempfile.TemporaryDirectory() as folder:
            settings = transformers.TrainingArguments(
                folder, num_train_epochs=1, use_cpu=loader.device.type == "cpu", report_to=[]
            )
            trainer = transformers.Trainer(
                model, settings, train_dataset=[{}], optimizers=(make_optimizer(model), None)
            )
            trainer.get_train_dataloader = lambda: Named(loader)
            trainer.train()

    return train


def skorch(make_model: MakeModel, make_optimizer: MakeOptimizer) -> Train:  # noqa: ARG001  # it makes its own
    from skorch import NeuralNetClassifier

    def train(loader: Any) -> None:
        net = NeuralNetClassifier(
            make_model(loader.device),
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.AdamW,
            optimizer__fused=True,
            lr=1e-3,
            iterator_train=lambda dataset, **_: loader,  # noqa: ARG005
            train_split=None,
            max_epochs=1,
            device=str(loader.device),
        )
        net.fit(torch.zeros(4, 64), torch.tensor([0, 1, 2, 3]))

    return train


def keras(make_model: MakeModel, make_optimizer: MakeOptimizer) -> Train:  # noqa: ARG001  # it has its own
    import keras

    def train(loader: Any) -> None:
        layers = [keras.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)]
        model = keras.Sequential(layers)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=keras.optimizers.AdamW(1e-3), loss=loss)
        model.fit(iter(loader), steps_per_epoch=len(loader), epochs=1)

    return train


def _quiet(train: Train) -> Train:
    """Return the same with its bars and messages written to nowhere."""

    def train_quietly(loader: Any) -> None:
        with (
            Path(os.devnull).open("w") as null,
            contextlib.redirect_stdout(null),
            contextlib.redirect_stderr(null),
        ):
            train(loader)

    return train_quietly
