"""The order in which samples are taken: a function of (seed, epoch), with no state to save."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rootflow.data.randomness import hash_ints


@dataclass(frozen=True)
class BatchOrder:
    """Which samples make up the batches of an epoch.

    In training they are shuffled, and a last batch that isn't full is left out unless it is the only
    one. In evaluation every sample comes once, in order.
    """

    num_samples: int
    batch_size: int
    is_train: bool
    seed: int = 0

    def __len__(self) -> int:
        if self.is_train:
            return max(1, self.num_samples // self.batch_size)
        return -(-self.num_samples // self.batch_size)

    def positions(self, epoch: int) -> Tensor:
        """Return the samples of an epoch in their order, on the CPU so that all devices agree."""
        if self.is_train:
            generator = torch.Generator().manual_seed(hash_ints(self.seed, epoch) % 2**63)
            order = torch.randperm(self.num_samples, generator=generator)
        else:
            order = torch.arange(self.num_samples)
        return order[: len(self) * self.batch_size]
