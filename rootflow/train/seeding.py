"""One seed into every generator of the process."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on all devices.

    The order of samples and their augmentation don't depend on these: they are functions of
    (seed, epoch, index) in the loaders.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # users' code draws from the global generator
    torch.manual_seed(seed)
