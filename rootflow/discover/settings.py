"""What may be searched, how, and within which bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rootflow.limits import Fraction, Samples, Steps
from rootflow.registry import register


@dataclass(frozen=True, kw_only=True)
class LrSettings:
    """How `optimizer.lr: auto` is found."""

    method: Literal["probe", "range_test", "rule"] = "probe"
    """probe: short trainings within the bracket of a range test; range_test: that alone; rule: no search"""

    suggest: Literal["valley", "slide", "steep", "minimum"] = "valley"
    """which point of the curve `method: range_test` takes"""

    shape: Literal["exponential", "linear"] = "exponential"
    """how the learning rate rises in the range test"""

    max_steps: Steps = 600
    """updates that the search spends at most; short trainings get fewer, and below 100 there is none"""


@dataclass(frozen=True, kw_only=True)
class BatchSizeSettings:
    """How `trainer.batch_size: auto` is found."""

    rule: Literal["fastest", "largest", "data"] = "fastest"
    """fastest: the smallest with 90 % of the highest throughput; largest: what fits; data: no search"""

    max: Samples = 4096
    """samples per update that it doesn't exceed"""

    min_updates_per_epoch: Steps = 50
    """it leaves at least so many updates an epoch"""


@dataclass(frozen=True, kw_only=True)
class MicroBatchSizeSettings:
    """How `trainer.micro_batch_size: auto` is found."""

    rule: Literal["power_of_two", "multiple_of_2"] = "power_of_two"
    """which sizes are considered; multiple_of_2: the largest even one"""

    headroom: Fraction = 0.1
    """share of the free memory that stays free"""


@register("discover", "discover")
@dataclass(frozen=True, kw_only=True)
class DiscoverSettings:
    """How `auto` becomes a value where it is found by measuring."""

    lr: LrSettings = field(default_factory=LrSettings)
    """learning rate"""

    batch_size: BatchSizeSettings = field(default_factory=BatchSizeSettings)
    """samples per update"""

    micro_batch_size: MicroBatchSizeSettings = field(default_factory=MicroBatchSizeSettings)
    """samples per forward and backward pass"""

    cache: bool = True
    """take what an equal search found before, on this machine"""
