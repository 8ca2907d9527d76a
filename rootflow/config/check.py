"""All mistakes of a composed config, found before anything is built.

Each says the key as it is typed, its value and the place that set it, what is allowed, and the
nearest right spelling.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from rootflow.build import COMPONENT_KEYS
from rootflow.config.folders import display_path, option_files
from rootflow.config.interpolation import resolve
from rootflow.config.origin import COMMAND_LINE, EXPERIMENT_RANK, OPTION_RANK, Origins
from rootflow.config.rules import broken_rules
from rootflow.config.schema import (
    ALIASES,
    MISSING,
    REDACTED,
    SETTINGS,
    Config,
    Schema,
    default_of,
    defaults_of,
    is_auto_key,
    schema_of,
)
from rootflow.config.show import find_option_schema
from rootflow.config.values import DoesNotFitError, describe, fit, takes_null
from rootflow.errors import ConfigError, did_you_mean, shown
from rootflow.registry import GROUPS, absent_hint, find_component
from rootflow.signatures import COMPUTED, Parameter


def checked(
    cfg: DictConfig, origins: Origins, *, told: Sequence[str] = (), unknown: Collection[str] = ()
) -> Config:
    """Return the typed form of a composed config.

    Args:
        cfg: without Hydra's own part.
        origins: where its values came from.
        told: mistakes found before, to be told with those found here.
        unknown: groups whose chosen option doesn't exist; nothing can be said about their keys.

    Raises:
        ConfigError: lists every mistake. Nothing was built or written.
    """
    checker = _Check(origins, [*told])
    values = checker.values(checker.resolved(cfg), unknown)
    checker.mistakes += broken_rules(values, origins)
    if checker.mistakes:
        raise ConfigError(*dict.fromkeys(checker.mistakes))
    return Config(**values)


class _Check:
    """One pass over one config; collects mistakes instead of stopping at the first."""

    def __init__(self, origins: Origins, mistakes: list[str]) -> None:
        self.origins = origins
        self.mistakes = mistakes
        self.given: Mapping[str, Any] = {}

    def resolved(self, cfg: DictConfig) -> dict[str, Any]:
        """Return plain values; what can't be resolved is a mistake, and left out."""
        plain, unresolved = resolve(cfg)
        for key, reason in unresolved.items():
            absent = re.search(r"Interpolation key '([^'.]*)[^']*' not found", reason)
            hint = did_you_mean(absent[1], [*GROUPS, *SETTINGS]) if absent and absent[1] not in GROUPS else ""
            self.add(f"{key} can't be resolved{self.at(key)}: {reason}.{hint}")
        return plain

    def values(self, given: dict[str, Any], unknown: Collection[str]) -> dict[str, Any]:
        self.given = given
        for key in given:
            if key not in GROUPS and key not in SETTINGS:
                self.no_setting(key, given)
        values: dict[str, Any] = {
            group: self.group(group, given.get(group)) for group in GROUPS if group not in unknown
        }
        return values | {
            "seed": self.seed(given.get("seed", 0)),
            "name": self.text("name", given.get("name")),
            "init_from": self.text("init_from", given.get("init_from")),
        }

    def no_setting(self, key: str, given: Mapping[str, Any]) -> None:
        known = (*GROUPS, *SETTINGS)
        below = next((text for text in self.origins.texts if text.package == key and text.path), None)
        if below is not None and below.path is not None:
            self.add(
                f"{display_path(below.path)}:1 lacks the line `# @package _global_`, without which its keys "
                f"stand below {key!r}, where nothing reads them."
            )
            return
        if "." in key:
            *above, last = key.split(".")
            self.add(
                f"{key}{self.at(key)} is one key with a dot in it; write `{'.'.join(above)}:` and `{last}:` "
                "in a line below."
            )
            return
        hint = did_you_mean(key, (*known, *ALIASES)) or _in_other_groups(key, given)
        self.add(f"{key} is no setting{self.at(key)}.{hint} There are {', '.join(known)}.")

    def seed(self, value: Any) -> int:
        if isinstance(value, str) and value.isdecimal() and value.isascii():
            value = int(value)  # ${oc.env:...} gives text
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
            self.add(
                f"seed is {shown(value)}{self.at('seed')}; it must be a whole number from 0 to 2**63 - 1."
            )
            return 0
        return value

    def text(self, key: str, value: Any) -> str | None:
        if isinstance(value, Mapping | list) or value == "None":
            hint = _none_hint(key) if value == "None" else ""
            self.add(f"{key} is {shown(value)}{self.at(key)}; it must be text or null.{hint}")
            return None
        return None if value is None else str(value)

    def group(self, group: str, node: Any) -> dict[str, Any]:
        if not isinstance(node, dict) or all(node.get(key) is None for key in COMPONENT_KEYS):
            self.no_component(group, node)
            return {}
        node = self.of_one_component(group, node)
        self.check_choice_holds(group)
        return self.component(group, group, self.settled(group, node))

    def check_choice_holds(self, group: str) -> None:
        """A file that names a component in its body would overrule an option that was chosen after it."""
        named = [(key, s) for key in COMPONENT_KEYS for s in self.origins.chain(f"{group}.{key}")]
        late = [(key, setting) for key, setting in named if setting.rank > OPTION_RANK]
        choice = self.origins.choice(group) if late else None
        if choice is not None and late[-1][1].rank < choice.rank:
            key, setting = late[-1]
            self.add(
                f"{group}={choice.value} ({choice.place}) has no effect: {group}.{key} is {setting.value!r} "
                f"({setting.place}). Choose it there by `defaults: - override /{group}: ...`."
            )

    def no_component(self, group: str, node: Any) -> None:
        if isinstance(node, str | int | float):
            told = f"{group} is {shown(node)}{self.at(group)}; a file chooses an option by its `defaults`: "
            self.add(f"{told}`- override /{group}: {node}`.")
            return
        emptied = [key for key in COMPONENT_KEYS if isinstance(node, dict) and key in node]
        if emptied:
            key = f"{group}.{emptied[0]}"
            self.add(f"{key} is null{self.at(key)}; it must name a component (`rootflow list {group}`).")
            return
        files = [text.path for text in self.origins.texts if text.package == group and text.path]
        if files:
            place = f"{display_path(files[-1])}:1"
            if isinstance(node, list):
                self.add(f"{group} ({place}) is a list; it must be `key: value` lines.")
                return
            told = f"add `name: ...` (`rootflow list {group}`) or `_target_: ...`."
            self.add(f"{group} ({place}) names no component: {told}")
            return
        place = self.at(group) or f" ({COMMAND_LINE})"
        told = f"is {node!r}" if node is not None else "is not chosen"
        self.add(f"{group} {told}{place}; choose an option: {group}=... (`rootflow list {group}`).")

    def of_one_component(self, group: str, node: dict[str, Any]) -> dict[str, Any]:
        """Return the node without the earlier of `name` and `_target_`, where both are there."""
        given = [key for key in COMPONENT_KEYS if node.get(key) is not None]
        if len(given) == 2:
            ranks = [self.origins.rank(f"{group}.{key}") for key in given]
            if ranks[0] == ranks[1]:
                named = " and ".join(f"{key}: {node[key]}{self.at(f'{group}.{key}')}" for key in given)
                self.add(f"{group} names two components: {named}. Keep one.")
            given = [given[ranks.index(max(ranks))]]
        return {key: value for key, value in node.items() if key not in COMPONENT_KEYS or key in given}

    def settled(self, group: str, node: dict[str, Any]) -> dict[str, Any]:
        """Return the node with the defaults of its own component, not of one that it replaced."""
        key = next(k for k in COMPONENT_KEYS if k in node)
        others = [s for k in COMPONENT_KEYS for s in self.origins.chain(f"{group}.{k}")]
        is_replaced = len({str(s.value) for s in others}) > 1 or any(
            s.rank >= EXPERIMENT_RANK for s in others
        )
        schema = schema_of(group, node) if is_replaced else None
        if schema is None:
            return node
        was_set = {k: v for k, v in node.items() if self.origins.rank(f"{group}.{k}") > 0}
        return {key: node[key]} | defaults_of(schema) | was_set

    def component(self, key: str, group: str, node: dict[str, Any]) -> dict[str, Any]:
        """Check a component and its keys; `key` is where it stands, `group` where its name is looked up."""
        schema = schema_of(group, node)
        if schema is None:
            self.unknown_component(key, group, node)
            return node
        identity = {k: node[k] for k in COMPONENT_KEYS if k in node}
        rest = {k: value for k, value in node.items() if k not in identity}
        return identity | self.parameters(key, group, schema, rest)

    def unknown_component(self, key: str, group: str, node: dict[str, Any]) -> None:
        """A `_target_` whose source can't be read is left to Python; a name must be registered."""
        if "_target_" in node:
            if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", str(node["_target_"])):
                self.add(
                    f"{key}._target_ is {shown(node['_target_'])}{self.at(f'{key}._target_')}; it must be "
                    "the dotted path of a class or function, e.g. torch.nn.Linear."
                )
            elif absent := absent_hint(str(node["_target_"])):
                told = (
                    f"{key}._target_ is {str(node['_target_'])!r}{self.at(f'{key}._target_')}, but {absent}"
                )
                self.add(f"{told.rstrip('.?')}{'?' if told.endswith('?') else '.'}")
            return
        try:
            find_component(group, str(node["name"]))
        except ConfigError as error:
            given = f"{group}.name is {str(node['name'])!r}"
            told = f"{key}.name is {str(node['name'])!r}{self.at(f'{key}.name')}"
            self.add(str(error).replace(given, told, 1))

    def parameters(self, key: str, group: str, schema: Schema, given: dict[str, Any]) -> dict[str, Any]:
        fitted: dict[str, Any] = {}
        for name, value in given.items():
            if not isinstance(name, str):
                self.add(f"{key} has the key {name!r}{self.at(key)}; keys must be text.")
                continue
            parameter = schema.find(name)
            if parameter is not None:
                fitted |= self.one(f"{key}.{name}", group, parameter, value, owner=schema)
            elif schema.accepts_more or name.startswith("_"):
                fitted[name] = value
            else:
                self.unknown_key(f"{key}.{name}", group, schema)
        return fitted

    def unknown_key(self, key: str, group: str, schema: Schema) -> None:
        known = [p.name for p in schema.parameters]
        name = key.rpartition(".")[2]
        hint = did_you_mean(name, [*known, *(p.name for p in schema.about)])
        elsewhere = [] if hint or key.count(".") > 1 else _options_with(group, name, self.origins.extra)
        if elsewhere:
            *most, last = elsewhere
            hint = f" It is a key of {', '.join(most)}{' and ' if most else ''}{last}."
        hint = hint or _in_other_groups(name, {g: n for g, n in self.given.items() if g != group})
        owner = f"{schema.title} ({display_path(schema.path)}:{schema.line})"
        self.add(f"{key} does not exist{self.at(key)}.{hint} {owner} takes {', '.join(known) or 'nothing'}.")

    def one(
        self, key: str, group: str, parameter: Parameter, value: Any, *, owner: Schema | None = None
    ) -> dict[str, Any]:
        """Check one value; return `{name: fitted value}`, or nothing where a default applies."""
        if value == MISSING:
            if parameter.default is not COMPUTED:
                self.missing(key, parameter, owner)
            return {}
        if isinstance(value, str) and REDACTED in value:
            self.add(f"{key} was left out of the record, as a secret{self.at(key)}; give it again: {key}=...")
            return {}
        is_auto = is_auto_key(*key.split(".", 1))
        if value == "auto" and is_auto:
            return {parameter.name: value}
        if parameter.fields is not None and isinstance(value, dict):
            return {parameter.name: self.nested(key, group, parameter.fields, value)}
        if parameter.fields is not None and value is not None:
            self.wrong(key, value, f"a mapping of {', '.join(p.name for p in parameter.fields)}")
            return {}
        try:
            fitted = fit(value, parameter.annotation)
        except DoesNotFitError as error:
            allowed = f"{error}{' or ' + repr('auto') if is_auto else ''}"
            if parameter.item_fields is not None and isinstance(value, dict):
                allowed = f"a mapping of mappings with {', '.join(p.name for p in parameter.item_fields)}"
            self.wrong(key, value, allowed)
            return {}
        if fitted == "None" and parameter.annotation is not None and takes_null(parameter.annotation):
            self.wrong(key, value, describe(parameter.annotation))
        if parameter.item_fields is not None and isinstance(fitted, list | dict):
            return {parameter.name: self.items(key, group, parameter, fitted)}
        return {parameter.name: self.inner_components(key, group, parameter, fitted)}

    def items(self, key: str, group: str, parameter: Parameter, given: Any) -> Any:
        """Check a list or a mapping of dataclasses."""
        pairs = enumerate(given) if isinstance(given, list) else given.items()
        fields = parameter.item_fields or ()
        defaults = {field.name: default_of(field) for field in fields}
        checked = {
            name: self.nested(f"{key}.{name}", group, fields, defaults | item)
            if isinstance(item, dict) and not (set(COMPONENT_KEYS) & item.keys())
            else item
            for name, item in pairs
        }
        return list(checked.values()) if isinstance(given, list) else checked

    def missing(self, key: str, parameter: Parameter, owner: Schema | None) -> None:
        allowed = f"; it must be {describe(parameter.annotation)}" if parameter.annotation else ""
        asked = f", which {owner.title} ({display_path(owner.path)}:{owner.line}) needs" if owner else ""
        self.add(f"{key} has no value{asked}{allowed}. Set it: {key}=...")

    def wrong(self, key: str, value: Any, allowed: str) -> None:
        hint = ""
        if value == "None" and "null" in allowed:
            hint = _none_hint(key)
        elif isinstance(value, str):
            hint = did_you_mean(value, re.findall(r"'(\w+)'", allowed))
        self.add(f"{key} is {shown(value)}{self.at(key)}; it must be {allowed}.{hint}")

    def inner_components(self, key: str, group: str, parameter: Parameter, value: Any) -> Any:
        """Check components given as a value, e.g. the members of `scheduler.schedulers`."""
        if isinstance(value, list):
            return [self.inner_components(f"{key}.{i}", group, parameter, v) for i, v in enumerate(value)]
        if not isinstance(value, dict) or not (set(COMPONENT_KEYS) & value.keys()) or _is_mapping(parameter):
            return value
        schema = schema_of(group, value)
        if schema is None:
            self.unknown_component(key, group, value)
            return value
        partial = {k: v for k, v in value.items() if k.startswith("_") or k == "name"}
        defaults = {} if value.get("_partial_") else defaults_of(schema)
        given = {k: v for k, v in (defaults | value).items() if k not in partial}
        return partial | self.parameters(key, group, dataclasses.replace(schema, about=()), given)

    def nested(
        self, key: str, group: str, fields: tuple[Parameter, ...], given: dict[str, Any]
    ) -> dict[str, Any]:
        fitted: dict[str, Any] = {}
        known = {p.name: p for p in fields}
        for name, value in given.items():
            if name in known:
                fitted |= self.one(f"{key}.{name}", group, known[name], value)
            else:
                self.add(
                    f"{key}.{name} does not exist{self.at(f'{key}.{name}')}.{did_you_mean(str(name), known)} "
                    f"{key} takes {', '.join(known)}."
                )
        return fitted

    def at(self, key: str) -> str:
        place = self.origins.place(key)
        return f" ({place})" if place else ""

    def add(self, mistake: str) -> None:
        self.mistakes.append(mistake)


def _in_other_groups(key: str, given: Mapping[str, Any]) -> str:
    nodes = {group: given[group] for group in GROUPS if isinstance(given.get(group), dict)}
    schemas = {group: schema_of(group, node) for group, node in nodes.items()}
    found = [
        f"'{group}.{key}'"
        for group, schema in schemas.items()
        if schema and schema.find(key) and not isinstance(nodes[group].get(key), dict)
    ]
    return f" Did you mean {' or '.join(found)}?" if found else ""


def _options_with(group: str, key: str, extra: Path | None) -> list[str]:
    """Return options of a group that have a key: one of them may be what was meant."""
    found = []
    for option in option_files(group, extra):
        schema = find_option_schema(group, option, extra)
        if schema is not None and schema.find(key):
            found.append(option)
    return found[:3]


def _is_mapping(parameter: Parameter) -> bool:
    return parameter.annotation is not None and "mapping" in describe(parameter.annotation)


def _none_hint(key: str) -> str:
    return f" For no value write {key}=null."
