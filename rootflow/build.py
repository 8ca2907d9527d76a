"""Config to objects: the one place where a name or a `_target_` becomes a call.

`build` calls the component of a node with the node's keys as keyword arguments, in the types that its
signature declares: lists become tuples, mappings dataclasses, texts paths and members of an Enum. A
nested mapping that has `name` or `_target_` is built first. A component that takes one dataclass and
nothing else gets it made from the node's keys. Nothing of the config is changed.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import enum
import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootflow.errors import ConfigError, RootflowError
from rootflow.hints import hints_of, hints_of_items, members_of, parameters_of
from rootflow.registry import NUM_GIVEN, find_component, import_object, place_of

COMPONENT_KEYS = ("name", "_target_")
"""Keys of a node that say which component it is, one of them."""

OWN_KEYS = (*COMPONENT_KEYS, "_partial_")
"""Keys of a node that are about the component, not for it."""

ABOUT = {
    "optimizer": "rootflow.optim.about.AboutOptimizer",
    "scheduler": "rootflow.optim.about.AboutScheduler",
}
"""Dataclasses whose fields are further keys of that kind, which any component of a group may have."""

CONFIG_PARAMETERS = ("config", "cfg", "settings", "options", "hparams", "params", "args")
"""Names of a parameter whose dataclass is all that a component takes, also when it has a default."""

_SEQUENCES = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable)


def load(group: str, node: Mapping[str, Any]) -> Callable[..., Any]:
    """Import and return the class or function that a node names.

    Raises:
        ConfigError: it isn't registered, or can't be imported.
    """
    if "_target_" in node:
        return import_object(str(node["_target_"]), f"{group}._target_")
    return find_component(group, str(node["name"])).load()


def arguments(group: str, node: Mapping[str, Any], *positional: Any) -> dict[str, Any]:
    """Return the keyword arguments that a node gives its component, in the types it declares.

    Args:
        group: the registry's group, for nested names.
        node: the config of the component.
        positional: what a nested component of the same group is called with first.

    Raises:
        ConfigError: a dataclass or a nested component refuses what it is given; says which and why.
    """
    return _arguments(group, node, positional, NUM_GIVEN.get(group, 0))


def build(group: str, node: Mapping[str, Any], *positional: Any) -> Any:
    """Build the object that a node describes.

    Args:
        group: e.g. `model`.
        node: `name` or `_target_`, and arguments.
        positional: what the run passes first, e.g. the optimizer to a scheduler.

    Raises:
        ConfigError: the component refuses the arguments; says which component and why.
    """
    component = load(group, node)
    keywords = arguments(group, node, *positional)
    if node.get("_partial_"):
        return functools.partial(component, **keywords)
    with _refusals(group, component):
        return component(*positional, **keywords)


def take_about(group: str, node: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the keys of a node that are about its component, see `ABOUT`, and the node without them.

    A key that the component takes itself is the component's.

    Args:
        group: one of `ABOUT`.
        node: `name` or `_target_`, and any other keys.

    Raises:
        ConfigError: a value isn't allowed; says which and why.
    """
    about: Any = import_object(ABOUT[group], group)
    own = _names_taken(load(group, node), NUM_GIVEN[group])
    given = {k: v for k, v in node.items() if k in about.__dataclass_fields__ and k not in own}
    try:
        taken = _Values(group, ()).instance(about, given, None)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{group}.{next(iter(given))}: {error}") from error
    return taken, {key: value for key, value in node.items() if key not in given}


def taken_dataclass(component: Callable[..., Any], num_given: int) -> type | None:
    """Return the dataclass that is all a component takes from the config, or None if it takes otherwise.

    It is annotated (`config: NetConfig`, or `NetConfig | None`) and either required or named as in
    `CONFIG_PARAMETERS`. One with a field `name` doesn't count: `model.name` is the component's.

    Args:
        component: a class or function.
        num_given: how many leading arguments rootflow passes itself, see `NUM_GIVEN`.
    """
    found = _one_dataclass(component, num_given)
    return found[1] if found else None


def _arguments(
    group: str, node: Mapping[str, Any], positional: tuple[Any, ...], num_given: int
) -> dict[str, Any]:
    component = load(group, node)
    values = _Values(group, positional)
    given = {key: value for key, value in node.items() if key not in OWN_KEYS}
    with _refusals(group, component):
        one = _one_dataclass(component, num_given)
        if one is not None and (one[0].name not in given or one[0].name in one[1].__dataclass_fields__):
            return {one[0].name: values.instance(one[1], given, one[0].default)}
        hints, defaults = hints_of(component), {p.name: p.default for p in parameters_of(component)}
        return {key: values.typed(item, hints.get(key), defaults.get(key)) for key, item in given.items()}


@contextlib.contextmanager
def _refusals(group: str, component: Callable[..., Any]) -> Iterator[None]:
    """Say which component it was that refused its arguments."""
    try:
        yield
    except RootflowError:
        raise
    except (TypeError, ValueError) as error:
        title = f"{getattr(component, '__module__', '')}.{getattr(component, '__qualname__', component)}"
        raise ConfigError(f"{group} can't be built: {title}: {error}{place_of(error)}") from error


@dataclass(frozen=True)
class _Values:
    """Plain values to what hints ask for, within one component."""

    group: str
    positional: tuple[Any, ...]

    def typed(self, value: Any, hint: Any, start: Any = None) -> Any:
        """Return a value in the declared type; a part of a dataclass's fields goes on top of ``start``."""
        members = members_of(hint)
        if isinstance(value, Mapping):
            return self.mapping(value, members, start)
        if isinstance(value, list | tuple):
            return self.sequence(value, members)
        return _plain(value, members)

    def mapping(self, value: Mapping[Any, Any], members: tuple[Any, ...], start: Any) -> Any:
        for member in members:
            if (typing.get_origin(member) or member) in (dict, collections.abc.Mapping):
                return self.items(value, typing.get_args(member))
        if "_target_" in value:
            return self.nested(value)
        for member in filter(_is_dataclass, members):
            if "name" not in value or "name" in member.__dataclass_fields__:
                return self.instance(member, value, start)
        return build(self.group, value, *self.positional) if "name" in value else value

    def items(self, value: Mapping[Any, Any], hints: tuple[Any, ...]) -> Mapping[Any, Any]:
        """A `name` in a mapping that was asked for as such names no component."""
        if len(hints) != 2 or hints[1] is Any:
            return value
        return {self.typed(key, hints[0]): self.typed(item, hints[1]) for key, item in value.items()}

    def nested(self, node: Mapping[str, Any]) -> Any:
        target = import_object(str(node["_target_"]), f"{self.group}._target_")
        keywords = _arguments(self.group, node, (), 0)
        return functools.partial(target, **keywords) if node.get("_partial_") else target(**keywords)

    def instance(self, cls: Any, value: Mapping[str, Any], start: Any) -> Any:
        hints = hints_of(cls)
        given = {
            key: self.typed(item, hints.get(key), _start(cls, key, start) if isinstance(item, dict) else None)
            for key, item in value.items()
        }
        return dataclasses.replace(start, **given) if type(start) is cls else cls(**given)

    def sequence(self, value: list[Any] | tuple[Any, ...], members: tuple[Any, ...]) -> Any:
        for member in members:
            origin = typing.get_origin(member) or member
            hints = hints_of_items(member, len(value)) if origin in _SEQUENCES else None
            if hints is not None:
                items = [self.typed(item, hint) for item, hint in zip(value, hints, strict=True)]
                return origin(items) if origin in (tuple, set, frozenset) else items
        return type(value)(self.typed(item, None) for item in value)


def _plain(value: Any, members: tuple[Any, ...]) -> Any:
    if type(value) in members:
        return value
    for member in members:
        if isinstance(value, str) and member is Path:
            return Path(value)
        if isinstance(value, str) and isinstance(member, enum.EnumMeta) and value in member.__members__:
            return member[value]
        if type(value) is int and member is float:
            return float(value)
    return value


def _start(cls: Any, key: str, start: Any) -> Any:
    """Return the default of a dataclass's field."""
    if type(start) is cls:
        return getattr(start, key, None)
    field = cls.__dataclass_fields__.get(key)
    is_made = field is not None and field.default_factory is not dataclasses.MISSING
    return field.default_factory() if is_made else getattr(field, "default", None)


def _one_dataclass(component: Callable[..., Any], num_given: int) -> tuple[inspect.Parameter, Any] | None:
    taken = parameters_of(component)[num_given:]
    if len(taken) != 1:
        return None
    found = next(filter(_is_dataclass, members_of(hints_of(component).get(taken[0].name))), None)
    is_all = taken[0].default is inspect.Parameter.empty or taken[0].name in CONFIG_PARAMETERS
    if found is None or not is_all or not found.__dataclass_fields__.keys().isdisjoint(OWN_KEYS):
        return None
    return taken[0], found


def _names_taken(component: Callable[..., Any], num_given: int) -> set[str]:
    one = _one_dataclass(component, num_given)
    return {*one[1].__dataclass_fields__} if one else {p.name for p in parameters_of(component)[num_given:]}


def _is_dataclass(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)
