"""The command as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Rootflow = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def rootflow(tmp_path: Path) -> Rootflow:
    """Run `rootflow ARGUMENTS` in an empty folder, offline and with no key; return what it did."""

    def call(*arguments: str, cwd: Path = tmp_path, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "ROOTFLOW"))}
        env |= {
            "WANDB_MODE": "disabled",
            "OMP_NUM_THREADS": "1",
            "HOME": str(tmp_path / "home"),
            **environment,
        }
        return subprocess.run(
            [sys.executable, "-m", "rootflow", *arguments],
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )

    return call
