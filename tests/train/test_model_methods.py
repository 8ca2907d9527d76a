"""What a model brings along by the names of its methods: optimizers, data, what it saves, how it is evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset

from rootflow.checkpoint import Checkpoints
from rootflow.errors import ConfigError, RunError
from rootflow.optim.schedules import WarmupDecay
from rootflow.train.evaluation import evaluate
from rootflow.train.loop import StepReport
from rootflow.train.precision import Arithmetic
from rootflow.train.trainer import FitResult, Trainer


class Net(nn.Module):
    """Two layers, so that two optimizers can have one each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(self.first(inputs).relu())  # type: ignore[no-any-return]


class Lrs:
    """Notes the learning rate of every update."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_batch_end(self, report: StepReport) -> None:
        self.seen.append(round(report.lr, 6))


def make_data(num_samples: int = 16, seed: int = 0) -> TensorDataset:
    inputs = torch.randn(num_samples, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(inputs, inputs.sum(dim=1, keepdim=True))


def make_loader(num_samples: int = 16, batch_size: int = 4, seed: int = 0) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(make_data(num_samples, seed), batch_size=batch_size)


def make_trainer(**settings: Any) -> Trainer:
    return Trainer(**{"max_epochs": 2, "device": "cpu", "precision": "fp32", **settings})


def fit(model: nn.Module, *data: Any, hooks: Any = (), **given: Any) -> FitResult:
    """Train for two epochs of four updates, by an SGD unless the model has optimizers itself."""
    if not hasattr(model, "configure_optimizers"):
        given.setdefault("optimizer", SGD(model.parameters(), lr=0.1))
    return make_trainer().fit(model, *data, loss="mse_loss", hooks=hooks, **given)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def stepping(optimizer: Any) -> StepLR:
    return StepLR(optimizer, 1, gamma=0.5)


def one(model: Net) -> Any:
    return SGD(model.parameters(), lr=0.1)


def one_in_a_list(model: Net) -> Any:
    return [one(model)]


def both_halves(model: Net) -> Any:
    return [SGD(model.first.parameters(), lr=0.1), SGD(model.second.parameters(), lr=0.1)]


def both_halves_by_name(model: Net) -> Any:
    return dict(zip(("first", "second"), both_halves(model), strict=True))


def lists(model: Net) -> Any:
    optimizer = one(model)
    return [optimizer], [stepping(optimizer)]


def pair(model: Net) -> Any:
    optimizer = one(model)
    return optimizer, stepping(optimizer)


def of_a_dict(model: Net) -> Any:
    optimizer = one(model)
    return {"optimizer": optimizer, "lr_scheduler": stepping(optimizer)}


def of_a_dict_alone(model: Net) -> Any:
    return {"optimizer": one(model)}


def by_epochs(model: Net) -> Any:
    optimizer = one(model)
    scheduler = {"scheduler": stepping(optimizer), "interval": "epoch"}
    return {"optimizer": optimizer, "lr_scheduler": scheduler}


def by_steps(model: Net) -> Any:
    optimizer = one(model)
    return [optimizer], [{"scheduler": stepping(optimizer), "interval": "step"}]


CONSTANT = [0.1] * 8
BY_EPOCH = [0.1] * 4 + [0.05] * 4
FORMS: dict[Any, list[float]] = {
    one: CONSTANT,
    one_in_a_list: CONSTANT,
    both_halves: CONSTANT,
    both_halves_by_name: CONSTANT,
    of_a_dict_alone: CONSTANT,
    lists: BY_EPOCH,
    pair: BY_EPOCH,
    of_a_dict: BY_EPOCH,
    by_epochs: BY_EPOCH,
    by_steps: [0.1, 0.05, 0.025, 0.0125, 0.00625, 0.003125, 0.001563, 0.000781],
}


def configured(form: Any) -> Net:
    class Configured(Net):
        def configure_optimizers(self) -> Any:
            return form(self)

    return Configured()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_optimizers_and_schedulers_are_taken_in_each_form(form: Any) -> None:
    model, lrs = configured(form), Lrs()
    fit(model, make_loader(), hooks=[lrs])
    assert lrs.seen == FORMS[form]
    by_hand = Net()
    optimizer = SGD(by_hand.parameters(), lr=0.1)
    batches = [*make_loader(), *make_loader()]
    for lr, (inputs, targets) in zip([0.1 * 0.5**k for k in exponents(form)], batches, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        F.mse_loss(by_hand(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert torch.equal(weights(model), weights(by_hand))


def exponents(form: Any) -> list[int]:
    """Return how often the learning rate was halved before each update."""
    return {0.1: [0] * 8, 0.05: [0] * 4 + [1] * 4}.get(FORMS[form][-1], [*range(8)])


def test_a_scheduler_of_the_model_may_follow_the_monitored_value() -> None:
    def following(model: Net) -> Any:
        optimizer = SGD(model.parameters(), lr=0.0)
        return optimizer, ReduceLROnPlateau(optimizer, patience=0, factor=0.5, min_lr=0)

    model = configured(following)
    assert fit(model, make_loader(), make_loader(seed=1)).step == 8


def test_what_is_no_optimizer_is_refused_with_the_forms_there_are() -> None:
    for returned in (None, [], "adam", {"sgd": "adam"}, [1, 2, 3]):
        with pytest.raises(
            ConfigError, match=r"^configure_optimizers returned \w+; it may return an optimizer, "
        ):
            fit(configured(lambda _, returned=returned: returned), make_loader())


def test_an_optimizer_from_both_sides_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^Configured has configure_optimizers, and an optimizer was given too"
    ):
        fit(configured(one), make_loader(), optimizer=AdamW)
    with pytest.raises(ConfigError, match=r"^configure_optimizers returns schedulers, and one was given too"):
        fit(configured(pair), make_loader(), scheduler=StepLR)


def test_without_an_optimizer_anywhere_the_ways_to_give_one_are_told() -> None:
    with pytest.raises(
        ConfigError, match=r"^there is no optimizer: give one, or a model with configure_optim"
    ):
        fit(Net(), make_loader(), optimizer=None)


def test_a_scheduler_may_be_given_for_the_optimizer_of_the_model() -> None:
    lrs = Lrs()
    fit(configured(one), make_loader(), scheduler=WarmupDecay, hooks=[lrs])
    assert lrs.seen[0] > lrs.seen[-1] > 0


class WithLoaders(Net):
    """Its data, one of each kind of attribute that PyTorch users write."""

    def __init__(self) -> None:
        super().__init__()
        self.test_dataloader = make_loader(seed=2)

    def train_dataloader(self) -> DataLoader[Any]:
        return make_loader()

    @property
    def val_dataloader(self) -> DataLoader[Any]:
        return make_loader(seed=1)


def test_the_data_of_a_model_is_what_it_trains_and_is_evaluated_on() -> None:
    own, given = WithLoaders(), Net()
    result = fit(own)
    assert result.last == fit(given, make_loader(), make_loader(seed=1)).last
    assert torch.equal(weights(own), weights(given))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ((make_loader(),), "WithLoaders has train_dataloader, and train data was given too; leave one of them away."),
        ((None, make_loader()), "WithLoaders has val_dataloader, and val data was given too; leave one of them away."),
    ],
)  # fmt: skip
def test_data_from_both_sides_is_refused(data: Any, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        fit(WithLoaders(), *data)
    assert str(refused.value) == told


def test_without_data_anywhere_the_ways_to_give_some_are_told() -> None:
    with pytest.raises(
        ConfigError, match=r"^there is nothing to train on: give data, or a model with train_data"
    ):
        fit(Net())


def test_an_attribute_error_inside_a_loader_is_shown_as_it_is() -> None:
    class Broken(Net):
        @property
        def train_dataloader(self) -> Any:
            return self.first.wieght

    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'wieght'"):
        fit(Broken())


class Remembering(Net):
    """Saves a number beside its weights, and notes every load."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = 1.0
        self.loads: list[Mapping[str, Any]] = []

    def on_batch_end(self) -> None:
        self.temperature *= 0.5

    def get_save_dict(self) -> dict[str, Any]:
        return {"temperature": self.temperature, "optimizer": "mine", "table": torch.arange(3)}

    def load_model_specific(self, saved: Mapping[str, Any]) -> None:
        self.temperature = saved["temperature"]
        self.loads.append(saved)


class StopAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def on_batch_end(self, report: StepReport) -> None:
        if report.step == self.step:
            raise KeyboardInterrupt


def test_what_a_model_saves_beside_its_weights_comes_back_to_it_once(tmp_path: Path) -> None:
    checkpoints, whole, first, rest = Checkpoints(tmp_path), Remembering(), Remembering(), Remembering()
    fit(whole, make_loader())
    with pytest.raises(KeyboardInterrupt):
        make_trainer(save_every="3 steps").fit(
            first, make_loader(), loss="mse_loss", optimizer=SGD(first.parameters(), lr=0.1),
            checkpoints=checkpoints, hooks=[StopAt(5)],
        )  # fmt: skip
    fit(rest, make_loader(), resume=checkpoints.load())
    assert rest.temperature == whole.temperature == 0.5**8
    assert torch.equal(weights(rest), weights(whole))
    (loaded,) = rest.loads
    assert (loaded["temperature"], loaded["optimizer"], loaded["table"].tolist()) == (
        0.5**3,
        "mine",
        [0, 1, 2],
    )
    assert (first.loads, whole.loads) == ([], [])


def test_check_performance_is_the_whole_evaluation() -> None:
    class Checking(Net):
        def check_performance(self, loader: Iterable[Any], num_tests: int | None) -> dict[str, Any]:
            assert not self.training
            assert not torch.is_grad_enabled()
            return {"num_batches": len(list(loader)), "num_tests": num_tests, "loss": 0.25}

    result = fit(Checking(), make_loader(), make_loader(num_samples=10, seed=1))
    assert {name: value for name, value in result.last.items() if name.startswith("val/")} == {
        "val/num_batches": 3, "val/num_tests": 3, "val/loss": 0.25
    }  # fmt: skip


def test_check_performance_takes_data_of_which_nobody_knows_the_length() -> None:
    class Checking(Net):
        def check_performance(self, loader: Iterable[Any], num_tests: int | None) -> float:
            assert num_tests is None
            return float(sum(len(inputs) for inputs, _ in loader))

    def samples() -> Any:
        yield from zip(*make_data(10).tensors, strict=True)

    assert fit(Checking(), make_loader(), samples).last["val/performance"] == 10.0


class Validating(Net):
    """Evaluates batch by batch; keeps what `validation_end` was given."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[list[Any]] = []

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> Any:
        assert not self.training
        inputs, targets = batch
        return F.mse_loss(self(inputs), targets), {"index": index, "size": len(inputs), "text": "a"}


def test_validation_end_gets_every_output_once_in_order() -> None:
    class Ending(Validating):
        def validation_end(self, outputs: list[Any]) -> dict[str, float]:
            self.ends.append([(logs["index"], logs["size"]) for _, logs in outputs])
            return {"worst": max(float(loss) for loss, _ in outputs)}

    model = Ending()
    result = fit(model, make_loader(), make_loader(num_samples=10, seed=1))
    assert model.ends == [[(0, 4), (1, 4), (2, 2)]] * 2
    assert set(result.last) == {"train/loss", "val/worst"}
    assert result.best["val/worst"] <= result.last["val/worst"]


def test_without_an_end_numbers_are_averaged_over_the_samples_of_an_uneven_last_batch() -> None:
    model = Validating()
    result = fit(model, make_loader(), make_loader(num_samples=10, seed=1))
    inputs, targets = make_data(10, seed=1).tensors
    with torch.no_grad():
        assert result.last["val/loss"] == pytest.approx(F.mse_loss(model(inputs), targets).item(), rel=1e-6)
    assert result.last["val/index"] == (0 * 4 + 1 * 4 + 2 * 2) / 10
    assert result.last["val/size"] == (16 + 16 + 4) / 10
    assert "val/text" not in result.last


def test_a_validation_that_returns_no_number_is_refused() -> None:
    class Silent(Net):
        def validation_step(self, batch: Any) -> Any:
            return {"text": "a"}

    with pytest.raises(RunError, match=r"^the model's validation returned dict without a number"):
        fit(Silent(), make_loader(), make_loader())


def test_an_evaluation_leaves_modes_and_gradients_as_they_were_also_when_it_fails() -> None:
    class Failing(Net):
        def validation_step(self, batch: Any) -> Any:
            raise ValueError("in validation")

    model = Failing()
    model.second.eval()
    with pytest.raises(ValueError, match="in validation"):
        evaluate(model, make_loader(), arithmetic=Arithmetic(torch.device("cpu")))
    assert (model.training, model.first.training, model.second.training) == (True, True, False)
    assert torch.is_grad_enabled()


def test_the_test_step_is_for_the_test_and_the_validation_step_in_its_place() -> None:
    class Testing(Net):
        def validation_step(self, batch: Any) -> dict[str, float]:
            return {"which": 1.0}

        def test_step(self, batch: Any, index: int) -> dict[str, float]:
            return {"which": 2.0, "last": index}

    class WithoutTest(Net):
        def validation_step(self, batch: Any) -> dict[str, float]:
            return {"which": 1.0}

        def check_performance(self, loader: Any) -> float:
            raise AssertionError("that is for the validation")

    arithmetic = Arithmetic(torch.device("cpu"))
    assert evaluate(Testing(), make_loader(), arithmetic=arithmetic, stage="test") == {
        "which": 2.0,
        "last": 1.5,
    }
    assert evaluate(Testing(), make_loader(), arithmetic=arithmetic) == {"which": 1.0}
    assert evaluate(WithoutTest(), make_loader(), arithmetic=arithmetic, stage="test") == {"which": 1.0}
    assert fit(Testing(), make_loader(), make_loader()).last["val/which"] == 1.0
