from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

from rootflow.tracking.provenance import Provenance
from rootflow.tracking.run_folder import RunFolder

NOWHERE = Provenance(versions={"python": "3"}, hardware={"cores": 2})


@pytest.fixture
def create_run(tmp_path: Path) -> Iterator[Callable[..., RunFolder]]:
    """Makes run folders without looking at the machine; they are closed when the test ends."""
    made = []

    def create(**arguments: Any) -> RunFolder:
        arguments = {"config": {"seed": 1}, "config_yaml": "seed: 1\n", "provenance": NOWHERE, **arguments}
        made.append(RunFolder.create(tmp_path / "runs", "mlp", **arguments))
        return made[-1]

    yield create
    for folder in made:
        folder.close()


class Terminal:
    """A pseudo terminal: `stream` is what a program writes to, `shown` what arrived."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self._master, slave = os.openpty()
        os.set_blocking(self._master, False)
        self.stream: TextIO = os.fdopen(slave, "w", encoding=encoding)

    def shown(self) -> str:
        self.stream.flush()
        parts = []
        while True:
            try:
                parts.append(os.read(self._master, 65_536))
            except BlockingIOError:
                return b"".join(parts).decode(errors="replace")

    def close(self) -> None:
        self.stream.close()
        os.close(self._master)


@pytest.fixture
def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Terminal]]:
    """Opens pseudo terminals in an environment that says nothing against colour and bars."""
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    opened = []

    def open_(encoding: str = "utf-8") -> Terminal:
        opened.append(Terminal(encoding))
        return opened[-1]

    yield open_
    for terminal in opened:
        terminal.close()
