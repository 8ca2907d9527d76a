"""Runs scripts, each in a process of its own in which hydra and omegaconf can't be imported.

    python isolated.py SCRIPT...

A script runs in a folder of its name, where it leaves stdout.txt (two runs, one after the other), modules.txt
and exit_code.txt. The processes are forks of this one, so that torch is imported once.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import torch  # noqa: F401  # the slowest import, and no part of rootflow

FORBIDDEN = ("hydra", "omegaconf")


class Refusing:
    """A finder that raises for what is forbidden; it is asked before any other."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] in FORBIDDEN:
            raise ImportError(f"{name} is forbidden here")
        return None


def run(script: Path) -> NoReturn:
    """Run a script in a new folder, and leave the process."""
    Path(script.stem).mkdir(exist_ok=True)
    os.chdir(script.stem)
    with Path("stdout.txt").open("a") as stdout:
        os.dup2(stdout.fileno(), sys.stdout.fileno())
    code = 1
    try:
        runpy.run_path(str(script), run_name="__main__")
        code = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        Path("modules.txt").write_text("\n".join(sys.modules))
        os._exit(code)


def main(scripts: Sequence[str]) -> None:
    sys.meta_path.insert(0, Refusing())
    assert not any(name.partition(".")[0] in FORBIDDEN for name in sys.modules)
    for script in map(Path, scripts):
        pid = os.fork()
        if pid == 0:
            run(script)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        Path(script.stem, "exit_code.txt").write_text(str(code))


if __name__ == "__main__":
    main(sys.argv[1:])
