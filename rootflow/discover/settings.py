"""The bounds within which rootflow chooses for itself."""

from __future__ import annotations

from dataclasses import dataclass

from rootflow.limits import Epochs, Samples, Steps
from rootflow.registry import register


@register("discover", "discover")
@dataclass(frozen=True, kw_only=True)
class DiscoverSettings:
    """Bounds for what `auto` may become."""

    max_batch_size: Samples = 512
    """samples per update that an automatic batch size doesn't exceed on an accelerator"""

    max_batch_size_on_cpu: Samples = 128
    """the same on a CPU, which gains no speed from more"""

    min_updates_per_epoch: Steps = 50
    """an automatic batch size leaves at least so many updates an epoch"""

    min_epochs: Epochs = 10
    """fewest passes over the data that an automatic length makes"""

    max_epochs: Epochs = 40
    """most passes over the data that an automatic length makes"""

    num_updates: Steps = 20_000
    """updates that an automatic length aims at, between those two bounds"""
