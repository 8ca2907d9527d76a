"""What an update needs to be run again from its beginning: buffers and generators as they were before it."""

from __future__ import annotations

import operator

import torch
from torch import Tensor, nn

from rootflow.train.norm_buffers import NormBuffers
from rootflow.train.seeding import torch_generators


class Rerun:
    """The buffers of a model, and torch's generators, as they were before an update.

    What the first update leaves alone is taken for constant, and is looked at no more: a mask may be as big
    as the weights, and reading the CPU's generator takes 2 us. Python's and NumPy's generators, which take
    8 and 28 us, aren't looked at.

    Args:
        model: on its device.
        device: the one that is trained on.
        norms: of the model, where the caller keeps them before each `keep` anyway.
    """

    def __init__(self, model: nn.Module, device: torch.device, *, norms: NormBuffers | None = None) -> None:
        self._norms = norms or NormBuffers(model)
        self._has_own_norms = norms is None
        statistics = {id(buffer) for buffer in self._norms.live}
        self._generators = torch_generators(device)
        self._states: list[Tensor] = []
        self._places = [
            (module, name)
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is None or (id(buffer) not in statistics and _is_dense(buffer))
        ]
        self._live: list[Tensor | None] = []
        self._kept: list[Tensor | None] = []
        self._num_kept = 0

    def keep(self) -> None:
        """Copy them as they are now."""
        if self._num_kept < 2:
            self._num_kept += 1
            if self._num_kept == 2:
                self._leave_out_constants()
        if self._generators:
            self._states = [generator.get_state() for generator in self._generators]
        if self._has_own_norms:
            self._norms.keep()
        if self._places:
            self._keep_buffers()

    @torch.no_grad()
    def put_back(self) -> None:
        """Make them as they were when last kept."""
        for generator, state in zip(self._generators, self._states, strict=True):
            generator.set_state(state)
        self._norms.put_back()
        for (module, name), live, kept in zip(self._places, self._live, self._kept, strict=True):
            module._buffers[name] = live
            if live is not None and kept is not None:
                live.copy_(kept)

    def _keep_buffers(self) -> None:
        live = [module._buffers[name] for module, name in self._places]
        if len(live) == len(self._live) and all(map(operator.is_, live, self._live)):
            for kept, buffer in zip(self._kept, live, strict=True):
                if kept is not None and buffer is not None:
                    kept.copy_(buffer)
            return
        # at first to the host, which has room for constants
        device = "cpu" if self._num_kept == 1 else None
        self._live = live
        self._kept = [None if b is None else b.detach().to(device, copy=True) for b in live]

    def _leave_out_constants(self) -> None:
        generators = zip(self._generators, self._states, strict=True)
        self._generators = [g for g, state in generators if not torch.equal(g.get_state(), state)]
        self._states = []
        buffers = zip(self._places, self._live, self._kept, strict=True)
        self._places = [
            (module, name)
            for (module, name), live, kept in buffers
            if module._buffers[name] is not live or not _is_same(live, kept)
        ]
        self._live, self._kept = [], []


def _is_dense(buffer: Tensor) -> bool:
    return buffer.layout is torch.strided and not buffer.is_quantized


def _is_same(live: Tensor | None, kept: Tensor | None) -> bool:
    """Whether a buffer is, bit for bit, as it was."""
    if live is None or kept is None:
        return live is kept
    one, other = (tensor.detach().to("cpu").contiguous().reshape(-1) for tensor in (live, kept))
    return torch.equal(one.view(torch.uint8), other.view(torch.uint8))
