"""The settings of the group `tracking`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rootflow.registry import register


@dataclass(frozen=True)
class WandbSettings:
    """The mirror on W&B. Everything is in the run folder too, whatever is chosen here."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto = WANDB_MODE if set, else online with a key, else offline; online fails without W&B"""
    project: str = "rootflow"
    """W&B project"""
    entity: str | None = None
    """W&B user or team; null for the default of the key"""
    group: str | None = None
    """runs of one group are shown together"""
    tags: tuple[str, ...] = ()
    """W&B tags"""
    notes: str | None = None
    """free text shown with the run"""


@register("tracking", "tracking")
@dataclass(frozen=True)
class TrackingSettings:
    """Where runs are recorded."""

    root: str = "runs"
    """folder of the run folders"""
    wandb: WandbSettings = WandbSettings()
    """the mirror on W&B"""
