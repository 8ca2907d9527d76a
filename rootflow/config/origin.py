"""Where a value of the composed config was set: command line, file and line, or signature."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rootflow.config.folders import config_folders
from rootflow.registry import GROUPS

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Origins:
    """What was put together for one job, in the order in which it overrules."""

    overrides: tuple[str, ...]
    choices: Mapping[str, Any]
    """The option chosen in each group, e.g. `{"model": "resnet"}`."""
    primary: str = "config"
    extra: Path | None = None

    def place(self, key: str) -> str | None:
        """Return `command line` or `file:line` of a dotted key; None where only a default sets it."""
        for override in self.overrides:
            name = override.partition("=")[0].lstrip("+~")
            if (
                name == key
                or name.startswith(key + ".")
                or (key.startswith(name + ".") and name not in GROUPS)
            ):
                return COMMAND_LINE
        for path, inner in self._files(key):
            if (line := find_line(path, inner)) is not None:
                return f"{display_path(path)}:{line}"
        return None

    def _files(self, key: str) -> Iterator[tuple[Path, str]]:
        """Yield `(file, key within it)`, the overruling first."""
        experiment = self.choices.get("experiment")
        if experiment:
            yield from ((path, key) for path in self._find(f"experiment/{experiment}"))
        for name in (self.primary, "rootflow"):
            yield from ((path, key) for path in self._find(name))
        group, _, inner = key.partition(".")
        option = self.choices.get(group)
        for path in self._with_bases(group, str(option)) if option else ():
            yield path, inner or "name"

    def _with_bases(self, group: str, option: str) -> Iterator[Path]:
        for path in self._find(f"{group}/{option}"):
            yield path
            for base in _read_mapping(path).get("defaults") or ():
                if isinstance(base, str) and base not in ("_self_", option):
                    yield from self._with_bases(group, base)

    def _find(self, name: str) -> Iterator[Path]:
        for _, folder in config_folders("conf", self.extra):
            path = folder / f"{name}.yaml"
            if path.is_file():
                yield path
                return


def find_line(path: Path, key: str) -> int | None:
    """Return the line in a YAML file on which a dotted key stands, counted from 1."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, yaml.YAMLError):
        return None
    line = None
    for part in key.split("."):
        if not isinstance(node, yaml.MappingNode):
            return line
        found = [(k, v) for k, v in node.value if getattr(k, "value", None) == part]
        if not found:
            return None
        line, node = found[0][0].start_mark.line + 1, found[0][1]
    return line


def display_path(path: Path) -> str:
    """Return a path as short as it can be said: relative to here if it lies below."""
    here = Path.cwd()
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}
