"""Weight decay reaches matrices and kernels, and nothing else; parts of a model have their own settings."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from rootflow.errors import ConfigError
from rootflow.models.resnet import ResNet
from rootflow.optim.build_optimizer import build_optimizer
from rootflow.optim.muon import muon
from rootflow.optim.parameter_groups import Group, match_groups, parameter_groups
from rootflow.optim.schedules import WarmupDecay


def names_by_decay(model: nn.Module, weight_decay: float = 0.1) -> dict[float, set[str]]:
    names = {id(p): name for name, p in model.named_parameters()}
    groups = parameter_groups(model, weight_decay=weight_decay)
    return {group["weight_decay"]: {names[id(p)] for p in group["params"]} for group in groups}


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.conv = nn.Conv1d(4, 4, 3)
        self.batch_norm = nn.BatchNorm1d(4)
        self.group_norm = nn.GroupNorm(2, 4)
        self.layer_norm = nn.LayerNorm((4, 6))  # its weight has two dimensions
        self.rms_norm = nn.RMSNorm((4, 6))
        self.attention = nn.MultiheadAttention(4, 2)
        self.head = nn.Linear(4, 2)
        self.temperature = nn.Parameter(torch.tensor(1.0))


def test_only_matrices_and_kernels_are_decayed() -> None:
    model = Everything()
    found = names_by_decay(model)
    assert found[0.1] == {
        "conv.weight", "attention.in_proj_weight", "attention.out_proj.weight", "head.weight"
    }  # fmt: skip
    assert found[0.1] | found[0.0] == {name for name, _ in model.named_parameters()}
    assert not found[0.1] & found[0.0]


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    assert names_by_decay(model) == {0.1: {"1.weight"}, 0.0: {"1.bias"}}


def test_a_group_without_parameters_is_not_there() -> None:
    assert names_by_decay(nn.Linear(3, 3, bias=False)) == {0.1: {"weight"}}
    assert names_by_decay(nn.BatchNorm1d(3)) == {0.0: {"weight", "bias"}}


def test_a_weight_shared_with_an_embedding_comes_once_and_is_spared() -> None:
    model = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Embedding(5, 4))
    model[0].weight = model[1].weight
    assert [(g["weight_decay"], len(g["params"])) for g in parameter_groups(model, weight_decay=0.1)] == [
        (0.0, 1)
    ]


def test_in_a_residual_network_every_norm_is_spared() -> None:
    found = names_by_decay(ResNet(3, 10, depth=20, width=4))
    assert found[0.0] == {
        name for name, p in ResNet(3, 10, depth=20, width=4).named_parameters() if p.ndim == 1
    }
    assert len(found[0.1]) == 19 + 2 + 1  # convolutions, projections, head


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 4))
        self.head = nn.Linear(4, 2)


def named_groups(optimizer: Optimizer, model: nn.Module) -> list[tuple[float, float, set[str]]]:
    """Return the learning rate, the decay and the parameters' names of each of an optimizer's groups."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [
        (group["lr"], group.get("weight_decay", 0.0), {names[id(p)] for p in group["params"]})
        for group in optimizer.param_groups
    ]


WEIGHTS = {"backbone.0.weight", "backbone.2.weight"}
SPARED = {"backbone.0.bias", "backbone.1.weight", "backbone.1.bias", "backbone.2.bias"}


def test_each_part_has_its_rate_and_its_decay_and_norms_and_biases_are_spared_in_all() -> None:
    model = Net()
    groups = {"backbone.*": Group(lr_scale=0.1, weight_decay=0.5)}
    optimizer = build_optimizer(torch.optim.AdamW, model, {"lr": 2.0, "weight_decay": 0.3}, groups)
    assert named_groups(optimizer, model) == [
        (2.0, 0.3, {"head.weight"}),
        (2.0, 0.0, {"head.bias"}),
        (0.2, 0.5, WEIGHTS),
        (0.2, 0.0, SPARED),
    ]


def test_a_part_may_be_decayed_where_the_rest_is_not() -> None:
    model = Net()
    groups = {"backbone.*": Group(weight_decay=0.5)}
    optimizer = build_optimizer(torch.optim.SGD, model, {"lr": 2.0}, groups)
    assert named_groups(optimizer, model) == [
        (2.0, 0.0, {"head.weight", "head.bias"}),
        (2.0, 0.5, WEIGHTS),
        (2.0, 0.0, SPARED),
    ]


def test_the_last_pattern_that_matches_decides() -> None:
    model = Net()
    general, special = {"*": Group(lr_scale=0.5)}, {"*.weight": Group(lr_scale=3.0)}
    optimizer = build_optimizer(torch.optim.SGD, model, {"lr": 1.0}, general | special)
    weights = {name for name, _ in model.named_parameters() if name.endswith("weight")}
    assert [(lr, len(names), names >= weights) for lr, _, names in named_groups(optimizer, model)] == [
        (0.5, 4, False),
        (3.0, 4, True),
    ]
    optimizer = build_optimizer(torch.optim.SGD, model, {"lr": 1.0}, special | general)
    assert [(lr, len(names)) for lr, _, names in named_groups(optimizer, model)] == [(0.5, 8)]


def test_a_shared_parameter_goes_by_any_of_its_names() -> None:
    model = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Embedding(5, 4))
    model[0].weight = model[1].weight
    matched = match_groups(model, {"1.*": Group(lr_scale=2.0)})
    assert [p is model[0].weight for p in matched["1.*"]] == [True]


def test_what_is_frozen_for_good_is_not_in_the_optimizer_and_what_is_frozen_for_now_is() -> None:
    for optimizer_class in (torch.optim.SGD, torch.optim.Adagrad):
        model = Net()
        groups = {"backbone.*": Group(frozen=True), "backbone.2.*": Group(unfreeze_at=4)}
        optimizer = build_optimizer(optimizer_class, model, {"lr": 1.0}, groups)
        assert [names for _, _, names in named_groups(optimizer, model)] == [
            {"head.weight", "head.bias"},
            {"backbone.2.weight", "backbone.2.bias"},
        ]
        optimizer.load_state_dict(optimizer.state_dict())  # nothing is kept of what has left


def test_every_scheduler_keeps_the_ratios() -> None:
    model = Net()
    optimizer = build_optimizer(torch.optim.SGD, model, {"lr": 1.0}, {"head.*": Group(lr_scale=10.0)})
    scheduler = WarmupDecay(optimizer, 8, steps_per_epoch=4)
    for _ in range(7):
        optimizer.step()
        scheduler.step()
        assert optimizer.param_groups[1]["lr"] == 10 * optimizer.param_groups[0]["lr"]


def test_muon_has_groups_too() -> None:
    model = Net()
    groups = {"backbone.2.*": Group(lr_scale=0.5, weight_decay=0.0), "*.1.*": Group(frozen=True)}
    optimizer = build_optimizer(muon, model, {"lr": 0.1, "weight_decay": 0.2}, groups)
    found = [
        (group["is_muon"], *rest)
        for group, rest in zip(optimizer.param_groups, named_groups(optimizer, model), strict=True)
    ]
    assert found == [
        (True, 0.1, 0.2, {"backbone.0.weight"}),
        (False, 0.1, 0.2, {"head.weight"}),
        (False, 0.1, 0.0, {"backbone.0.bias", "head.bias"}),
        (True, 0.05, 0.0, {"backbone.2.weight"}),
        (False, 0.05, 0.0, {"backbone.2.bias"}),
    ]
    before = model.backbone[2].bias.detach().clone()  # type: ignore[union-attr]
    model.head(model.backbone(torch.ones(2, 3))).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model.backbone[2].bias, before)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("backbone", "backbone matches no parameter of the model. Did you mean 'backbone.*'"),
        ("bakbone.*", "bakbone.* matches no parameter of the model. Did you mean 'backbone.*'"),
        ("head.wight", "head.wight matches no parameter of the model. Did you mean 'head.weight'"),
        ("zzz", "zzz matches no parameter of the model. There are backbone.0.weight, backbone.0.bias,"),
    ],
)
def test_a_pattern_that_matches_nothing_is_told_the_nearest(pattern: str, told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"optimizer.groups.{told}")):
        build_optimizer(torch.optim.SGD, Net(), {"lr": 1.0}, {pattern: Group()})


def no_decay(parameters: Any) -> Optimizer:
    class Plain(Optimizer):
        pass

    return Plain(parameters, {"rate": 1.0})


@pytest.mark.parametrize(
    ("optimizer", "groups", "told"),
    [
        (torch.optim.LBFGS, {"*": Group(lr_scale=2.0)}, "LBFGS moves all parameters as one"),
        (torch.optim.SGD, {"*": Group(frozen=True)}, "every parameter is frozen; nothing is left to train"),
        (no_decay, {"*": Group(weight_decay=0.1)}, r"groups\.\*\.weight_decay is given, but the optimizer has no"),
        (no_decay, {"*": Group(lr_scale=0.1)}, r"groups\.\*\.lr_scale is given, but the optimizer has no lr"),
    ],
)  # fmt: skip
def test_what_an_optimizer_can_not_do_with_groups_is_told(optimizer: Any, groups: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build_optimizer(optimizer, Net(), {}, groups)
