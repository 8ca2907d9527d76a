"""How the word at the cursor may go on, in the overrides of a command line.

Reads what `rootflow list` reads: folders, YAML and the source of components. Composes nothing, so it
needs no Hydra. A defaults list that is broken counts as empty.

Candidates are whole words, each with what it is. One that ends in `=` or `.` is to be typed on.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from rootflow.build import OWN_KEYS
from rootflow.config.folders import BASE, config_folders, find_config, group_names, option_files
from rootflow.config.plain_yaml import PlainDumper, read_yaml
from rootflow.config.schema import ALIASES, CHOSEN_BY_DATA, SETTINGS, Config, is_auto_key, schema_of
from rootflow.config.show import options_of, read_option
from rootflow.errors import ConfigError
from rootflow.registry import GROUPS
from rootflow.signatures import Parameter, read_signature

Candidates = dict[str, str]

FILES = ":files"
"""Stands for all that the shell finds by itself, after the `=` of the word."""

_PATH = ":path"
"""Stands for any path among the values of a key."""

_WORD = re.compile(r"(?P<sign>~|\+{0,2})(?P<key>[^=]*)(?P<equals>=?)(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True)
class SoFar:
    """What a command line says beside the word at the cursor."""

    overrides: Sequence[str] = ()
    primary: str = "config"
    extra: Path | None = None
    """The folder of `--config-dir`."""
    config: Path | None = None
    """What `--config` names: a file, or the folder of a run."""

    @cached_property
    def choices(self) -> dict[str, Any]:
        """By group, what a run would have: an option, several with commas, or a component's whole node."""
        chosen = {"experiment": None} | (self._primary_choices() or _choices_of(BASE, self.extra))
        own = {key: value for key, value in self._pairs() if key in self.groups}
        for name in str(own.get("experiment", chosen["experiment"])).split(","):
            chosen |= _choices_of(f"experiment/{name}", self.extra)
        return chosen | own

    @cached_property
    def groups(self) -> list[str]:
        """The groups, the user's own too."""
        return [*group_names(self.extra), "sweeps"]

    @cached_property
    def given(self) -> set[str]:
        """The keys that have a value already, in full."""
        return {_in_full(key) for key, _ in self._pairs()}

    def keys(self, group: str) -> dict[str, Parameter | None]:
        """Return the dotted keys of what is chosen in a group; None for one that only a YAML knows."""
        if not _has_keys(group, self):
            return {}
        choice = self.choices[group]
        if isinstance(choice, Mapping):
            return _keys_of(group, choice)
        nodes = [read_option(group, option, self.extra) for option in str(choice).split(",")]
        return {key: parameter for node in nodes for key, parameter in _keys_of(group, node).items()}

    def _pairs(self) -> Iterator[tuple[str, str]]:
        for override in self.overrides:
            key, _, value = override.lstrip("+~-").partition("=")
            yield key, value

    def _primary_choices(self) -> dict[str, Any]:
        if self.config is None:
            return _choices_of(self.primary, self.extra)
        values = _read(self.config / "config.yaml" if self.config.is_dir() else self.config)
        if "defaults" in values:
            return _listed(values, self.extra)
        own = {key: value for key, value in values.items() if key in (*GROUPS, "experiment")}
        named = {g: v for g, v in own.items() if not isinstance(v, Mapping) or v.keys() & set(OWN_KEYS)}
        return _choices_of(BASE, self.extra) | named


def complete_override(word: str, so_far: SoFar) -> Candidates:
    """Return how an override that begins with ``word`` may go on."""
    found = _WORD.fullmatch(word)
    assert found is not None
    sign, key = found["sign"], found["key"]
    if not found["equals"]:
        keys = _joined(sign, _keys_below(key, so_far), _end(sign)) if "." in key else _top_keys(sign, so_far)
        return _starting(word, {k: about for k, about in keys.items() if _in_full(k) not in so_far.given})
    values = _values(key, so_far)
    if FILES in values:
        return values
    *others, last = found["value"].split(",")  # several values make several runs
    new = {value: about for value, about in values.items() if value not in others}
    return _starting(word, _joined(word.removesuffix(last), new))


def complete_key(word: str, so_far: SoFar) -> Candidates:
    """Return the keys, without a value, that begin with ``word``: a group, a part of one, a setting."""
    if "." in word:
        return _starting(word, _keys_below(word, so_far))
    return _starting(word, _listed_groups(so_far) | _parts(so_far) | _settings())


def groups(so_far: SoFar) -> Candidates:
    """Return the groups that `rootflow list` knows."""
    return dict.fromkeys(group_names(so_far.extra), "")


def options(group: str, so_far: SoFar) -> Candidates:
    """Return the options of a group."""
    try:
        return {row["option"]: row["about"] for row in options_of(group, so_far.extra)}
    except (OSError, ValueError):  # the first line of one of them can't be read
        return dict.fromkeys(option_files(group, so_far.extra), "")


def primaries(so_far: SoFar) -> Candidates:
    """Return the configs that `--config-name` may name."""
    folders = [folder for _, folder in config_folders("conf", so_far.extra)]
    return dict.fromkeys((path.stem for folder in folders for path in folder.glob("*.yaml")), "")


def _starting(word: str, candidates: Candidates) -> Candidates:
    return {text: about for text, about in candidates.items() if text.startswith(word)}


def _joined(start: str, candidates: Candidates, end: str = "") -> Candidates:
    return {f"{start}{text}{end}": about for text, about in candidates.items()}


def _in_full(override: str) -> str:
    key = override.lstrip("+~").partition("=")[0]
    return ALIASES.get(key, key)


def _end(sign: str) -> str:
    return "" if sign == "~" else "="  # what is taken out needs no value


def _top_keys(sign: str, so_far: SoFar) -> Candidates:
    parts = _joined(sign, _parts(so_far))
    if sign == "~":
        return _joined(sign, _listed_groups(so_far)) | parts
    settings = _joined(sign, _settings(), "=")
    if sign == "++":
        return parts | settings
    # `+` is wanted for a group that no defaults list has, and only there
    unlisted = {f"+{group}=": "" for group in so_far.groups if group not in so_far.choices}
    if sign == "+":
        return unlisted | parts
    aliases = {f"{short}=": f"short for {key}" for short, key in ALIASES.items()}
    return _joined("", _listed_groups(so_far), "=") | parts | settings | aliases | unlisted


def _listed_groups(so_far: SoFar) -> Candidates:
    """Return the groups of which something is chosen, and what."""
    chosen = {group: so_far.choices[group] for group in so_far.groups if group in so_far.choices}
    names = {g: node.get("name") if isinstance(node, Mapping) else node for g, node in chosen.items()}
    return {group: f"now {'null' if name is None else name}" for group, name in names.items()}


def _parts(so_far: SoFar) -> Candidates:
    """Return `group.` of every group that has keys."""
    return {f"{g}.": f"keys, {about}" for g, about in _listed_groups(so_far).items() if _has_keys(g, so_far)}


def _has_keys(group: str, so_far: SoFar) -> bool:
    """Whether something is chosen that may have keys; told without reading it, which takes its time."""
    choice = so_far.choices.get(group)
    is_open = group in CHOSEN_BY_DATA and choice == "auto"
    return bool(choice) and not is_open and group not in ("experiment", "sweeps")


def _keys_below(key: str, so_far: SoFar) -> Candidates:
    known = so_far.keys(key.partition(".")[0])
    return {full: parameter.doc if parameter else "" for full, parameter in known.items()}


def _settings() -> Candidates:
    return {name: parameter.doc for name, parameter in _setting_parameters().items()}


def _setting_parameters() -> dict[str, Parameter]:
    own = read_signature(Config.__module__, Config.__qualname__)
    return {p.name: p for p in own.parameters if p.name in SETTINGS} if own else {}


def _values(key: str, so_far: SoFar) -> Candidates:
    """Return the values of a key that can be told one by one."""
    if key in so_far.groups:
        return options(key, so_far)
    group, _, inner = _in_full(key).partition(".")
    parameter = so_far.keys(group).get(_in_full(key)) if inner else _setting_parameters().get(key)
    if parameter is None:
        return {}
    values = _allowed(parameter.annotation)
    if _PATH in values or inner == "path":
        return {FILES: ""}
    is_auto = parameter.default == "auto" or is_auto_key(group, inner)
    return dict.fromkeys(["auto", *values] if is_auto else values, "")


def _allowed(annotation: ast.expr | None) -> list[str]:
    """Return the values that an annotation names, as YAML writes them."""
    match annotation:
        case ast.Constant(value=None):
            return ["null"]
        case ast.Constant(value=str(text)):
            return _allowed(ast.parse(text, mode="eval").body)
        case ast.Name(id="bool"):
            return ["true", "false"]
        case ast.Name(id="Path"):
            return [_PATH]
        case ast.BinOp(left=left, right=right):
            return _allowed(left) + _allowed(right)
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inside):
            return _allowed_of(name, inside.elts if isinstance(inside, ast.Tuple) else [inside])
    return []


def _allowed_of(name: str, arguments: list[ast.expr]) -> list[str]:
    """Return the same of `name[arguments]`; items of a list aren't values."""
    if name == "Literal":
        constants = [argument.value for argument in arguments if isinstance(argument, ast.Constant)]
        return [value if isinstance(value, str) else _yaml(value) for value in constants]
    if name == "Annotated":
        return _allowed(arguments[0])
    inner = [value for argument in arguments for value in _allowed(argument)]
    return {"Union": inner, "Optional": [*inner, "null"]}.get(name, [])


def _yaml(value: Any) -> str:
    text: str = yaml.dump(value, Dumper=PlainDumper)
    return text.partition("\n")[0]


def _keys_of(group: str, node: Mapping[str, Any]) -> dict[str, Parameter | None]:
    schema = schema_of(group, node)
    said = {key: value for key, value in node.items() if key not in OWN_KEYS}
    from_yaml = dict.fromkeys(_flat_values(said, f"{group}."))
    return from_yaml | (_flat((*schema.parameters, *schema.about), f"{group}.") if schema else {})


def _flat(parameters: Sequence[Parameter], prefix: str) -> dict[str, Parameter | None]:
    found: dict[str, Parameter | None] = {}
    for parameter in parameters:
        key = prefix + parameter.name
        found |= _flat(parameter.fields or (), f"{key}.")
        if not parameter.fields or parameter.default is None:
            found[key] = parameter
    return found


def _flat_values(values: Mapping[Any, Any], prefix: str) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat_values(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _choices_of(name: str, extra: Path | None, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what a config in conf/ chooses, itself or by the configs that it builds on."""
    path = find_config(name, extra)
    return _listed(_read(path), extra, (*above, name)) if path else {}


def _listed(values: Mapping[str, Any], extra: Path | None, above: tuple[str, ...] = ()) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    defaults = values.get("defaults")
    for entry in defaults if isinstance(defaults, list) else ():
        if isinstance(entry, dict):
            chosen |= {_group(str(key)): option for key, option in entry.items()}
        elif isinstance(entry, str) and entry not in above:
            chosen |= _choices_of(entry, extra, above)
    return chosen


def _group(key: str) -> str:
    """Return the group of `override /model@package`."""
    return key.rpartition(" ")[2].strip("/").partition("@")[0]


def _read(path: Path) -> dict[str, Any]:
    try:
        values = read_yaml(path)
    except ConfigError:
        return {}
    return values if isinstance(values, dict) else {}
