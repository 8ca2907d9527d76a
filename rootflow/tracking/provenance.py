"""Where a result comes from: versions, hardware and code.

Asks the system and package metadata only; nothing is imported, so it is as true for a process
without torch as for one with it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import rootflow
from rootflow.tracking.git import read_git

_PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "hydra": "hydra-core",
    "omegaconf": "omegaconf",
    "wandb": "wandb",
}
"""Module to distribution, for those that can change a result or its record."""


@dataclass(frozen=True)
class Provenance:
    """The code and the machine of a run."""

    versions: dict[str, str]
    hardware: dict[str, Any]
    git: dict[str, Any] | None = None
    git_patch: str = ""


def collect_provenance(folder: Path | None = None, *, gpu_names: Sequence[str] = ()) -> Provenance:
    """Look at the interpreter, the machine and the repository around ``folder`` (None: the current one).

    The names of the GPUs are told by the caller, for asking takes torch.
    """
    git, patch = read_git(folder or Path.cwd()) or (None, "")
    return Provenance(read_versions(), read_hardware(gpu_names), git, patch)


def read_versions() -> dict[str, str]:
    """Return the versions of Python, rootflow and of what is imported of the packages that matter."""
    versions = {"python": platform.python_version(), "rootflow": rootflow.__version__}
    for module, distribution in _PACKAGES.items():
        if module in sys.modules:
            with contextlib.suppress(metadata.PackageNotFoundError):
                versions[module] = metadata.version(distribution)
    return versions


def read_hardware(gpu_names: Sequence[str] = ()) -> dict[str, Any]:
    """Return the processor, the cores this process may use, and the machine's memory."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": list(gpu_names),
        "system": platform.platform(),
    }


def _cpu_model() -> str:
    with (
        contextlib.suppress(OSError),
        Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines,
    ):
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
