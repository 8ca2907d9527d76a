"""Muon against torch's own, on whole models, and as one optimizer among others."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from rootflow.models.convnet import ConvNet
from rootflow.models.mlp import MLP
from rootflow.models.resnet import ResNet
from rootflow.optim.muon import MuonWithAdamW, hidden_matrices, muon, orthogonalise


def names_of(model: nn.Module, parameters: list[Tensor]) -> set[str]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)] for p in parameters}


def train(model: nn.Module, optimizer: torch.optim.Optimizer, num_steps: int, shape=(16, 6)) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(num_steps):
        inputs = torch.randn(shape, generator=generator)
        optimizer.zero_grad()
        model(inputs).square().sum(1).mean().backward()
        optimizer.step()


def state_of(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (16, 16)])
def test_orthogonalising_brings_all_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)).float())
    assert 0.6 < values.min() < values.max() < 1.3


def test_hidden_matrices_are_updated_as_by_torchs_muon_bit_for_bit() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(*sides, bias=False) for sides in ((6, 9), (9, 5), (5, 3))))
    other = copy.deepcopy(model)
    ours = muon(model, lr=0.02, weight_decay=0.1, momentum=0.9)
    theirs = torch.optim.Muon(
        [layer.weight for layer in other[:2]], lr=0.02, weight_decay=0.1, momentum=0.9,
        adjust_lr_fn="match_rms_adamw",
    )  # fmt: skip
    head = torch.optim.AdamW([other[2].weight], lr=0.02, weight_decay=0.1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        inputs = torch.randn(16, 6, generator=generator)
        for network, optimizers in ((model, [ours]), (other, [theirs, head])):
            network.zero_grad()
            network(inputs).square().sum(1).mean().backward()
            for optimizer in optimizers:
                optimizer.step()
    assert torch.equal(state_of(model), state_of(other))


def test_a_kernel_is_updated_as_the_matrix_of_its_rows() -> None:
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(4, 3, 3, 3).contiguous(memory_format=torch.channels_last))
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    kernel.grad = torch.randn_like(kernel)
    matrix.grad = kernel.grad.flatten(1).clone()
    MuonWithAdamW([{"params": [kernel], "weight_decay": 0.1, "is_muon": True}], lr=0.1).step()
    torch.optim.Muon([matrix], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw").step()
    assert torch.equal(kernel.flatten(1), matrix)


def test_only_hidden_matrices_and_kernels_are_muons() -> None:
    mlp = MLP(6, 3, hidden=(5, 4))
    assert names_of(mlp, hidden_matrices(mlp)) == {"hidden.0.weight", "hidden.3.weight"}
    convnet = ConvNet(1, 3, width=2)
    assert all(p.ndim == 4 for p in hidden_matrices(convnet))
    assert len(hidden_matrices(ResNet(1, 3, depth=20, width=2))) == 19 + 2


def test_embeddings_tied_and_frozen_weights_are_not_muons() -> None:
    model = nn.Sequential(
        nn.Linear(4, 5), nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
    )
    model[0].weight = model[1].weight
    model[2].requires_grad_(False)
    assert names_of(model, hidden_matrices(model)) == {"3.weight"}


def test_every_trainable_parameter_is_in_one_group() -> None:
    model = ConvNet(1, 3, width=2)
    optimizer = muon(model, weight_decay=0.1)
    in_groups = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(in_groups) == sorted(id(p) for p in model.parameters())
    assert [(g["is_muon"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (True, 0.1), (False, 0.1), (False, 0.0)
    ]  # fmt: skip


def test_the_closure_is_evaluated_once() -> None:
    model, calls = MLP(6, 3), []
    optimizer = muon(model)

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = model(torch.ones(2, 6)).square().mean()
        loss.backward()
        return loss

    assert optimizer.step(closure) > 0
    assert calls == [True]


def test_a_scheduler_reaches_both_parts() -> None:
    model = MLP(6, 3, hidden=(4,))
    optimizer = muon(model, lr=0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.0)
    train(model, optimizer, 3)
    scheduler.step()
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize("make", [torch.optim.lr_scheduler.OneCycleLR, torch.optim.lr_scheduler.CyclicLR])
def test_schedulers_that_cycle_the_momentum_find_one(make) -> None:
    optimizer = muon(MLP(6, 3))
    settings = {"total_steps": 9} if make is torch.optim.lr_scheduler.OneCycleLR else {"base_lr": 0.01}
    make(optimizer, max_lr=0.1, **settings)
    assert optimizer.param_groups[0]["momentum"] in (0.95, 0.9)


def test_a_saved_and_loaded_optimizer_goes_on_bit_for_bit() -> None:
    torch.manual_seed(0)
    model = MLP(6, 3, hidden=(8, 8))
    optimizer = muon(model, lr=0.02)
    train(model, optimizer, 3)
    resumed = copy.deepcopy(model)
    restored = muon(resumed, lr=0.5)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(model, optimizer, 3)
    train(resumed, restored, 3)
    assert torch.equal(state_of(model), state_of(resumed))


def test_a_model_of_one_layer_is_all_adamws() -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    other = copy.deepcopy(model)
    train(model, muon(model, lr=0.02, weight_decay=0.0), 3)
    train(other, torch.optim.AdamW(other.parameters(), lr=0.02, weight_decay=0.0), 3)
    assert torch.equal(state_of(model), state_of(other))


def test_a_parameter_without_a_gradient_stays_as_it_is() -> None:
    model = MLP(6, 3, hidden=(4, 4))
    before = model.hidden[3].weight.detach().clone()
    optimizer = muon(model, lr=0.1)
    model.hidden[0](torch.ones(2, 6)).sum().backward()
    optimizer.step()
    assert torch.equal(model.hidden[3].weight, before)
