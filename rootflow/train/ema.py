"""An exponential moving average of a model's weights, which needs no falling learning rate to be good.

Morales-Brotons et al. 2024, "Exponential Moving Average of Weights in Deep Learning", arXiv 2411.18704.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rootflow.train.norm_buffers import NormBuffers

_LONGEST_HALF_LIFE = 7_000
"""Updates; a decay of 0.9999."""


class Ema:
    """The average of a model's parameters and of its norms' statistics; other buffers are the model's own.

    Call `update` after each optimizer update; inside `with ema.applied():` the model has the averages.

    Args:
        model: on its device; the average starts from its weights as they are.
        decay: share of the old average kept in each update, from 0 to 1.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        statistics = {id(buffer) for buffer in NormBuffers(model).live}  # not masks: -inf has no average
        buffers = {name: buffer for name, buffer in model.named_buffers() if id(buffer) in statistics}
        live = {**dict(model.named_parameters()), **buffers}
        self._live = {name: t for name, t in live.items() if t.is_floating_point() or t.is_complex()}
        self._average = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        # detached ones share the memory of the parameters, and cost autograd nothing
        self._sources = [tensor.detach() for tensor in self._live.values()]
        self._averages = list(self._average.values())

    def update(self) -> None:
        """Move the average towards the weights as they are now."""
        if self._averages:
            torch._foreach_lerp_(self._averages, self._sources, 1 - self.decay)

    @torch.no_grad()
    def restart(self, tensors: Iterable[Tensor] | None = None) -> None:
        """Take the model's weights as they are now for the average; only these tensors, if given."""
        chosen = None if tensors is None else {id(tensor) for tensor in tensors}
        for name, tensor in self._live.items():
            if chosen is None or id(tensor) in chosen:
                self._average[name].copy_(tensor)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averages for a block; after it, it has its own weights, to the bit."""
        before = {name: tensor.data for name, tensor in self._live.items()}
        self._put(self._average)
        try:
            yield
        finally:
            self._put(before)

    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for name, tensor in self._live.items():
            tensor.data = weights[name]

    def state_dict(self) -> dict[str, Any]:
        """Return the averages, by the model's names."""
        return dict(self._average)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take averages that `state_dict` returned."""
        for name, average in self._average.items():
            average.copy_(state[name])


def ema_decay(steps_per_epoch: int | None) -> float:
    """Return a decay whose half-life is half an epoch: research on short runs found 0.99 to 0.999."""
    half_life = min(max((steps_per_epoch or 1_000) / 2, 10), _LONGEST_HALF_LIFE)
    return float(0.5 ** (1 / half_life))
