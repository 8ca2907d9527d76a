"""What an experiment is, however it is written: one hash for every way to name the same classes and values.

`model=mynet`, `model=models.mynet.MyNet` and a YAML with `_target_: models.mynet.MyNet` are one
experiment. Counted are, for each group, the place where its class is defined (re-exports followed) and
every argument, defaults included, the seed, and the weights that it starts from, if any. Left out are the
run's `name` and the group `tracking`: where a run is recorded changes nothing in it. So two runs of one
identity differ only by the versions of the code, the data and the machine.

Nothing is imported: the places and the defaults are read from the source.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

from rootflow.build import COMPONENT_KEYS
from rootflow.config.schema import MISSING, Config, Schema, default_of, defaults_of, schema_of
from rootflow.config.values import DoesNotFitError, fit
from rootflow.errors import ConfigError
from rootflow.registry import GROUPS, find_component
from rootflow.signatures import Parameter
from rootflow.sources import definition_path

LEFT_OUT = ("name", "tracking")
"""Keys that say how a run is called and where it is recorded."""


def identity(config: Config | Mapping[str, Any]) -> str:
    """Return 12 hexadecimal digits that are equal for two configs of the same experiment.

    The first digits of the SHA-256 of `canonical(config)` as JSON with sorted keys.

    Args:
        config: checked, or the same as nested mappings, e.g. from a run's `run.json`.
    """
    text = json.dumps(canonical(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def canonical(config: Config | Mapping[str, Any]) -> dict[str, Any]:
    """Return what `identity` hashes, for showing where two experiments differ.

    A group's `name` or `_target_` is `class` here: the module and name of its definition, as the source
    shows them. What can't be read (C extensions, code that is no longer there) stays as it was given.
    """
    given = config.to_dict() if isinstance(config, Config) else config
    return {
        key: _component(key, value) if key in GROUPS and isinstance(value, Mapping) else _plain(value)
        for key, value in given.items()
        if key not in LEFT_OUT and not (key == "init_from" and value is None)
    }


def _component(group: str, node: Mapping[str, Any]) -> dict[str, Any]:
    schema = schema_of(group, node)
    unsaid = {p.name: default_of(p) for p in schema.about} if schema else {}
    given = {
        key: value
        for key, value in node.items()
        if key not in COMPONENT_KEYS and not (key in unsaid and value == unsaid[key])
    }
    return {"class": _class_of(group, node), **_arguments(group, schema, given)}


def _class_of(group: str, node: Mapping[str, Any]) -> str:
    target, name = node.get("_target_"), str(node.get("name"))
    if isinstance(target, str):
        module, _, qualname = target.rpartition(".")
        return definition_path(module, qualname)
    try:
        return find_component(group, name).definition
    except ConfigError:
        return name


def _arguments(group: str, schema: Schema | None, given: Mapping[str, Any]) -> dict[str, Any]:
    values = {**(defaults_of(schema) if schema else {}), **given}
    return {
        str(key): _argument(group, schema, str(key), value)
        for key, value in values.items()
        if value != MISSING  # the component itself fills it
    }


def _argument(group: str, schema: Schema | None, key: str, value: Any) -> Any:
    parameter = schema.find(key) if schema else None
    if schema and parameter and parameter.fields is not None and isinstance(value, Mapping):
        return _arguments(group, dataclasses.replace(schema, parameters=parameter.fields, about=()), value)
    if schema and parameter and parameter.item_fields is not None:
        of_item = dataclasses.replace(schema, parameters=parameter.item_fields, about=())
        return _items(group, of_item, value)
    return _nested(group, _fitted(parameter, value))


def _items(group: str, schema: Schema, given: Any) -> Any:
    """Return a list or a mapping of dataclasses, each with its defaults."""
    if isinstance(given, list | tuple):
        return [_item(group, schema, item) for item in given]
    if isinstance(given, Mapping):
        return {str(key): _item(group, schema, item) for key, item in given.items()}
    return _plain(given)


def _item(group: str, schema: Schema, given: Any) -> Any:
    is_component = isinstance(given, Mapping) and not given.keys().isdisjoint(COMPONENT_KEYS)
    if isinstance(given, Mapping) and not is_component:
        return _arguments(group, schema, given)
    return _nested(group, given)


def _fitted(parameter: Parameter | None, value: Any) -> Any:
    """Return a value in the declared type, which a checked config's has already: 1 for a float is 1.0."""
    try:
        return fit(value, parameter.annotation if parameter else None)
    except DoesNotFitError:
        return value  # `auto`, or not checked


def _nested(group: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value or "name" in value:
            return _component(group, value)
        return {str(key): _nested(group, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nested(group, item) for item in value]
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    return value if isinstance(value, str | int | float | None) else str(value)
