"""Everything that a training needs, built; and running it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rootflow.checkpoint import Checkpoint, Checkpoints, WeightKeeper
from rootflow.data.loaders import Loader
from rootflow.tasks import Task
from rootflow.train.evaluation import evaluate
from rootflow.train.own_trainer import fit_by
from rootflow.train.recorder import Recorder
from rootflow.train.trainer import FitResult, Trainer


@dataclass
class Training:
    """Everything that a training needs, built."""

    trainer: Trainer
    model: nn.Module
    task: Task
    optimizer: Optimizer | None
    """None where the model configures its own."""
    scheduler: LRScheduler | None
    train: Loader
    val: Loader | None
    test: Loader | None
    hooks: Sequence[object] = ()
    """What the config asks for beside the recorder."""
    own_data: Collection[str] = ()
    """Splits of which the model itself brings the data."""
    own_trainer: object | None = None
    """One of the user's that isn't ours; it then does the training."""

    def fit(
        self,
        keeper: WeightKeeper,
        recorder: Recorder,
        *,
        checkpoints: Checkpoints | None = None,
        resume: Checkpoint | None = None,
    ) -> FitResult:
        """Train; the keeper then holds the best and the last weights."""
        if self.own_trainer is not None:
            return self._fit_by_own(keeper, recorder)
        return self.trainer.fit(
            self.model,
            None if "train" in self.own_data else self.train,
            None if "val" in self.own_data else self.val,
            task=self.task,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            keeper=keeper,
            checkpoints=checkpoints,
            resume=resume,
            hooks=[*self.hooks, recorder],
        )

    def _fit_by_own(self, keeper: WeightKeeper, recorder: Recorder) -> FitResult:
        fit = fit_by(
            self.own_trainer,
            {
                "model": self.model,
                "task": self.task,
                "loss": self.task.loss,
                "train": self.train,
                "val": self.val,
                "test": self.test,
                "train_loader": self.train,
                "val_loader": self.val,
                "test_loader": self.test,
                "optimizer": self.optimizer,
                "scheduler": self.scheduler,
                "device": torch.device(self.trainer.device),
                "folder": keeper.folder.parent,
                "log": recorder.log,
                "recorder": recorder,
                "keeper": keeper,
            },
        )
        keeper.keep(("best", "last"), self.model, fit.best)
        recorder.on_run_end()
        return fit

    def close(self) -> None:
        """Stop the processes that read samples."""
        for loader in (self.train, self.val, self.test):
            getattr(loader, "close", lambda: None)()

    def test_metrics(self) -> dict[str, float]:
        """Evaluate the model as it is on the test split."""
        if self.test is None:
            return {}
        arithmetic = self.trainer.arithmetic(self.model)
        measured = evaluate(self.model, self.test, task=self.task, arithmetic=arithmetic, stage="test")
        return {f"test/{name}": value for name, value in measured.items()}
