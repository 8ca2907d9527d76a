"""Plain configs as YAML that comes back as it was: text stays text, whoever reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml


class PlainDumper(yaml.SafeDumper):
    """Quotes text like `1e3`, which is a number in YAML 1.2 and to OmegaConf, but text to PyYAML."""


PlainDumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d[\d_]*[eE][-+]?\d+$"), [*"-+0123456789"]
)


def to_yaml(config: Mapping[str, Any]) -> str:
    """Return a plain config as YAML that `read_layer` gives back: no text in it becomes an interpolation."""
    return yaml.dump(escaped(config), Dumper=PlainDumper, sort_keys=False)


def escaped(value: Any) -> Any:
    """Return plain values in which `${` is text and not an interpolation."""
    if isinstance(value, Mapping):
        return {key: escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [escaped(item) for item in value]
    if isinstance(value, str):  # OmegaConf: half of the backslashes before `${` are escapes
        return re.sub(r"(?<!\\)(\\*)\$\{", lambda found: found[1] * 2 + "\\${", value)
    return value
