"""Numbers, durations and untrusted text, in the form that a person reads."""

from __future__ import annotations

import math


def escape(text: str) -> str:
    r"""Return ``text`` with everything that a terminal would obey, not show, as `\x1b` and the like."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def format_number(value: object) -> str:
    """Return a number with about four significant digits; anything else as `str` gives it."""
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    size = abs(value)
    if 1e-3 <= size < 1:
        return f"{value:.4f}"
    return f"{value:.4g}" if size == 0 or 1 <= size < 1e4 else f"{value:.2e}"


def format_duration(seconds: float) -> str:
    """Return `0.8 s`, `12 s`, `3 min 20 s`, `5 h 01 min` or `2 d 03 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = whole // 60
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60:02d} h"
