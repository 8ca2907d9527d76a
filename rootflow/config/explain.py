"""Who set a key, and what differs from the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rootflow.config.flat import to_flat
from rootflow.config.folders import display_path
from rootflow.config.origin import DEFAULT_RANK, Origins, Setting
from rootflow.config.schema import ALIASES, SETTINGS, Config, is_auto_key, schema_of
from rootflow.config.values import describe
from rootflow.errors import ConfigError, did_you_mean
from rootflow.registry import GROUPS
from rootflow.signatures import COMPUTED, REQUIRED, Parameter, read_signature


@dataclass(frozen=True)
class Explanation:
    """All that is known about one key of a config."""

    key: str
    value: Any
    about: str
    takes: str
    """What may stand there, in words; empty where nothing is declared."""
    chain: tuple[Setting, ...]
    """All that set it, the overruling last, from the default in a signature on."""


@dataclass(frozen=True)
class Difference:
    """One key that isn't as by default."""

    key: str
    default: Any
    value: Any
    place: str


_ABSENT = "(absent)"


def explain(config: Config, origins: Origins, key: str) -> list[Explanation]:
    """Return what is known about a key, or about all keys below it.

    Raises:
        ConfigError: the config has no such key.
    """
    key = ALIASES.get(key, key)
    flat = to_flat(config.to_dict())
    below = [name for name in flat if name == key or name.startswith(key + ".")]
    if not below:
        raise ConfigError(f"{key} is no key of this config (command line).{did_you_mean(key, flat)}")
    return [_explained(config, origins, name, flat[name]) for name in below]


def differences(default: Config, config: Config, origins: Origins) -> list[Difference]:
    """Return the keys whose values differ between two configs, with the places that set them."""
    before, after = to_flat(default.to_dict()), to_flat(config.to_dict())
    return [
        Difference(key, before.get(key, _ABSENT), after.get(key, _ABSENT), origins.place(key) or "default")
        for key in [*after, *(key for key in before if key not in after)]
        if before.get(key, _ABSENT) != after.get(key, _ABSENT)
    ]


def _explained(config: Config, origins: Origins, key: str, value: Any) -> Explanation:
    parameter, place = _parameter(config, key)
    chain = [*origins.chain(key)]
    if parameter is not None and parameter.default not in (REQUIRED, COMPUTED):
        chain.insert(0, Setting(DEFAULT_RANK, place, parameter.default))
    takes = ""
    if parameter is not None and parameter.annotation is not None and parameter.fields is None:
        takes = describe(parameter.annotation)
    if takes and "." in key and is_auto_key(*key.split(".", 1)):
        takes += " or 'auto'"
    about = parameter.doc if parameter is not None else ""
    return Explanation(key, value, about, takes, tuple(chain) or (Setting(DEFAULT_RANK, place, value),))


def _parameter(config: Config, key: str) -> tuple[Parameter | None, str]:
    """Return what declares a key, and where its default stands."""
    group, *path = key.split(".")
    if group in SETTINGS:
        own = read_signature(Config.__module__, Config.__qualname__)
        return next((p for p in own.parameters if p.name == group), None) if own else None, "default"
    node: Mapping[str, Any] = getattr(config, group) if group in GROUPS else {}
    schema = schema_of(group, node)
    if schema is None:
        return None, "default"
    known: tuple[Parameter, ...] = (*schema.parameters, *schema.about)
    found: Parameter | None = None
    for part in path:
        found = next((p for p in known if p.name == part), None)
        known = (found.fields if found else None) or ()
    return found, f"default of {schema.title} ({display_path(schema.path)}:{schema.line})"
