"""Files that are whole or not there: atomic replacement, JSON, appended lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replace_when_done(path: Path) -> Iterator[Path]:
    """Yield a scratch path that becomes ``path`` only if the block succeeds.

    A reader finds the old file or the new one, never a part of either, also after a power cut: the
    file is synced before the rename and its folder after it. The scratch file is a sibling because
    a rename is atomic only within one file system; it is removed when the block raises.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield scratch
        _sync(scratch)
        scratch.replace(path)
        _sync(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by a file that holds ``text`` (UTF-8), atomically."""
    with replace_when_done(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by ``value`` as indented JSON, atomically.

    Raises:
        ValueError: ``value`` holds NaN or an infinity, which is not JSON; ``path`` is untouched.
        TypeError: ``value`` holds something JSON has no form for; ``path`` is untouched.
    """
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
