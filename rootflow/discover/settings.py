"""The bounds within which rootflow chooses for itself."""

from __future__ import annotations

from dataclasses import dataclass

from rootflow.limits import Samples, Steps
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
