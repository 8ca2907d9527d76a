"""All mistakes of a composed config, found before anything is built.

Each says the key as it is typed, its value and the place that set it, what is allowed, and the
nearest right spelling.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rootflow.config.origin import Origins, display_path
from rootflow.config.schema import MISSING, SETTINGS, Config, Schema, is_auto_key, schema_of
from rootflow.config.values import DoesNotFitError, describe, fit
from rootflow.errors import ConfigError, did_you_mean
from rootflow.registry import GROUPS, find_component
from rootflow.signatures import COMPUTED, Parameter


def check(cfg: DictConfig, origins: Origins) -> Config:
    """Return the typed form of a composed config.

    Raises:
        ConfigError: lists every mistake. Nothing was built or written.
    """
    return _Check(origins).config(_resolved(cfg))


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    try:
        own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        container = OmegaConf.to_container(own, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if getattr(error, "full_key", None) else ""
        raise ConfigError(f"{key}{str(error).splitlines()[0]}") from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


class _Check:
    """One pass over one config; collects mistakes instead of stopping at the first."""

    def __init__(self, origins: Origins) -> None:
        self.origins = origins
        self.mistakes: list[str] = []

    def config(self, given: dict[str, Any]) -> Config:
        for key in given:
            if key not in GROUPS and key not in SETTINGS:
                known = (*GROUPS, *SETTINGS)
                self.add(
                    f"{key} is no setting{self.at(key)}.{did_you_mean(key, known)} "
                    f"There are {', '.join(known)}."
                )
        values = {group: self.group(group, given.get(group)) for group in GROUPS}
        seed, name = given.get("seed", 0), given.get("name")
        if isinstance(seed, str) and seed.isdecimal():
            seed = int(seed)  # ${oc.env:...} gives text
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
            self.add(f"seed is {seed!r}{self.at('seed')}; it must be a whole number from 0 to 2**63 - 1.")
        if isinstance(name, Mapping | list):
            self.add(f"name is {name!r}{self.at('name')}; it must be text or null.")
        if self.mistakes:
            raise ConfigError(_joined(self.mistakes))
        return Config(**values, seed=seed, name=None if name is None else str(name))

    def group(self, group: str, node: Any) -> dict[str, Any]:
        if not isinstance(node, dict) or not ({"name", "_target_"} & node.keys()):
            shown = f"is {node!r}" if node is not None else "is not chosen"
            self.add(
                f"{group} {shown}{self.at(group)}; choose an option: {group}=... (`rootflow list {group}`)."
            )
            return {}
        schema = schema_of(group, node)
        if schema is None:
            self.unknown_component(group, node)
            return node
        identity = {key: node[key] for key in ("name", "_target_") if key in node}
        rest = {key: value for key, value in node.items() if key not in identity}
        return identity | self.parameters(group, schema, rest)

    def unknown_component(self, group: str, node: dict[str, Any]) -> None:
        """A `_target_` whose source can't be read is left to Python; a name must be registered."""
        if "_target_" in node:
            return
        try:
            find_component(group, str(node["name"]))
        except ConfigError as error:
            self.add(f"{error}{self.at(f'{group}.name')}")

    def parameters(self, group: str, schema: Schema, given: dict[str, Any]) -> dict[str, Any]:
        fitted: dict[str, Any] = {}
        for key, value in given.items():
            parameter = schema.find(key)
            if parameter is not None:
                fitted |= self.one(f"{group}.{key}", parameter, value)
            elif schema.accepts_more or key.startswith("_"):
                fitted[key] = value
            else:
                keys = [p.name for p in schema.parameters]
                self.unknown_key(
                    f"{group}.{key}", keys, f"{schema.title} ({display_path(schema.path)}:{schema.line})"
                )
        return fitted

    def unknown_key(self, key: str, known: list[str], owner: str) -> None:
        self.add(
            f"{key} does not exist{self.at(key)}.{did_you_mean(key.rpartition('.')[2], known)} "
            f"{owner} takes {', '.join(known) or 'nothing'}."
        )

    def one(self, key: str, parameter: Parameter, value: Any) -> dict[str, Any]:
        """Check one value; return `{name: fitted value}`, or nothing where a default applies."""
        if value == MISSING:
            if parameter.default is not COMPUTED:
                allowed = describe(parameter.annotation) if parameter.annotation else "a value"
                self.add(f"{key} has no value; it must be {allowed}. Set it: {key}=...")
            return {}
        if value == "auto" and is_auto_key(*key.split(".", 1)):
            return {parameter.name: value}
        if parameter.fields is not None and isinstance(value, dict):
            return {parameter.name: self.nested(key, parameter.fields, value)}
        try:
            return {parameter.name: fit(value, parameter.annotation)}
        except DoesNotFitError as error:
            auto = " or 'auto'" if is_auto_key(*key.split(".", 1)) else ""
            self.add(f"{key} is {_shown(value)}{self.at(key)}; it must be {error}{auto}.")
            return {}

    def nested(self, key: str, fields: tuple[Parameter, ...], given: dict[str, Any]) -> dict[str, Any]:
        fitted: dict[str, Any] = {}
        known = {p.name: p for p in fields}
        for name, value in given.items():
            if name in known:
                fitted |= self.one(f"{key}.{name}", known[name], value)
            else:
                self.unknown_key(f"{key}.{name}", list(known), key)
        return fitted

    def at(self, key: str) -> str:
        place = self.origins.place(key)
        return f" ({place})" if place else ""

    def add(self, mistake: str) -> None:
        self.mistakes.append(mistake)


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value)


def _joined(mistakes: list[str]) -> str:
    if len(mistakes) == 1:
        return mistakes[0]
    return "\n".join([f"the config has {len(mistakes)} mistakes:", *(f"  - {m}" for m in mistakes)])
