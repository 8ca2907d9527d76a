"""`trainer.batch_size: auto`, by a rule on the size of the training data.

Small data wants small batches: at least 50 updates an epoch keep the optimizer moving (airbench
uses 49 on CIFAR-10, arXiv 2404.00498).
"""

from __future__ import annotations

from rootflow.discover.found import Found
from rootflow.discover.settings import DiscoverSettings

_TOLERANCE = 1.05
"""1,007 samples for 1,000 updates are near enough to 1,024."""


def find_batch_size(num_samples: int, device_type: str, settings: DiscoverSettings) -> Found:
    """Return the largest power of two that leaves enough updates an epoch.

    Args:
        num_samples: size of the training split.
        device_type: `cpu`, `cuda`, ...
        settings: bounds.
    """
    by_data = int(num_samples * _TOLERANCE / settings.min_updates_per_epoch)
    smallest = 8 if num_samples < 500 else 16
    most = settings.max_batch_size_on_cpu if device_type == "cpu" else settings.max_batch_size
    wanted = max(smallest, min(by_data, most))
    size = min(1 << (wanted.bit_length() - 1), max(num_samples, 1))
    updates = max(num_samples // size, 1)
    return Found(size, f"a power of two, {updates} updates an epoch of {num_samples:,} samples")
