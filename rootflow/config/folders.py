"""Where config files lie: the user's project first, then what rootflow ships.

Nothing here needs Hydra, so `rootflow --help` and `list` can read options in milliseconds.
"""

from __future__ import annotations

import os
from pathlib import Path

BASE = "rootflow"
"""The config that chooses an option of each group, on which every other builds."""


def shipped_folder(name: str) -> Path:
    """Return the shipped `conf` or `sweeps`: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def config_folders(name: str = "conf", extra: Path | None = None) -> list[tuple[str, Path]]:
    """Return `(owner, folder)` in the order in which an option is looked for.

    Args:
        name: `conf` or `sweeps`.
        extra: the folder of `--config-dir`, searched before all others.
    """
    candidates = [("command-line", extra), ("project", Path.cwd() / name), ("rootflow", shipped_folder(name))]
    found: dict[Path, str] = {}
    for owner, folder in candidates:
        if folder is not None and folder.is_dir():
            found.setdefault(folder.resolve(), owner)
    return [(owner, folder) for folder, owner in found.items()]


def option_files(group: str, extra: Path | None = None) -> dict[str, tuple[str, Path]]:
    """Return `(owner, file)` of every option of a group; a user's file hides the shipped one."""
    found: dict[str, tuple[str, Path]] = {}
    folders = [(owner, folder / group) for owner, folder in config_folders("conf", extra)]
    for owner, folder in config_folders("sweeps") if group == "sweeps" else folders:
        for path in sorted(filter(Path.is_file, folder.glob("*.yaml"))):
            found.setdefault(path.stem, (owner, path))
    return dict(sorted(found.items()))


def find_config(name: str, extra: Path | None = None) -> Path | None:
    """Return the file of a config by its path in conf/, e.g. `model/resnet` or `sweeps/seeds`."""
    group, _, option = name.rpartition("/")
    if group == "sweeps":
        candidates = [folder / f"{option}.yaml" for _, folder in config_folders("sweeps")]
    else:
        candidates = [folder / f"{name}.yaml" for _, folder in config_folders("conf", extra)]
    return next((path for path in candidates if path.is_file()), None)


def group_names(extra: Path | None = None) -> list[str]:
    """Return the groups that have at least one option, the user's own too."""
    folders = [folder for _, folder in config_folders("conf", extra)]
    names = {path.parent.name for folder in folders for path in folder.glob("*/*.yaml")}
    return sorted(names - {"hydra"})


def display_path(path: Path) -> str:
    """Return a path as short as it can be said: relative to here if it lies below."""
    here = Path.cwd()
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)
