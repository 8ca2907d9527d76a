"""The running statistics of BatchNorm and its kin, which the forward pass of a skipped update has changed."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


class NormBuffers:
    """The statistics of a model's normalisation layers, and a copy of them to go back to.

    Args:
        model: on its device.
    """

    def __init__(self, model: nn.Module) -> None:
        layers = [module for module in model.modules() if isinstance(module, _NormBase)]
        self.live = [buffer for layer in layers for buffer in layer.buffers(recurse=False)]
        self._kept = [buffer.clone() for buffer in self.live]

    @torch.no_grad()
    def keep(self) -> None:
        """Copy them as they are now."""
        if self.live:
            torch._foreach_copy_(self._kept, self.live)

    @torch.no_grad()
    def put_back(self) -> None:
        """Make them as they were when last kept."""
        if self.live:
            torch._foreach_copy_(self.live, self._kept)
