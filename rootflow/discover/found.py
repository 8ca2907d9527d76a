"""A value that stood as `auto` in the config, and why it became what it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Found:
    """One resolved `auto`. It is printed, recorded with the run, and never searched again."""

    value: Any
    reason: str
