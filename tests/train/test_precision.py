"""Device, format and memory order, as found and as set."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rootflow.errors import ConfigError
from rootflow.train import precision
from rootflow.train.precision import Arithmetic, find_channels_last, find_device, find_dtype


def test_a_device_that_is_not_here_is_refused_with_its_name() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.device is 'nonsense'"):
        find_device("nonsense")
    assert find_device("cpu")[0] == torch.device("cpu")


def test_bf16_is_chosen_only_where_the_processor_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(precision, "_cpu_flags", lambda: frozenset({"avx2"}))
    assert find_dtype("auto", cpu) == (torch.float32, "the processor has no bf16 instructions")
    monkeypatch.setattr(precision, "_cpu_flags", lambda: frozenset({"avx2", "amx_bf16"}))
    assert find_dtype("auto", cpu) == (torch.bfloat16, "the processor has amx_bf16")
    assert find_dtype("fp32", cpu)[0] is torch.float32
    assert find_dtype("bf16", cpu)[0] is torch.bfloat16


def test_channels_last_is_for_models_with_convolutions() -> None:
    assert find_channels_last(nn.Sequential(nn.Conv2d(3, 4, 3)))[0]
    assert not find_channels_last(nn.Linear(3, 4))[0]


def test_images_and_weights_get_the_memory_order_and_other_inputs_keep_theirs() -> None:
    arithmetic = Arithmetic(torch.device("cpu"), channels_last=True)
    model = arithmetic.place(nn.Conv2d(3, 4, 3))
    assert model.weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[call-overload, operator]
    assert arithmetic.prepare(torch.zeros(2, 3, 8, 8)).is_contiguous(memory_format=torch.channels_last)
    assert arithmetic.prepare(torch.zeros(2, 3)).shape == (2, 3)


def test_the_forward_pass_runs_in_the_chosen_format() -> None:
    layer, inputs = nn.Linear(4, 4), torch.randn(2, 4)
    with Arithmetic(torch.device("cpu"), torch.bfloat16).autocast():
        assert layer(inputs).dtype is torch.bfloat16
    with Arithmetic(torch.device("cpu")).autocast():
        assert layer(inputs).dtype is torch.float32
