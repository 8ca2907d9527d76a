"""metrics.jsonl: one JSON object a line, each appended with one write.

A kill between two rows loses nothing, and two writers can't mix their lines. NaN is not JSON and
would make the file unreadable to most programs: such a number is null, and "nonfinite" names it.
"""

from __future__ import annotations

import itertools
import json
import math
import numbers
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootflow.files import write_synced


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

    def sync(self) -> int:
        """Make sure that every row is on the disk; return the size of the file in bytes."""
        os.fsync(self._fd)
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


@dataclass(frozen=True)
class CutRows:
    """Rows that were taken out of a metrics.jsonl, for they will be written again."""

    path: Path | None = None
    """Where they are now; None if there were none."""
    missing_bytes: int = 0
    """By how much the file was too short to begin with."""


def cut_rows(path: Path, num_bytes: int) -> CutRows:
    """Cut a metrics.jsonl to its first ``num_bytes`` bytes; the rest goes to a file beside it.

    That is metrics.cut-1.jsonl or the next free number, and on the disk before the other is shortened.
    """
    size = path.stat().st_size if path.exists() else 0
    if size <= num_bytes:
        return CutRows(missing_bytes=num_bytes - size)
    with path.open("rb") as metrics:
        metrics.seek(num_bytes)
        rest = metrics.read()
    names = (path.with_name(f"{path.stem}.cut-{number}.jsonl") for number in itertools.count(1))
    kept = next(name for name in names if not name.exists())
    write_synced(kept, [rest])
    with path.open("r+b") as metrics:
        metrics.truncate(num_bytes)
        os.fsync(metrics.fileno())
    return CutRows(kept)


def is_nonfinite(value: object) -> bool:
    """Whether ``value`` is NaN or an infinity."""
    return isinstance(value, numbers.Real) and not math.isfinite(value)


def plain_number(value: Any) -> int | float:
    """Return a number of any library as Python's own."""
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _json_line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(dict(row), allow_nan=False, ensure_ascii=False, default=plain_number).encode() + b"\n"
