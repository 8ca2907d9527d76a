"""Where config files lie: the user's project first, then what rootflow ships.

Nothing here needs Hydra, so `rootflow --help` and `list` can read options in milliseconds.
"""

from __future__ import annotations

from pathlib import Path


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
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, (owner, path))
    return dict(sorted(found.items()))


def group_names(extra: Path | None = None) -> list[str]:
    """Return the groups that have at least one option, the user's own too."""
    folders = [folder for _, folder in config_folders("conf", extra)]
    names = {path.parent.name for folder in folders for path in folder.glob("*/*.yaml")}
    return sorted(names - {"hydra"})
