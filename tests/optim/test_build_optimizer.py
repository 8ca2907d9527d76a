"""Every optimizer of torch is built from its conf file and trains through a closure."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from rootflow.errors import ConfigError
from rootflow.optim.build_optimizer import build_optimizer, groups_of, make_optimizer
from rootflow.optim.parameter_groups import Group
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


def test_a_function_that_returns_no_optimizer_is_told() -> None:
    with pytest.raises(
        ConfigError, match=r"forgetful returned None; it must return a torch\.optim\.Optimizer"
    ):
        build_optimizer(forgetful, make_model(), {})


def forgetful(parameters: Any) -> None:
    torch.optim.SGD(parameters, lr=0.1)


def test_an_optimizer_that_is_built_is_returned_as_it_is_if_it_holds_some_of_the_model() -> None:
    model, other = make_model(), make_model()
    for parameters in (model.parameters(), [model[0].weight], [other[0].weight, model[3].bias]):
        given = torch.optim.SGD(parameters, lr=0.1)
        assert make_optimizer(given, model) is given


def test_an_optimizer_of_another_model_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="the Adam holds no parameter of this model, and would train nothing"
    ):
        make_optimizer(torch.optim.Adam(make_model().parameters()), make_model())


def layerwise(model: nn.Module, lr: float = 0.7) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": layer.parameters()} for layer in (model[0], model[3])], lr=lr)


@pytest.mark.parametrize(
    ("optimizer", "name", "lr", "decays"),
    [
        (torch.optim.AdamW, "AdamW", 1e-3, [0.01, 0.0]),
        (functools.partial(torch.optim.AdamW, lr=0.2, weight_decay=0.3), "AdamW", 0.2, [0.3, 0.0]),
        (lambda parameters: torch.optim.SGD(parameters, lr=0.3), "SGD", 0.3, [0]),
        (layerwise, "SGD", 0.7, [0, 0]),
        ("AdamW", "AdamW", 1e-3, [0.01, 0.0]),
        ("adamw", "AdamW", 1e-3, [0.01, 0.0]),  # the option; its lr is auto
        ("sgd", "SGD", 1e-3, [5e-4, 0.0]),
        ("muon", "MuonWithAdamW", 1e-3, [0.1, 0.1, 0.0]),
        ({"name": "SGD", "lr": 0.2, "weight_decay": 0.1}, "SGD", 0.2, [0.1, 0.0]),
        ({"_target_": "torch.optim.Adam", "lr": "auto", "betas": [0.5, 0.9]}, "Adam", 1e-3, [0]),
        ({"name": "SGD", "lr": 0.2, "groups": {"0.*": {"lr_scale": 2.0}}}, "SGD", 0.2, [0, 0]),
    ],
)
def test_an_optimizer_is_made_of_what_stands_for_one(
    optimizer: Any, name: str, lr: float, decays: Any
) -> None:
    made = make_optimizer(optimizer, make_model())
    assert (type(made).__name__, made.param_groups[0]["lr"]) == (name, lr)
    assert [group["weight_decay"] for group in made.param_groups] == decays


def test_groups_are_those_that_a_node_says() -> None:
    assert groups_of({"name": "SGD", "groups": {"0.*": {"unfreeze_at": 2}}}) == {"0.*": Group(unfreeze_at=2)}
    for other in ("sgd", torch.optim.SGD, torch.optim.SGD(make_model().parameters())):
        assert groups_of(other) == {}


def test_values_of_a_node_have_the_types_that_are_declared() -> None:
    made = make_optimizer({"name": "Adam", "betas": [0.5, 0.9]}, make_model())
    assert made.param_groups[0]["betas"] == (0.5, 0.9)
    assert type(made.param_groups[0]["betas"]) is tuple


@pytest.mark.parametrize(
    ("optimizer", "told"),
    [
        ("adamm", r"optimizer\.name is 'adamm', which is not registered\. Did you mean 'Adam"),
        ({"lr": 0.1}, "names no component; add `name` or `_target_`"),
        (3, "optimizer is 3; it must be one that is built, a class or function"),
        (functools.partial(torch.optim.SGD, [1]), "with arguments by name"),
        ({"name": "SGD", "lr": -1.0}, "Invalid learning rate: -1.0"),
        ({"name": "SGD", "groups": {"0.*": {"lr_scal": 2.0}}}, r"optimizer\.groups: .* argument 'lr_scal'"),
        (
            {"name": "SGD", "groups": {"0.*": {"frozen": True, "freeze_at": 2}}},
            r"optimizer\.groups: frozen is for good; leave out unfreeze_at and freeze_at",
        ),
    ],
)
def test_what_stands_for_no_optimizer_is_told(optimizer: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make_optimizer(optimizer, make_model())
