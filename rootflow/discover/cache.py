"""What searches found on this machine: a sweep of 200 trials searches once for each distinct shape.

One JSON file an entry, in `ROOTFLOW_CACHE` or `~/.cache/rootflow`. Processes that want the same entry wait
for the first one to find it. Where nothing can be written, nothing is remembered, and that is all.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import inspect
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from torch import nn

from rootflow.files import write_json

Record = dict[str, Any]
"""A report as `record()` gives it."""

_FORMAT = 1
"""Of the records; another one finds nothing of this."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_KNOWN = ("torch", "builtins", "typing", "abc")
"""Packages whose classes their version tells."""
_POLL_S = 0.1
_PATIENCE_S = 5.0
"""After which it is said that another process is waited for."""

_log = logging.getLogger(__name__)


def recall_or(
    search: Callable[[], Record],
    about: Mapping[str, Any],
    *,
    is_valid: Callable[[Record], bool] = lambda _: True,
    while_waiting: Callable[[], None] = lambda: None,
    folder: Path | None = None,
) -> tuple[Record, float | None]:
    """Return what an equal search found and how many seconds ago that was; else search, and None.

    Args:
        search: finds it.
        about: all that the answer depends on, as JSON holds it.
        is_valid: whether what was found then still holds now.
        while_waiting: called now and then while another process searches the same; what it raises goes on.
        folder: of the entries; None for the user's.
    """
    text = _ADDRESS.sub("", json.dumps({"format": _FORMAT, **about}, sort_keys=True, default=str))
    path = (folder or cache_folder()) / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    with _waiting_for(path, while_waiting):
        found = _read(path)
        if found is not None and is_valid(found[0]):
            return found
        record = search()
        with contextlib.suppress(OSError):
            write_json(path, {"found_at": time.time(), "about": json.loads(text), "record": record})
        return record, None


def cache_folder() -> Path:
    """Return the folder of what searches found."""
    root = os.environ.get("ROOTFLOW_CACHE") or "~/.cache/rootflow"
    return Path(root).expanduser() / "discovered"


def describe_model(model: nn.Module) -> dict[str, Any]:
    """Return what tells a model from others: its structure, its parameters' shapes, its own classes' code."""
    return {
        "structure": repr(model),
        "parameters": [
            [n, list(p.shape), str(p.dtype), p.requires_grad] for n, p in model.named_parameters()
        ],
        "code": sorted({code for module in model.modules() for code in describe_code(type(module))}),
    }


def describe_code(kind: type) -> list[str]:
    """Return a digest of the files of a class and of those it builds on; torch's are told by its version."""
    return [_digest(base) for base in kind.__mro__ if base.__module__.partition(".")[0] not in _KNOWN]


def _digest(kind: type) -> str:
    """Return a class's name and a digest of its whole file: functions beside it count, too."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    with contextlib.suppress(OSError, TypeError):  # made in a session, or in C
        source = Path(inspect.getfile(kind)).read_bytes()
        return f"{name} {hashlib.sha256(source).hexdigest()[:16]}"
    return name


@contextlib.contextmanager
def _waiting_for(path: Path, while_waiting: Callable[[], None]) -> Iterator[None]:
    """Let one process at a time look for an entry; where there can be no lock, all look."""
    with contextlib.ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(path.with_suffix(".lock").open("w"))
        except OSError:
            yield
            return
        began_s = time.monotonic()
        while not _is_taken(lock):
            while_waiting()
            if began_s and time.monotonic() - began_s > _PATIENCE_S:
                _log.warning("waiting for another process, which searches the same")
                began_s = 0.0
        yield


def _is_taken(lock: IO[str]) -> bool:
    """Take a lock if it is free; else wait for a moment."""
    try:
        # POSIX's own kind: a worker that is forked meanwhile does not hold it
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(_POLL_S)
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _read(path: Path) -> tuple[Record, float] | None:
    try:
        entry = json.loads(path.read_bytes())
        return dict(entry["record"]), max(time.time() - entry["found_at"], 0.0)
    except (OSError, ValueError, KeyError, TypeError):  # absent, or not whole
        return None


def rounded(value: Any) -> Any:
    """Return nested plain values with 5 digits of each number."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
