from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MakeRun = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def make_run(root: Path) -> Iterator[MakeRun]:
    """Makes a run folder as the writer would leave it; `alive` holds its lock until the test ends."""
    held = []

    def make(place: str, /, *, alive: bool = False, text: str | None = None, **fields: Any) -> Path:
        folder = root / place
        folder.mkdir(parents=True)
        summary = {"schema": 1, "id": folder.name, "status": "finished", **fields}
        (folder / "run.json").write_text(json.dumps(summary) if text is None else text)
        lock = (folder / "run.lock").open("w")
        held.append(lock)
        if alive:
            fcntl.flock(lock, fcntl.LOCK_EX)
        return folder

    yield make
    for lock in held:
        lock.close()
