"""Every optimizer of torch is built from its conf file and trains through a closure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from rootflow.errors import ConfigError
from rootflow.optim.build_optimizer import build_optimizer
from rootflow.registry import find_component

CONF = Path(__file__).parents[2] / "conf" / "optimizer"

TORCH_OPTIMIZERS = {
    name: value
    for name, value in vars(torch.optim).items()
    if isinstance(value, type)
    and issubclass(value, torch.optim.Optimizer)
    and value is not torch.optim.Optimizer
}


def read_conf(name: str) -> dict[str, Any]:
    node: dict[str, Any] = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    return node


def build_from_conf(name: str, model: nn.Module) -> torch.optim.Optimizer:
    settings = {key: 0.01 if value == "auto" else value for key, value in read_conf(name).items()}
    component = find_component("optimizer", settings.pop("name")).load()
    return build_optimizer(component, model, settings)


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 3))


def make_closure(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], Tensor]:
    inputs = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
    targets = (inputs[:, 0] > 0).long()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        return loss

    return closure


def test_every_optimizer_of_torch_has_a_conf_file() -> None:
    names = {read_conf(path.stem)["name"] for path in CONF.glob("*.yaml")}
    # torch.optim.Muon takes 2-D parameters only; conf/optimizer/muon.yaml is the one for whole models.
    assert names == {"muon" if name == "Muon" else name for name in TORCH_OPTIMIZERS}
    assert len(names) == 15


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "sparse_adam")
)
def test_every_optimizer_reduces_the_loss_through_a_closure(name: str) -> None:
    model = make_model()
    optimizer = build_from_conf(name, model)
    closure = make_closure(model, optimizer)
    losses = [optimizer.step(closure).item() for _ in range(10)]
    assert closure().item() < losses[0]


def test_sparse_adam_reduces_the_loss_of_a_sparse_embedding() -> None:
    torch.manual_seed(0)
    model = nn.Embedding(5, 3, sparse=True)
    optimizer = build_from_conf("sparse_adam", model)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(torch.arange(5)), torch.tensor([0, 1, 2, 0, 1]))
        loss.backward()
        return loss

    first = optimizer.step(closure).item()
    assert closure().item() < first


def test_weight_decay_is_kept_from_biases_and_norms() -> None:
    optimizer = build_optimizer(torch.optim.SGD, make_model(), {"lr": 0.1, "weight_decay": 5e-4})
    assert [(g["weight_decay"], len(g["params"])) for g in optimizer.param_groups] == [(5e-4, 2), (0.0, 4)]


def test_the_decay_in_the_signature_counts_too() -> None:
    optimizer = build_optimizer(torch.optim.AdamW, make_model(), {})
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.01, 0.0]


def test_without_decay_there_is_one_group() -> None:
    for optimizer in (torch.optim.LBFGS, torch.optim.Adam):
        assert len(build_optimizer(optimizer, make_model(), {}).param_groups) == 1


@pytest.mark.parametrize(
    "optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad]
)
def test_the_fused_kernels_are_used_unless_the_settings_say_otherwise(optimizer) -> None:
    def fused(**settings: Any) -> Any:
        return build_optimizer(optimizer, make_model(), {"lr": 0.1, **settings}).param_groups[0]["fused"]

    assert fused() is True
    assert fused(fused=None) is True
    assert fused(fused=False) is False
    assert not fused(foreach=True)
    assert not fused(differentiable=True)


@pytest.mark.parametrize(
    "model",
    [nn.Embedding(5, 3, sparse=True), nn.Linear(3, 3, dtype=torch.complex64)],
    ids=["sparse gradients", "complex numbers"],
)
def test_the_fused_kernels_are_left_where_they_do_not_work(model: nn.Module) -> None:
    optimizer = build_optimizer(torch.optim.SGD, model, {"lr": 0.1})
    assert not optimizer.param_groups[0]["fused"]


def test_frozen_parameters_are_not_optimized() -> None:
    model = make_model()
    model[0].requires_grad_(False)
    for settings in ({}, {"weight_decay": 0.1}):
        optimizer = build_optimizer(torch.optim.SGD, model, {"lr": 0.1, **settings})
        assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


def test_a_function_that_only_takes_parameters_is_an_optimizer_too() -> None:
    def plain(parameters):
        return torch.optim.SGD(parameters, lr=0.3)

    optimizer = build_optimizer(plain, make_model(), {})
    assert (optimizer.param_groups[0]["lr"], len(optimizer.param_groups[0]["params"])) == (0.3, 6)


def test_a_class_of_the_user_gets_its_settings() -> None:
    class Signed(torch.optim.Optimizer):
        def __init__(self, params, **settings) -> None:
            super().__init__(params, settings)

    optimizer = build_optimizer(Signed, make_model(), {"lr": 0.3, "weight_decay": 0.1})
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.3, 0.1), (0.3, 0.0)]
    assert len(build_optimizer(Signed, make_model(), {"lr": 0.3}).param_groups) == 1


def test_a_function_whose_first_parameter_is_the_model_groups_it_itself() -> None:
    def layerwise(model: nn.Module, lr: float):
        return torch.optim.SGD(
            [{"params": layer.parameters(), "lr": lr} for layer in (model[0], model[3])], lr=lr
        )

    assert len(build_optimizer(layerwise, make_model(), {"lr": 0.1}).param_groups) == 2


@pytest.mark.parametrize(
    ("optimizer", "settings", "message"),
    [
        (torch.optim.SGD, {"lr": -1.0}, "torch.optim.*SGD: Invalid learning rate: -1.0"),
        (torch.optim.SGD, {"speed": 1.0}, "unexpected keyword argument 'speed'"),
        (torch.optim.SGD, {"lr": 0.1, "fused": True, "foreach": True}, "cannot be `True` together"),
        (torch.optim.Muon, {"lr": 0.1}, r"Muon only supports 2D .*optimizer=muon takes any model"),
    ],
)
def test_what_an_optimizer_refuses_is_a_mistake_in_the_config(optimizer, settings, message) -> None:
    with pytest.raises(ConfigError, match=message):
        build_optimizer(optimizer, make_model(), settings)


def test_a_model_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty parameter list"):
        build_optimizer(torch.optim.SGD, nn.ReLU(), {"lr": 0.1})
