"""Configs, options and keys for people to read. Needs no Hydra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from rootflow.build import COMPONENT_KEYS
from rootflow.config.folders import display_path, option_files
from rootflow.config.plain_yaml import PlainDumper, escaped, read_yaml
from rootflow.config.schema import Config, Schema, bare_components, default_of, defaults_of, schema_of
from rootflow.errors import ConfigError, did_you_mean
from rootflow.registry import GROUPS, is_component, unregistered_hint
from rootflow.signatures import Parameter, read_signature


def options_of(group: str, extra: Path | None = None) -> list[dict[str, Any]]:
    """Return every option of a group: its name, whose it is, and what it is in one line."""
    files, own = option_files(group, extra), bare_components(group)
    rows = [
        # a shipped file that names a component which the project has its own of is the project's, too
        {
            "option": name,
            "from": "project" if name in own else owner,
            "about": _about(group, name, extra),
        }
        for name, (owner, _) in files.items()
    ]
    for name in own:
        schema = schema_of(group, {"name": name}) if name not in files else None
        if schema is not None:
            rows.append({"option": name, "from": "project", "about": schema.doc or schema.title})
    return sorted(rows, key=lambda row: str(row["option"]))


def keys_of(group: str, option: str, extra: Path | None = None) -> list[dict[str, Any]]:
    """Return every key of an option: its value there, and what it means.

    Raises:
        ConfigError: there is no such option.
    """
    node = read_option(group, option, extra)
    schema = schema_of(group, node) if group in GROUPS else None
    if schema is None:
        return [{"key": f"{group}.{k}", "value": v, "about": ""} for k, v in node.items()]
    about = {p.name: default_of(p) for p in schema.about}
    values = defaults_of(schema) | about | {k: v for k, v in node.items() if k not in COMPONENT_KEYS}
    return [
        {"key": f"{group}.{key}", "value": value, "about": doc}
        for key, value, doc in _flat(values, (*schema.parameters, *schema.about))
    ]


def read_option(group: str, option: str, extra: Path | None = None) -> dict[str, Any]:
    """Return what a YAML says, its `defaults` within the group merged in, without the schema.

    Raises:
        ConfigError: there is no such option, or its file can't be read.
    """
    files = option_files(group, extra)
    if option not in files and is_component(group, option):
        return {"name": option}
    if option not in files:
        options = sorted({*files, *bare_components(group)})
        hint = did_you_mean(option, options) + unregistered_hint(group, option)
        raise ConfigError(f"{group} has no option {option!r}.{hint} Options: {', '.join(options)}.")
    path = files[option][1]
    content = read_yaml(path) or {}
    if not isinstance(content, dict):
        raise ConfigError(f"{display_path(path)}:1 is no mapping of keys to values.")
    bases = [b for b in content.pop("defaults", None) or [] if isinstance(b, str) and b != "_self_"]
    if option in bases:
        raise ConfigError(f"{display_path(path)}:1 builds on itself.")
    merged: dict[str, Any] = {}
    for base in bases:
        merged |= read_option(group, base, extra)
    return merged | content


def find_option_schema(group: str, option: str, extra: Path | None = None) -> Schema | None:
    """Return the schema of an option; None where its file or its component can't be read."""
    try:
        return schema_of(group, read_option(group, option, extra))
    except (ConfigError, RecursionError, TypeError):
        return None


def commented_yaml(config: Config) -> str:
    """Return a config as YAML, every key with its meaning as a comment."""
    lines: list[str] = []
    own = read_signature(Config.__module__, Config.__qualname__)
    docs = {p.name: p.doc for p in own.parameters} if own else {}
    for group, node in escaped(config.to_dict()).items():
        if not isinstance(node, dict):
            lines.append(f"{_entry(group, node)}  # {docs[group]}")
            continue
        schema = schema_of(group, node)
        about = ": ".join(filter(None, (schema.title, schema.doc))) if schema else ""
        lines.append(f"{group}:" + (f"  # {about}" if about else ""))
        known = (*schema.parameters, *schema.about) if schema else ()
        lines += _commented(node, known, depth=1)
    return "\n".join(lines) + "\n"


def _commented(node: dict[str, Any], parameters: tuple[Parameter, ...], *, depth: int) -> list[str]:
    known = {p.name: p for p in parameters}
    lines = []
    for key, value in node.items():
        parameter = known.get(key)
        comment = f"  # {parameter.doc}" if parameter and parameter.doc else ""
        if isinstance(value, dict) and value and parameter and parameter.fields:
            lines.append("  " * depth + f"{key}:{comment}")
            lines += _commented(value, parameter.fields, depth=depth + 1)
        else:
            lines.append("  " * depth + _entry(key, value) + comment)
    return lines


def _entry(key: str, value: Any) -> str:
    """Return `key: value` as one line of YAML."""
    mapping: str = yaml.dump(
        {key: value}, Dumper=PlainDumper, default_flow_style=True, width=float("inf"), sort_keys=False
    )
    return mapping.strip()[1:-1]


def _flat(
    values: dict[str, Any], parameters: tuple[Parameter, ...], prefix: str = ""
) -> list[tuple[str, Any, str]]:
    known = {p.name: p for p in parameters}
    rows: list[tuple[str, Any, str]] = []
    for key, value in values.items():
        parameter = known.get(key)
        if isinstance(value, dict) and parameter and parameter.fields:
            rows += _flat(value, parameter.fields, f"{prefix}{key}.")
        else:
            rows.append((prefix + key, value, parameter.doc if parameter else ""))
    return rows


def _about(group: str, option: str, extra: Path | None) -> str:
    comment = _first_comment(option_files(group, extra)[option][1])
    schema = find_option_schema(group, option, extra) if not comment and group in GROUPS else None
    return schema.doc or schema.title if schema else comment


def _first_comment(path: Path) -> str:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("#") and not line.startswith("# @"):
            return line.lstrip("# ").strip()
    return ""
