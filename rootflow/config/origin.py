"""Where the values of a composed config came from: signature, Python, file and line, or command line."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rootflow.config.folders import display_path
from rootflow.config.plain_yaml import PlainLoader
from rootflow.registry import GROUPS

COMMAND_LINE = "command line"

DEFAULT_RANK, OPTION_RANK, PRIMARY_RANK, EXPERIMENT_RANK, COMMAND_RANK = range(5)
"""How late a value was set: by the signature's default, the file of an option, the config that everything
starts from (also one given in Python or by --config), an experiment or sweep file, the command line."""


@dataclass(frozen=True)
class ConfigText:
    """One file, or a part of a config given as a whole, that a job was composed from."""

    rank: int
    package: str = ""
    """The part of the config that it speaks about, e.g. `model`; empty for all of it."""
    path: Path | None = None
    label: str = ""
    """What to call it where there is no path, e.g. `Python`."""
    given: Mapping[str, Any] | None = None
    """What it says, where that isn't to be read from its text."""
    given_text: str | None = None

    @functools.cached_property
    def text(self) -> str | None:
        """Its YAML, for line numbers; None for a config from Python."""
        return read_text(self.path) if self.path else self.given_text

    @functools.cached_property
    def values(self) -> Any:
        """What it says."""
        return _load(self.text) if self.given is None and self.text else self.given

    def find(self, key: str) -> Setting | None:
        """Return what it says about a dotted key."""
        inside = _inner(key, self.package)
        if inside is not None and isinstance(self.values, Mapping) and inside in self.values:
            line = find_line(self.text, inside, is_whole=True) if self.text else None
            return Setting(self.rank, self._at(line), self.values[inside])
        found, value = _select(self.values, inside) if inside else (False, None)
        if inside is None or not found:
            return None
        line = find_line(self.text, inside) if self.text else None
        return Setting(self.rank, self._at(line), value)

    def _at(self, line: int | None) -> str:
        name = display_path(self.path) if self.path else self.label
        return f"{name}:{line}" if line else name


@dataclass(frozen=True)
class Setting:
    """What one layer says about one key."""

    rank: int
    place: str
    value: Any


@dataclass(frozen=True)
class Sweep:
    """The sweep that a job belongs to."""

    places: Mapping[str, str] = field(default_factory=dict)
    """Places of the overrides that a sweep file makes, by key."""
    varied: frozenset[str] = frozenset()
    """Keys that have another value in another job."""


@dataclass(frozen=True)
class Origins:
    """What was put together for one job, in the order in which it overrules."""

    overrides: tuple[str, ...] = ()
    texts: Sequence[ConfigText] = ()
    """The files that the job was composed from, the overruling last."""
    sweep: Sweep = Sweep()
    extra: Path | None = None
    """The folder of `--config-dir`."""

    def chain(self, key: str) -> list[Setting]:
        """Return all that set a dotted key, the overruling last; nothing where only a default does."""
        settings = [found for text in self.texts if (found := text.find(key)) is not None]
        for override in self.overrides:
            name, _, value = override.partition("=")
            name = name.lstrip("+~").partition("@")[0]
            is_above = key.startswith(name + ".") and name not in GROUPS
            is_bare = key == f"{name}.name" and all(text.package != name for text in self.texts)
            if name == key or name.startswith(key + ".") or is_above or is_bare:
                swept = self.sweep.places.get(name)
                rank = EXPERIMENT_RANK if swept else COMMAND_RANK
                settings.append(Setting(rank, swept or COMMAND_LINE, value))
        return settings

    def choice(self, group: str) -> Setting | None:
        """Return the option of a group and who chose it; None where it has no file."""
        options = [text.path.stem for text in self.texts if text.package == group and text.path]
        if not options:
            return None
        if any(override.lstrip("+").partition("=")[0] == group for override in self.overrides):
            return Setting(COMMAND_RANK, COMMAND_LINE, options[-1])
        for text in reversed(self.texts):
            line = find_default(text.text, group, options[-1]) if text.text and not text.package else None
            if line is not None:
                name = display_path(text.path) if text.path else text.label
                return Setting(text.rank, f"{name}:{line}", options[-1])
        return Setting(PRIMARY_RANK, "Python", options[-1])

    def place(self, key: str) -> str | None:
        """Return `command line`, `file:line` or `Python` of a key; None where only a default sets it."""
        chain = self.chain(key)
        return chain[-1].place if chain else None

    def rank(self, key: str) -> int:
        """Return how late a key was set; 0 where only its default sets it."""
        chain = self.chain(key)
        return chain[-1].rank if chain else DEFAULT_RANK


def find_line(text: str, key: str, *, is_whole: bool = False) -> int | None:
    """Return the line of a YAML text on which a dotted key stands, counted from 1.

    Args:
        text: one YAML document.
        key: dotted.
        is_whole: the dots are part of one key.
    """
    node = _nodes(text)
    line = None
    for part in [key] if is_whole else key.split("."):
        if isinstance(node, yaml.SequenceNode) and part.isdecimal() and int(part) < len(node.value):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
            continue
        if not isinstance(node, yaml.MappingNode):
            return line
        found = [(k, v) for k, v in node.value if getattr(k, "value", None) == part]
        if not found:
            return None
        line, node = found[-1][0].start_mark.line + 1, found[-1][1]
    return line


def find_default(text: str, group: str, option: str) -> int | None:
    """Return the line on which a YAML's `defaults` list names an option of a group."""
    node = _nodes(text)
    entries = [v for k, v in getattr(node, "value", ()) if getattr(k, "value", None) == "defaults"]
    for entry in entries[0].value if entries else ():
        pairs = [(k.value, v.value) for k, v in entry.value] if isinstance(entry, yaml.MappingNode) else []
        for key, value in pairs or [("", entry.value)]:
            named = str(key).removeprefix("optional ").removeprefix("override ").strip(" /")
            if value == option and named.partition("@")[0] in (group, ""):
                return int(entry.start_mark.line) + 1
            if not option and named.partition("@")[0] == group:
                return int(entry.start_mark.line) + 1
    return None


def find_swept(text: ConfigText) -> dict[str, str]:
    """Return the place of each override that a sweep file makes for Hydra's own sweeper, by its key."""
    node = _nodes(text.text) if text.text else None
    for part in ("hydra", "sweeper", "params"):
        node = next((v for k, v in getattr(node, "value", ()) if getattr(k, "value", None) == part), None)
    name = display_path(text.path) if text.path else text.label
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return {str(key.value): f"{name}:{key.start_mark.line + 1}" for key, _ in pairs}


def _inner(key: str, package: str) -> str | None:
    if not package:
        return key
    if key == package:
        return "name"
    return key.removeprefix(package + ".") if key.startswith(package + ".") else None


def _select(values: Any, key: str) -> tuple[bool, Any]:
    for part in key.split("."):
        if isinstance(values, list) and part.isdecimal() and int(part) < len(values):
            values = values[int(part)]
        elif isinstance(values, Mapping):
            if part not in values:
                return False, None
            values = values[part]
        else:
            return values is not None, values  # a text or a number stands where the key goes on
    return True, values


def read_text(path: Path) -> str | None:
    """Return the text of a file; None where it can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _load(text: str) -> Any:
    try:
        return yaml.load(text, Loader=PlainLoader)
    except (yaml.YAMLError, ValueError):
        return None


@functools.lru_cache(maxsize=64)
def _nodes(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None
