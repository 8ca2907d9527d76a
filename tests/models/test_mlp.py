"""The multilayer perceptron: shapes, and its weights in plain PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rootflow.models.mlp import MLP


@pytest.mark.parametrize("shape", [(64,), (1, 8, 8), (4, 16)])
def test_an_input_of_any_shape_is_flattened(shape: tuple[int, ...]) -> None:
    assert MLP(64, 10)(torch.randn(5, *shape)).shape == (5, 10)


def test_the_number_of_weights_is_that_of_its_layers() -> None:
    model = MLP(64, 10, hidden=(256, 128))
    assert sum(p.numel() for p in model.parameters()) == 65 * 256 + 257 * 128 + 129 * 10


def test_without_hidden_layers_it_is_linear() -> None:
    model = MLP(6, 3, hidden=())
    inputs = torch.randn(4, 6)
    expected = nn.functional.linear(inputs, model.head.weight, model.head.bias)
    assert torch.equal(model(inputs), expected)


@pytest.mark.parametrize(
    ("activation", "function"),
    [("relu", torch.relu), ("gelu", nn.functional.gelu), ("silu", nn.functional.silu), ("tanh", torch.tanh)],
)
def test_the_activation_stands_between_the_layers(activation, function) -> None:
    model = MLP(6, 3, hidden=(5,), activation=activation)
    inputs = torch.randn(4, 6)
    assert torch.equal(model(inputs), model.head(function(model.hidden[0](inputs))))


def test_dropout_acts_in_training_only() -> None:
    model = MLP(6, 3, hidden=(50,), dropout=0.5)
    inputs = torch.randn(4, 6)
    assert not torch.equal(model(inputs), model(inputs))
    model.eval()
    assert torch.equal(model(inputs), model(inputs))


def test_its_weights_load_into_a_twin_written_in_plain_pytorch(tmp_path: Path) -> None:
    model = MLP(6, 3, hidden=(5, 4))
    save_file(model.state_dict(), tmp_path / "weights.safetensors")

    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Sequential(
                nn.Linear(6, 5), nn.ReLU(), nn.Identity(), nn.Linear(5, 4), nn.ReLU(), nn.Identity()
            )
            self.head = nn.Linear(4, 3)

    twin = Twin()
    twin.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    inputs = torch.randn(4, 6)
    assert torch.equal(twin.head(twin.hidden(inputs)), model(inputs))
