"""Parts of a model that are trained in some epochs only."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from rootflow.errors import ConfigError
from rootflow.optim.build_optimizer import build_optimizer
from rootflow.optim.freezing import Freezing
from rootflow.optim.parameter_groups import Group
from rootflow.train.trainer import Trainer


@dataclass
class State:
    epoch: int


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1))


GROUPS = {
    "0.*": Group(frozen=True),
    "1.*": Group(unfreeze_at=3),
    "2.*": Group(unfreeze_at=1),
    "*.bias": Group(freeze_at=2),
}


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("group", "epochs"),
    [
        (Group(), {1, 2, 3, 4, 5}),
        (Group(frozen=True), set()),
        (Group(unfreeze_at=1), {1, 2, 3, 4, 5}),
        (Group(unfreeze_at=3), {3, 4, 5}),
        (Group(freeze_at=3), {1, 2}),
        (Group(freeze_at=1), set()),
        (Group(unfreeze_at=2, freeze_at=4), {2, 3}),
        (Group(unfreeze_at=4, freeze_at=2), {1, 4, 5}),
    ],
)
def test_in_which_epochs_a_group_is_trained(group: Group, epochs: set[int]) -> None:
    assert {epoch for epoch in range(1, 6) if group.is_trained_in(epoch)} == epochs


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"frozen": True, "unfreeze_at": 2}, "frozen is for good"),
        ({"frozen": True, "freeze_at": 2}, "frozen is for good"),
        ({"unfreeze_at": 2, "freeze_at": 2}, "unfreeze_at and freeze_at are both 2; leave one out"),
    ],
)
def test_a_group_says_one_thing_about_when_it_is_trained(said: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Group(**said)  # type: ignore[arg-type]


def test_what_is_trained_follows_the_epoch_and_all_is_given_back() -> None:
    model = make_model()
    hook = Freezing(model, GROUPS)
    found = []
    hook.on_run_start(State(epoch=0))
    for epoch in range(1, 4):
        hook.on_epoch_start(State(epoch))
        found.append(trained(model))
    every_weight = {"1.weight", "2.weight"}
    assert found == [{"0.bias", "1.bias", "2.bias", "2.weight"}, {"2.weight"}, every_weight]
    hook.on_run_end()
    assert len(trained(model)) == 6


@pytest.mark.parametrize("epoch", [0, 1, 2, 3])
def test_a_resumed_run_trains_what_its_epoch_does(epoch: int) -> None:
    model, resumed = make_model(), make_model()
    hook = Freezing(model, GROUPS)
    for passed in range(1, max(epoch, 1) + 1):
        hook.on_epoch_start(State(passed))
    Freezing(resumed, GROUPS).on_run_start(State(epoch))
    assert trained(resumed) == trained(model)


def test_what_others_froze_stays_frozen() -> None:
    model = make_model()
    model[1].requires_grad_(False)
    hook = Freezing(model, {"1.*": Group(unfreeze_at=2)})
    hook.on_epoch_start(State(2))
    hook.on_run_end()
    assert trained(model) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_parameters_change_in_their_epochs_and_momentum_waits() -> None:
    model = make_model()
    groups = {"0.*": Group(frozen=True), "1.*": Group(unfreeze_at=2, freeze_at=3)}
    optimizer = build_optimizer(
        torch.optim.SGD, model, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}, groups
    )
    hook = Freezing(model, groups)
    hook.on_run_start(State(0))
    changed = []
    for epoch in range(1, 5):
        hook.on_epoch_start(State(epoch))
        before = [layer.weight.detach().clone() for layer in model]  # type: ignore[union-attr]
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()  # the gradients stay, as in a loop that clears them before the backward pass only
        changed.append([not torch.equal(b, layer.weight) for b, layer in zip(before, model, strict=True)])
    assert changed == [[False, False, True], [False, True, True], [False, False, True], [False, False, True]]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_training_that_ends_early_gives_all_back(error: type[BaseException]) -> None:
    class Stopping:
        def on_batch_end(self) -> None:
            raise error

    model = make_model()
    data = DataLoader(TensorDataset(torch.ones(4, 3), torch.ones(4, 1)), batch_size=2)
    with pytest.raises(error):
        Trainer(max_epochs=1, device="cpu", precision="fp32").fit(
            model,
            data,
            loss="mse_loss",
            optimizer=torch.optim.SGD,
            hooks=[Freezing(model, GROUPS), Stopping()],
        )
    assert len(trained(model)) == 6


def test_a_pattern_without_a_parameter_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.groups\.head\.\* matches no parameter of the model"):
        Freezing(make_model(), {"head.*": Group(frozen=True)})
