"""How long this process has been running: what a person at the terminal has waited."""

from __future__ import annotations

import os
import time
from pathlib import Path

_imported_s = time.monotonic()


def process_age_s() -> float:
    """Return the seconds since the process started.

    Where /proc doesn't tell, since this module was imported.
    """
    return time.monotonic() - _imported_s + _age_at_import_s


def _read_age_s() -> float:
    """Field 22 of /proc/self/stat is the start, in clock ticks since boot (proc(5))."""
    try:
        stat = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        uptime_s = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return max(uptime_s - int(stat[19]) / os.sysconf("SC_CLK_TCK"), 0.0)


_age_at_import_s = _read_age_s()
