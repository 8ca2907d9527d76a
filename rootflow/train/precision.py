"""Device, number format and memory format of a training, and the reasons for them."""

from __future__ import annotations

import functools
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rootflow.errors import ConfigError

_CPU_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags of processors that multiply bf16 in hardware (x86 and Arm); elsewhere it is emulated, slower."""


@dataclass(frozen=True)
class Arithmetic:
    """How numbers are computed: on which device, in which format, in which memory order."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which forward passes run."""
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device and memory format, in place."""
        if self.channels_last:
            return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
        return model.to(self.device)

    def prepare(self, batch: Any) -> Any:
        """Put the images (batch, channel, height, width) of a batch in the model's memory format."""
        if not self.channels_last:
            return batch
        if isinstance(batch, Tensor):
            return batch.contiguous(memory_format=torch.channels_last) if batch.ndim == 4 else batch
        if isinstance(batch, dict):
            return {key: self.prepare(value) for key, value in batch.items()}
        return tuple(map(self.prepare, batch)) if type(batch) in (tuple, list) else batch


def find_device(setting: str) -> tuple[torch.device, str]:
    """Return the device that a setting means, and why.

    Raises:
        ConfigError: the setting names no device, or one that isn't here.
    """
    if setting == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return (
            (found, "the accelerator of this machine")
            if found
            else (torch.device("cpu"), "no accelerator here")
        )
    try:
        device = torch.device(setting)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"trainer.device is {setting!r}, which can't be used here: {reason}") from error
    return device, "as set"


def find_dtype(setting: Literal["auto", "fp32", "bf16"], device: torch.device) -> tuple[torch.dtype, str]:
    """Return the format of the forward pass, and why: bf16 where the hardware multiplies it.

    Weights, gradients and the optimizer's state stay float32 in either case.
    """
    if setting != "auto":
        return (torch.bfloat16 if setting == "bf16" else torch.float32), "as set"
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        has_bf16 = capability >= (8, 0)
        return _chosen(has_bf16, f"compute capability {capability[0]}.{capability[1]}")
    if device.type == "cpu":
        found = _cpu_flags() & _CPU_BF16_FLAGS
        return _chosen(
            bool(found), f"the processor has {sorted(found)[0] if found else 'no bf16 instructions'}"
        )
    return torch.float32, f"bf16 is not tried on {device.type}"


def find_channels_last(model: nn.Module) -> tuple[bool, str]:
    """Return whether channels_last suits a model: it does where there are 2-D convolutions."""
    if any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return True, "the model has 2-D convolutions"
    return False, "the model has no 2-D convolution"


def gpu_names() -> list[str]:
    """Return the names of the CUDA devices that this process sees."""
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def set_kernels(device: torch.device, *, deterministic: bool = False) -> None:
    """Let CUDA choose its kernels by trying them, and use TF32 for what stays float32.

    Process-wide switches of torch, and so set by the program (assemble.py), never by a component.

    Args:
        device: where the training is.
        deterministic: take only kernels that give the same bits each time; one that has none raises.
    """
    torch.use_deterministic_algorithms(deterministic)
    if device.type == "cuda":
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS raises
        torch.backends.cudnn.benchmark = not deterministic
        torch.set_float32_matmul_precision("high")


def _chosen(has_bf16: bool, reason: str) -> tuple[torch.dtype, str]:  # noqa: FBT001  # one caller's flag
    return (torch.bfloat16 if has_bf16 else torch.float32), reason


@functools.cache
def _cpu_flags() -> frozenset[str]:
    """Return the processor's feature flags; none where /proc doesn't tell them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    lines = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
    return frozenset(lines[0].partition(":")[2].split()) if lines else frozenset()
