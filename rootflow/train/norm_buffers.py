"""The running statistics of BatchNorm and its kin, which the forward pass of a skipped update has changed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


class NormBuffers:
    """The statistics of a model's normalisation layers, and a copy of them to go back to.

    Args:
        model: on its device.
    """

    def __init__(self, model: nn.Module) -> None:
        layers = [module for module in model.modules() if isinstance(module, _NormBase)]
        self.live = [buffer for layer in layers for buffer in layer.buffers(recurse=False)]
        # by format: torch then copies all of them at once
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for buffer in self.live:
            by_dtype.setdefault(buffer.dtype, []).append(buffer)
        self._pairs = [([buffer.clone() for buffer in group], group) for group in by_dtype.values()]

    def keep(self) -> None:
        """Copy them as they are now."""
        for kept, live in self._pairs:
            torch._foreach_copy_(kept, live)

    @torch.no_grad()
    def put_back(self) -> None:
        """Make them as they were when last kept."""
        for kept, live in self._pairs:
            torch._foreach_copy_(live, kept)
