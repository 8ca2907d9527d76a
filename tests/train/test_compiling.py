"""When compiling pays, and that the names of the weights stay the model's own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from rootflow.checkpoint import Checkpoints
from rootflow.train.compiling import compile_in_place, is_compiling_worth
from rootflow.train.trainer import FitResult, Trainer

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("setting", "device", "elapsed_s", "num_steps", "worth"),
    [
        (True, CPU, 0.0, 10, True),
        (False, CUDA, 1e6, 10, False),
        ("auto", CPU, 1e6, 10_000, False),
        ("auto", CUDA, 20.0, 1_000, True),  # 180 s to come
        ("auto", CUDA, 19.0, 1_000, False),
        ("auto", CUDA, 200.0, None, True),  # as long again
        ("auto", CUDA, 100.0, None, False),
    ],
)
def test_compiling_pays_where_minutes_are_to_come_on_a_gpu(
    setting: bool | str, device: torch.device, elapsed_s: float, num_steps: int | None, worth: bool
) -> None:
    found = is_compiling_worth(setting, device, step=100, elapsed_s=elapsed_s, num_steps=num_steps)  # type: ignore[arg-type]
    assert found is worth


def test_a_compiled_model_keeps_the_names_of_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    before = list(model.state_dict())
    asked = []
    monkeypatch.setattr(torch, "compile", lambda call, **_: asked.append(call) or call)
    compile_in_place(model)
    assert asked
    assert list(model.state_dict()) == before == ["0.weight", "0.bias"]
    assert model(torch.ones(1, 3)).shape == (1, 2)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
        self.was_compiled = False

    def forward(self, inputs: Tensor) -> Tensor:
        self.was_compiled = torch.compiler.is_compiling()
        return self.layers(inputs)


def fit(*, max_steps: int, compile: bool, **given: Any) -> tuple[Net, FitResult]:
    model = Net()
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    data = DataLoader(TensorDataset(inputs, (inputs.sum(1) > 0).long()), batch_size=16)
    trainer = Trainer(max_steps=max_steps, device="cpu", precision="fp32", ema_decay=0.8, compile=compile)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    return model, trainer.fit(model, data, data, loss="cross_entropy", optimizer=optimizer, **given)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.*deprecated:DeprecationWarning")  # torch's own compiler
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
def test_a_compiled_training_averages_and_resumes_as_one_that_is_not(tmp_path: Path) -> None:
    plain, measured = fit(max_steps=10, compile=False)
    whole, compiled = fit(max_steps=10, compile=True)
    assert (plain.was_compiled, whole.was_compiled) == (False, True)
    assert plain.state_dict().keys() == whole.state_dict().keys()
    for name, tensor in plain.state_dict().items():
        assert torch.allclose(tensor, whole.state_dict()[name], atol=1e-5), name
    assert measured.ema is not None
    assert compiled.ema is not None
    for name, tensor in measured.ema.state_dict().items():
        assert torch.allclose(tensor, compiled.ema.state_dict()[name], atol=1e-5), name
    assert compiled.last == pytest.approx(measured.last, rel=1e-4)

    checkpoints = Checkpoints(tmp_path)
    fit(max_steps=6, compile=True, checkpoints=checkpoints)
    resumed, again = fit(max_steps=10, compile=True, resume=checkpoints.load())
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert again.ema is not None
    for name, tensor in compiled.ema.state_dict().items():
        assert torch.equal(tensor, again.ema.state_dict()[name]), name
