"""torch.compile, in place and only where it pays.

`nn.Module.compile` leaves the module itself as it is, so that the names in its state stay the model's own.
What can't be compiled runs as before.
"""

from __future__ import annotations

import torch
from torch import nn

from rootflow.limits import Auto

_PAYS_FROM_S = 180.0
"""Seconds of training still to come; compiling takes up to a tenth of that, and on a CPU gained nothing."""


def is_compiling_worth(
    setting: bool | Auto,  # noqa: FBT001  # the value of one key
    device: torch.device,
    *,
    step: int,
    elapsed_s: float,
    num_steps: int | None,
) -> bool:
    """Return whether to compile a model after its first epoch.

    Args:
        setting: True and False are answers.
        device: auto compiles on CUDA only.
        step: updates so far.
        elapsed_s: time that they took.
        num_steps: updates of the whole training; None where nobody knows, and then as many again are to come.
    """
    if setting != "auto":
        return setting
    rest_s = elapsed_s * ((num_steps or 2 * step) - step) / max(step, 1)
    return device.type == "cuda" and rest_s >= _PAYS_FROM_S


def compile_in_place(model: nn.Module) -> None:
    """Compile a model's forward pass at its next call."""
    torch._dynamo.config.suppress_errors = True  # what the compiler refuses runs as it is, with a warning
    model.compile()
