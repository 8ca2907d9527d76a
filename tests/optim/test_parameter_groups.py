"""Weight decay reaches matrices and kernels, and nothing else."""

from __future__ import annotations

import torch
from torch import nn

from rootflow.models.resnet import ResNet
from rootflow.optim.parameter_groups import parameter_groups


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
