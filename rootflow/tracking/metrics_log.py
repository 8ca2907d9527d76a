"""metrics.jsonl: one JSON object a line, each appended with one write.

A kill between two rows loses nothing, and two writers can't mix their lines. NaN is not JSON and
would make the file unreadable to most programs: such a number is null, and "nonfinite" names it.
"""

from __future__ import annotations

import json
import math
import numbers
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rootflow.files import write_text


class MetricsLog:
    """The writer of one metrics.jsonl."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append ``row``, whose values are strings and numbers of any library."""
        try:
            line = _json_line(row)
        except ValueError:
            odd = {key: str(float(value)) for key, value in row.items() if is_nonfinite(value)}
            line = _json_line({**row, **dict.fromkeys(odd), "nonfinite": odd})
        while line:  # one write, but for a disk that fills up in it: then the second one raises
            line = line[os.write(self._fd, line) :]

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def drop_rows_after(path: Path, step: int) -> None:
    """Rewrite the metrics.jsonl at ``path`` without torn lines and rows whose "step" is above ``step``."""
    if path.exists():
        lines = path.read_bytes().splitlines(keepends=True)
        write_text(path, b"".join(line for line in lines if _is_kept(line, step)).decode())


def is_nonfinite(value: object) -> bool:
    """Whether ``value`` is NaN or an infinity."""
    return isinstance(value, numbers.Real) and not math.isfinite(value)


def plain_number(value: Any) -> int | float:
    """Return a number of any library as Python's own."""
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _is_kept(line: bytes, step: int) -> bool:
    try:
        return line.endswith(b"\n") and bool(json.loads(line).get("step", 0) <= step)
    except ValueError:
        return False


def _json_line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(dict(row), allow_nan=False, ensure_ascii=False, default=plain_number).encode() + b"\n"
