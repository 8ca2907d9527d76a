"""Plain configs as YAML that comes back as it was: text stays text, whoever reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rootflow.config.folders import display_path
from rootflow.errors import ConfigError

_EXPONENT = re.compile(r"[-+]?(?:\d[\d_]*\.?[\d_]*|\.[\d_]+)[eE][-+]?\d+$")
"""`1e-3` and `1.5e3`: numbers in YAML 1.2 and to OmegaConf, but text to PyYAML."""


class PlainLoader(yaml.SafeLoader):
    """Reads numbers as OmegaConf does, without its import."""


class PlainDumper(yaml.SafeDumper):
    """Quotes text that somebody would read as a number."""


for _known in (PlainLoader, PlainDumper):
    _known.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, [*"-+.0123456789"])


def read_yaml(path: Path) -> Any:
    """Return what a YAML file says.

    Raises:
        ConfigError: it can't be read; names the file and the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{display_path(path)}:1 can't be read: {reason}.") from error
    return parse_yaml(display_path(path), text)


def parse_yaml(label: str, text: str, loader: Any = PlainLoader) -> Any:
    """Return what a YAML text says.

    Args:
        label: what to call it in messages, e.g. the file.
        text: one YAML document.
        loader: a class of PyYAML's; it must be a safe one.

    Raises:
        ConfigError: it can't be read; names the line.
    """
    try:
        return yaml.load(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{label}{line}: {error.problem}.") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{label}: {' '.join(str(error).split())}.") from error


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
