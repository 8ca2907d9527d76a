"""What is due between two updates: evaluating, saving, cooling down; and what a resume and a mode restore."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from rootflow.checkpoint import Checkpoints
from rootflow.errors import ConfigError
from rootflow.tasks import LossTask
from rootflow.train.evaluation import evaluate
from rootflow.train.hooks import EvaluationReport
from rootflow.train.loop import StepReport
from rootflow.train.objective import count_samples, take_part
from rootflow.train.session import Session
from rootflow.train.trainer import Trainer

INPUTS = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(INPUTS, (INPUTS[:, 0] > 0).long())


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def make_trainer(**settings: Any) -> Trainer:
    return Trainer(**{"device": "cpu", "precision": "fp32", "batch_size": 8, **settings})


class Saves:
    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_checkpoint(self, path: Path) -> None:
        self.steps.append(int(path.name.removeprefix("step-")))


@pytest.mark.parametrize(
    ("every", "steps"), [("1 epochs", [8, 16, 24]), ("2 epochs", [16, 24]), ("10 steps", [10, 20, 24])]
)
def test_states_are_saved_every_so_often_and_at_the_end(every: str, steps: list[int], tmp_path: Path) -> None:
    saves = Saves()
    trainer = make_trainer(max_epochs=3, save_every=every)
    given: dict[str, Any] = {"checkpoints": Checkpoints(tmp_path), "hooks": [saves]}
    trainer.fit(make_model(), DATA, loss="cross_entropy", optimizer="sgd", **given)
    assert saves.steps == steps


def test_an_average_that_a_saved_state_lacks_starts_from_the_saved_weights(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    made: dict[str, Any] = {"loss": "cross_entropy", "optimizer": {"name": "SGD", "lr": 0.5}}
    first = make_trainer(max_epochs=5).fit(make_model(), DATA, DATA, checkpoints=checkpoints, **made)
    second = make_trainer(max_epochs=6, ema_decay=0.999).fit(
        make_model(), DATA, DATA, resume=checkpoints.load(), **made
    )
    assert second.last["val/loss"] == pytest.approx(first.last["val/loss"], rel=0.05)


class Accurate(nn.Module):
    """Measures what only it knows: a number that rises."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def validation_step(self, batch: Any) -> dict[str, float]:
        self.calls += 1
        return {"accuracy": self.calls / 100}


def test_a_plateau_of_what_nobody_knows_beforehand_is_refused_and_of_a_named_metric_is_right() -> None:
    def fit(**settings: Any) -> float:
        model = Accurate()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        make_trainer(max_epochs=6, **settings).fit(
            model, DATA, DATA, loss="cross_entropy", optimizer=optimizer,
            scheduler={"name": "ReduceLROnPlateau", "patience": 0},
        )  # fmt: skip
        return float(optimizer.param_groups[0]["lr"])

    with pytest.raises(ConfigError, match=r"set trainer\.monitor"):
        fit()
    assert fit(monitor="val/accuracy") == 0.1


def test_patience_lasts_500_updates_also_where_evaluations_are_frequent() -> None:
    model = make_model()
    trainer = make_trainer(eval_every="2 steps")
    result = trainer.fit(model, DATA, DATA, loss="cross_entropy", optimizer={"name": "SGD", "lr": 1e-9})
    assert result.stop_reason.startswith("no improvement in 250 evaluations")
    assert result.step == 502


def test_samples_end_a_training_with_its_schedule_also_where_batches_are_uneven() -> None:
    rates: list[float] = []

    class Rates:
        def on_batch_end(self, report: StepReport) -> None:
            rates.append(report.lr)

    loader = DataLoader(TensorDataset(INPUTS[:20], DATA.tensors[1][:20]), batch_size=8)  # 8, 8 and 4 samples
    result = make_trainer(max_samples=400, ema_decay=None).fit(
        make_model(), loader, loss="cross_entropy", optimizer={"name": "SGD", "lr": 0.1},
        scheduler={"name": "warmup_decay", "warmup": "0 steps"}, hooks=[Rates()],
    )  # fmt: skip
    assert result.step == 60
    assert result.stop_reason in ("max_samples reached", "max_samples; cooled down")
    assert rates[40] == 0.1
    assert 0 < rates[-1] < 0.02


def test_a_norm_that_came_in_evaluation_mode_is_not_trained() -> None:
    model = make_model()
    model[1].eval()
    before = model[1].running_mean.clone()
    make_trainer(max_epochs=2).fit(model, DATA, DATA, loss="cross_entropy", optimizer="sgd")
    assert torch.equal(model[1].running_mean, before)
    model.eval()
    make_trainer(max_epochs=1).fit(model, DATA, loss="cross_entropy", optimizer="sgd")
    assert not torch.equal(model[1].running_mean, before)


def test_an_epoch_that_a_limit_ends_with_its_last_batch_is_over() -> None:
    ended: list[int] = []

    class Epochs:
        def on_epoch_end(self, session: Session) -> None:
            ended.append(session.epoch)

    make_trainer(max_steps=16).fit(
        make_model(), DATA, loss="cross_entropy", optimizer="sgd", hooks=[Epochs()]
    )
    assert ended == [1, 2]


def test_the_best_weights_are_there_without_a_keeper() -> None:
    model, losses = make_model(), []

    class Losses:
        def on_post_performance_check(self, report: EvaluationReport) -> None:
            losses.append(report.metrics["val/loss"])

    result = make_trainer(max_epochs=4).fit(
        model, DATA, DATA, loss="cross_entropy", optimizer={"name": "SGD", "lr": 5.0}, hooks=[Losses()]
    )
    assert result.best_weights is not None
    model.load_state_dict(result.best_weights)
    model.eval()
    with torch.no_grad():
        loss = nn.functional.cross_entropy(model(INPUTS), DATA.tensors[1])
    assert float(loss) == pytest.approx(min(losses), rel=1e-5)
    assert min(losses) < losses[0]


def test_the_seed_decides_the_order_of_a_data_set() -> None:
    def first_batch(seed: int) -> Tensor:
        seen: list[Tensor] = []

        class Seeing:
            def on_batch_start(self, batch: Any) -> None:
                seen.append(batch[0])

        make_trainer(max_steps=1).fit(
            make_model(), DATA, loss="cross_entropy", optimizer="sgd", hooks=[Seeing()], seed=seed
        )
        return seen[0]

    assert torch.equal(first_batch(1), first_batch(1))
    assert not torch.equal(first_batch(1), first_batch(2))


class Rotary(nn.Module):
    """Keeps a table from its first pass, as rotary embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.tables: Any = None

    def forward(self, x: Tensor) -> Tensor:
        if self.tables is None:
            self.tables = {"pair": (torch.ones(2) * 2, [torch.ones(2)])}
        scale, (shift,) = self.tables["pair"]
        return self.layer(x) * scale + shift


def test_a_model_may_train_on_nested_tables_that_it_kept_from_an_evaluation() -> None:
    model = Rotary()
    trainer = make_trainer(max_epochs=1)
    arithmetic = trainer.arithmetic(model)
    evaluate(model, DataLoader(DATA, 8), arithmetic=arithmetic, task=LossTask("cross_entropy"))
    assert trainer.fit(model, DATA, loss="cross_entropy", optimizer="sgd").step == 8


def test_what_micro_batches_log_is_averaged_over_the_samples() -> None:
    class Logging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def training_step(self, batch: Any) -> tuple[Tensor, dict[str, Any]]:
            x, y = batch
            return nn.functional.cross_entropy(self.layer(x), y), {"mean": x.mean(), "note": "text"}

    logged: list[Any] = []

    class Logs:
        def on_batch_end(self, report: StepReport) -> None:
            logged.append(dict(report.logs))

    for micro in (8, 3):
        make_trainer(max_steps=1, micro_batch_size=micro).fit(
            Logging(), DATA, optimizer="sgd", hooks=[Logs()]
        )
    assert logged[0]["note"] == logged[1]["note"] == "text"
    assert float(logged[1]["mean"]) == pytest.approx(float(logged[0]["mean"]), abs=1e-6)


class Masked(nn.Module):
    """Has a mask of minus infinities, as attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.register_buffer("mask", torch.triu(torch.full((2, 2), -torch.inf), 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) @ self.mask.softmax(-1)


def test_an_average_leaves_masks_as_they_are() -> None:
    trainer = make_trainer(max_epochs=2, ema_decay=0.9)
    result = trainer.fit(Masked(), DATA, DATA, loss="cross_entropy", optimizer="sgd")
    assert 0 < result.last["val/loss"] < 2


def test_what_a_hook_gives_to_the_optimizer_is_trained_with_fresh_gradients() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.0)
    norms: list[float] = []

    class Adding:
        def on_epoch_start(self, session: Session) -> None:
            if session.epoch == 2:
                optimizer.add_param_group({"params": model[0].parameters()})

        def on_after_backward(self, session: Session) -> None:
            if session.epoch >= 2:
                norms.append(float(model[0].weight.grad.norm()))

    make_trainer(max_epochs=6, batch_size=64).fit(
        model, DATA, loss="cross_entropy", optimizer=optimizer, hooks=[Adding()]
    )
    assert norms == pytest.approx([norms[0]] * 5)


class Switching(torch.optim.SGD):
    """Evaluates at weights of its own, as schedule-free optimizers do."""

    is_training = False

    def train(self) -> None:
        self.is_training = True

    def eval(self) -> None:
        self.is_training = False

    def step(self, closure: Any = None) -> Any:
        assert self.is_training
        return super().step(closure)


def test_an_optimizer_with_modes_is_told_them() -> None:
    model = nn.Linear(4, 2)
    optimizer = Switching(model.parameters(), lr=0.1)
    modes: list[bool] = []
    model.register_forward_pre_hook(lambda *_: modes.append((model.training, optimizer.is_training)))
    make_trainer(max_steps=2, eval_every="1 steps", batch_size=64).fit(
        model, DATA, DATA, loss="cross_entropy", optimizer=optimizer
    )
    assert modes == [(True, True), (False, False)] * 2


def test_images_of_several_sizes_are_counted_one_by_one() -> None:
    images = [torch.ones(3, size, size) for size in (4, 5, 6, 7, 8)]
    targets = [torch.tensor(i % 2) for i in range(5)]
    assert count_samples((images, targets)) == 5
    assert take_part((images, targets), 3, 2, 5) == (images[3:], targets[3:])
    assert count_samples([torch.ones(4, 3), torch.ones(4)]) == 4  # a batch as default_collate makes it
