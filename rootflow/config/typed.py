"""The typed form of a config, the nested one, and what turns one into the other without loss.

    experiment = Experiment(model=config_class(ResNet)(depth=34), trainer=Trainer(max_epochs=3))
    to_dict(experiment)  # {"model": {"name": "resnet", "depth": 34, "width": None, ...}, "trainer": {...}}

Guaranteed: `from_dict(to_dict(experiment)) == experiment` where dataclass instances say what is in it.
Shorthands (a class, a `partial`) come back as the instance that they stand for, and where no type is declared
values come back as a YAML has them, a tuple as a list.

A complete config, as the check returns it, is the same again by `to_dict(from_dict(nested))`, but for how a
component is named (a registered one by its `name`, any other by the path of its definition) and for what
says nothing: a null `name` or `init_from` of the run, a value that is a default written as code. Where a
config says less, also in a dataclass in a list, the defaults are filled in.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import functools
import inspect
import numbers
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeAlias

from rootflow.build import COMPONENT_KEYS, OWN_KEYS, load
from rootflow.config.classes import (
    accepts_more,
    component_of,
    computed_fields,
    config_class,
    declared_types,
    find_config_class,
    identity,
    identity_of,
    registered_name,
    taken_whole,
)
from rootflow.config.schema import CHOSEN_BY_DATA, about_keys
from rootflow.errors import ConfigError, did_you_mean
from rootflow.hints import hints_of_items, members_of
from rootflow.registry import GROUPS
from rootflow.signatures import COMPUTED

__all__ = ["Choice", "Experiment", "config_class", "from_dict", "to_dict"]

Choice: TypeAlias = Any
"""What a group may be: the name of an option in conf/ ("resnet"); a dataclass instance (`Trainer(...)`, or
one of a `config_class`); a component's class or function, for its defaults, or `functools.partial` of it; a
mapping with `name` or `_target_`; or a mapping with only some keys, laid over the default option."""

_PLAIN = (bool, int, float, str, type(None))
_MAPPINGS = (dict, collections.abc.Mapping)

_arguments: Callable[[Any], Mapping[str, inspect.Parameter]] = functools.cache(
    lambda cls: inspect.signature(cls).parameters
)
"""Returns what a dataclass is called with."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment, as far as it is said; what is None is as in conf/."""

    model: Choice = None
    dataset: Choice = None
    task: Choice = None
    optimizer: Choice = None
    scheduler: Choice = None
    trainer: Choice = None
    loader: Choice = None
    discover: Choice = None
    tracking: Choice = None
    seed: int | None = None
    """Seeds the weights, the order of the samples and their augmentation."""
    name: str | None = None
    """A name for the run; None makes one from the model and the data set."""
    init_from: str | Path | None = None
    """A run, its folder or a .safetensors file to take the first weights from; None starts anew."""


def to_dict(experiment: Experiment | Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested plain form: dicts, lists, numbers, text and None.

    A component is its registered `name`, else `_target_`, its import path, with all fields of a dataclass
    that stands for it, or the arguments of a `partial`. Only a default that is code isn't said: the component
    fills it.

    Args:
        experiment: of a mapping all keys are kept, whether or not there are such settings.

    Raises:
        ConfigError: a value is nothing that a YAML can hold; names the key.
    """
    said = experiment
    if isinstance(said, Experiment):
        said = {key: value for key, value in vars(said).items() if value is not None}
    return {
        key: _plain_group(value, _Place(key, key)) if key in GROUPS else _plain(value, None, _Place("", key))
        for key, value in said.items()
    }


def from_dict(nested: Mapping[str, Any]) -> Experiment:
    """Return the typed form: components as instances of their `config_class`, values in the declared types.

    A mapping stays one where no dataclass holds all of it: keys for the default option, arguments that a
    component takes by `**kwargs`, keys about a component, a component whose source can't be read, or one that
    needs what is `auto`.

    Raises:
        ConfigError: a component can't be found or imported, refuses a value, or doesn't take a key.
    """
    _check_keys(nested, [*Experiment.__dataclass_fields__], "")
    return Experiment(
        **{
            key: _typed_component(value, _Place(key, key), key)
            if key in GROUPS and isinstance(value, Mapping)
            else value
            for key, value in nested.items()
        }
    )


@dataclass(frozen=True)
class _Place:
    """Where a value stands."""

    group: str
    """The group in which a `name` is looked up there."""
    key: str
    """The dotted key."""

    def inner(self, key: Any) -> _Place:
        return _Place(self.group, f"{self.key}.{key}")


def _said(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a dataclass that its nested form is to say."""
    computed = computed_fields(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        is_computed = value is COMPUTED or (field.name in computed and _is_same(value, _default(field)))
        if field.init and not field.name.startswith("_") and not is_computed:
            yield field.name, value


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is dataclasses.MISSING:
        return field.default
    return field.default_factory()


def _is_same(value: Any, default: Any) -> bool:
    is_equal = type(value) is type(default) and value == default
    return value is default or is_equal is True  # arrays compare to arrays


def _plain_group(value: Any, place: _Place) -> Any:
    if isinstance(value, Mapping):
        # it declares no types: a dataclass in it is taken for the declared one
        return {key: _plain(item, type(item), place.inner(key)) for key, item in value.items()}
    if _is_instance(value):
        return _plain_component(value, place)
    plain = _plain(value, None, place)
    if not isinstance(plain, str | dict | None):
        raise ConfigError(
            f"{place.key} is {plain!r}; it must be the name of an option, a dataclass, a component's class "
            "or functools.partial of it, or a mapping."
        )
    return plain


def _plain(value: Any, hint: Any, place: _Place) -> Any:
    """Return what a YAML can hold of a value; `hint` is the type that is declared there."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, str | PurePath):
        return str(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, float) or (isinstance(value, numbers.Real) and float(value) == value):
        return float(value)
    if isinstance(value, Mapping):
        return _plain_mapping(value, _hint_of_items(hint), place)
    if isinstance(value, list | tuple):
        hints = _hints_of_list(hint, len(value))
        return [_plain(item, hints[i], place.inner(i)) for i, item in enumerate(value)]
    if _is_instance(value):
        return _plain_instance(value, hint, place)
    if isinstance(value, functools.partial) or inspect.isclass(value) or inspect.isroutine(value):
        return _plain_callable(value, place)
    raise ConfigError(
        f"{place.key} is a {type(value).__module__}.{type(value).__qualname__} object, which no YAML holds. "
        "Models and other objects are built by rootflow; give the class and its arguments: "
        "functools.partial(TheClass, ...). Of an array give the list of its numbers."
    )


def _plain_mapping(value: Mapping[Any, Any], hint: Any, place: _Place) -> dict[Any, Any]:
    plain = {}
    for key, item in value.items():
        name = _plain(key, None, place)
        if type(name) not in _PLAIN:
            raise ConfigError(f"{place.key} has the key {key!r}; it must be text, a number or None.")
        plain[name] = _plain(item, hint, place.inner(key))
    return plain


def _plain_instance(value: Any, hint: Any, place: _Place) -> dict[str, Any]:
    declared = next(filter(dataclasses.is_dataclass, members_of(hint)), None)
    return _plain_fields(value, place) if type(value) is declared else _plain_component(value, place)


def _plain_component(value: Any, place: _Place) -> dict[str, Any]:
    return {**_said_as(type(value), place), **_plain_fields(value, place)}


def _said_as(cls: Any, place: _Place) -> dict[str, str]:
    """Return `name` or `_target_` of what a dataclass stands for as a component."""
    said_as = identity_of(cls, place.group, place.key)
    if not cls.__dataclass_fields__.keys().isdisjoint(OWN_KEYS):
        raise ConfigError(
            f"{place.key} is a {cls.__name__} with a field `name`, which a config can't say: there "
            "it is the component's. Call the field otherwise."
        )
    return said_as


def _plain_fields(value: Any, place: _Place) -> dict[str, Any]:
    hints = declared_types(type(value))
    return {name: _plain(item, hints.get(name), place.inner(name)) for name, item in _said(value)}


def _plain_callable(value: Any, place: _Place) -> dict[str, Any]:
    """Return a component's node; deeper inside, what isn't registered is a callable that is handed on."""
    given = value if isinstance(value, functools.partial) else functools.partial(value)
    component, group = given.func, place.group
    if inspect.isclass(component) and dataclasses.is_dataclass(component):
        component = component_of(component, group, place.key)
    plain: dict[str, Any] = dict(identity(component, group, place.key))
    if place.key != group and registered_name(component, group) is None:
        plain["_partial_"] = True
    taken = taken_whole(component, group)
    values = [*given.args, *given.keywords.values()]
    if taken is not None and len(values) == 1 and isinstance(values[0], taken):
        return plain | _plain_fields(values[0], place)
    if given.args:
        raise ConfigError(f"{place.key} is {value!r}; give the arguments by name.")
    hints = declared_types(component)
    return plain | {k: _plain(v, hints.get(k), place.inner(k)) for k, v in given.keywords.items()}


def _typed_component(node: Mapping[str, Any], place: _Place, group: str) -> Any:
    """Return the config of a component; `group` is empty for one that gets nothing from rootflow."""
    is_chosen_later = group in CHOSEN_BY_DATA and node.get("name") == "auto"
    if ("name" in node) == ("_target_" in node) or is_chosen_later:
        return dict(node)
    try:
        component = load(place.group, node)
    except ConfigError as error:
        raise ConfigError(str(error).replace(place.group, place.key, 1)) from error
    cls = find_config_class(component, group)
    given = {key: value for key, value in node.items() if key not in COMPONENT_KEYS}
    if cls is None or not _stands_for(cls, component, _Place(group, place.key)):
        return dict(node)
    more = given.keys() - _arguments(cls).keys()
    if more and ("_partial_" in given or accepts_more(component, group) or _is_about(more, place)):
        return dict(node)
    typed = _typed_instance(cls, given, place)
    return dict(node) if typed is None else typed


def _is_about(keys: collections.abc.Set[str], place: _Place) -> bool:
    """Whether keys are about the component of a group's node, which no dataclass holds."""
    return place.key == place.group and keys <= {p.name for p in about_keys(place.group)}


def _stands_for(cls: Any, component: Any, place: _Place) -> bool:
    """Whether `to_dict` will say a class as that component."""
    try:
        return _said_as(cls, place) == identity(component, place.group, place.key)
    except ConfigError:
        return False


def _typed_instance(cls: Any, given: Mapping[str, Any], place: _Place, start: Any = None) -> Any:
    """Return a dataclass of some fields, on top of ``start`` if that is one; None if it can't hold them."""
    arguments, fields, hints = _arguments(cls), cls.__dataclass_fields__, declared_types(cls)
    _check_keys(given, [name for name in arguments if not name.startswith("_")], f"{place.key}.")
    values = {
        key: _typed(value, hints.get(key), place.inner(key), _default(fields[key]))
        for key, value in given.items()
    }
    is_start = type(start) is cls
    for name, argument in arguments.items():
        if argument.default is argument.empty and name not in given and not is_start:
            raise ConfigError(f"{place.key}.{name} has no value, which {cls.__name__} needs.")
    try:
        made = dataclasses.replace(start, **values) if is_start else cls(**values)
    except (TypeError, ValueError) as error:
        if "auto" in given.values():
            return None
        raise ConfigError(f"{place.key}: {cls.__name__} refuses this: {error}.") from error
    return made if _holds(made, values) else None


def _holds(config: Any, values: Mapping[str, Any]) -> bool:
    """Whether its fields are as given; an InitVar isn't kept, and a `__post_init__` may change what was."""
    names = [field.name for field in dataclasses.fields(config)]
    return all(key in names and _is_same(getattr(config, key), value) for key, value in values.items())


def _typed(value: Any, hint: Any, place: _Place, start: Any = None) -> Any:
    """Return a plain value in the declared type, as `build` makes it, but components as their configs."""
    members = members_of(hint)
    if isinstance(value, Mapping):
        return _typed_mapping(value, hint, place, start)
    if isinstance(value, list | tuple):
        is_tuple = any((typing.get_origin(member) or member) is tuple for member in members)
        hints = _hints_of_list(hint, len(value))
        items = (_typed(item, hints[i], place.inner(i)) for i, item in enumerate(value))
        return tuple(items) if is_tuple else list(items)
    if isinstance(value, str) and str not in members:
        return _typed_text(value, members)
    return value


def _typed_mapping(value: Mapping[Any, Any], hint: Any, place: _Place, start: Any) -> Any:
    members = members_of(hint)
    if any((typing.get_origin(member) or member) in _MAPPINGS for member in members):
        inner = _hint_of_items(hint)
        return {key: _typed(item, inner, place.inner(key)) for key, item in value.items()}
    if "_target_" in value:
        return _typed_component(value, place, "")
    declared: Any = next(filter(dataclasses.is_dataclass, members), None)
    if declared is not None and ("name" not in value or "name" in declared.__dataclass_fields__):
        typed = _typed_instance(declared, value, place, start)
        return dict(value) if typed is None else typed
    return _typed_component(value, place, place.group)


def _typed_text(value: str, members: tuple[Any, ...]) -> Any:
    for member in members:
        if member is Path and str(Path(value)) == value:  # ./data stays text: a Path would say data
            return Path(value)
        if isinstance(member, enum.EnumMeta) and value in member.__members__:
            return member[value]
    return value


def _hints_of_list(hint: Any, num_items: int) -> list[Any]:
    members = (m for m in members_of(hint) if typing.get_origin(m) not in (None, *_MAPPINGS))
    hints = (hints_of_items(member, num_items) for member in members)
    return next((found for found in hints if found is not None), [None] * num_items)


def _hint_of_items(hint: Any) -> Any:
    """Return the type of the values of a mapping."""
    arguments = (typing.get_args(m) for m in members_of(hint) if typing.get_origin(m) in _MAPPINGS)
    return next((args[1] for args in arguments if len(args) == 2), None)


def _is_instance(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _check_keys(given: Mapping[str, Any], known: list[str], prefix: str) -> None:
    for key in given:
        if key not in known:
            raise ConfigError(
                f"{prefix}{key} does not exist.{did_you_mean(str(key), known)} There are {', '.join(known)}."
            )
