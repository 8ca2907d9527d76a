"""The dataclass whose fields are a component's keys, and the component that such a dataclass stands for."""

from __future__ import annotations

import copy
import copyreg
import dataclasses
import functools
import sys
from collections.abc import Callable
from inspect import Parameter as Argument
from typing import Any, Literal, overload

from rootflow.build import OWN_KEYS, taken_dataclass
from rootflow.config.schema import Schema, is_one_dataclass, schema_of
from rootflow.errors import ConfigError
from rootflow.hints import hints_of, parameters_of
from rootflow.registry import GROUPS, NUM_GIVEN, Component, components, find_component
from rootflow.signatures import COMPUTED, REQUIRED, Parameter, read_signature
from rootflow.sources import definition_path

_MADE_FOR = "_rootflow_made_for"
"""Where a class made here keeps the component that it is for, and the group whose rules apply."""

_BUILT = ("model", "optimizer", "scheduler")
"""Groups whose components are more than their settings: no dataclass is one of them by itself."""

declared_types: Callable[[Any], dict[str, Any]] = functools.cache(hints_of)
"""Returns the types that a component or a dataclass declares, by name, as far as they can be evaluated."""

_taken_dataclass: Callable[[Any, int], type[Any] | None] = functools.cache(taken_dataclass)


@overload
def config_class(component: Callable[..., Any], /) -> type[Any]: ...
@overload
def config_class(group: str, component: str | Callable[..., Any], /) -> type[Any]: ...
def config_class(group: Any, component: Any = None, /) -> type[Any]:
    """Return the dataclass whose fields are the keys that a component takes from a config.

        config_class(ResNet)(depth=34)
        config_class("scheduler", "StepLR")(step_size=10)

    A component that is a dataclass, such as `Trainer`, is its own; one that takes a single dataclass has
    that one, or a subclass if several components take the same or it isn't registered. Any other gets one
    made from its signature, with its types and defaults but for three things: what rootflow passes when it
    builds (the `params` of an optimizer) is left out, what it can fill itself (`num_classes`) defaults to
    `auto`, and where a default is code the field is `COMPUTED`, which no config says.

    Args:
        group: may be left out for a registered component.
        component: the class or function, or its registered name.

    Raises:
        ConfigError: no such component is registered, or its source can't be read.
    """
    if component is None:
        component, group = group, next((g for g in GROUPS if registered_name(group, g)), "")
    if isinstance(component, str):
        component = find_component(group, component).load()
    found = find_config_class(component, group)
    if found is None:
        raise ConfigError(
            f"{_title(component)} has no config class: what it takes can't be read from its source. "
            "Give functools.partial(...) of it, or a mapping."
        )
    return found


def find_config_class(component: Any, group: str) -> type[Any] | None:
    """Return a component's config class, or None where its source can't be read.

    Args:
        component: a class or function.
        group: whose rules apply; empty for a component that is built without anything from rootflow.
    """
    if dataclasses.is_dataclass(component):
        return component if isinstance(component, type) else None
    taken: Any = taken_whole(component, group)
    if taken is None:
        return _made_class(component, group)
    takers = {found.definition for found in _takers(taken, group)}
    return taken if takers == {_definition(component)} else _bound_class(taken, component, group)


def taken_whole(component: Callable[..., Any], group: str) -> type[Any] | None:
    """Return the dataclass that is all that a component takes from a config, if it is so."""
    return _taken_dataclass(component, NUM_GIVEN.get(group, 0))


def accepts_more(component: Callable[..., Any], group: str) -> bool:
    """Whether it takes arguments that its source doesn't name."""
    schema = _schema(component, group)
    return schema is None or schema.accepts_more


def component_of(cls: type[Any], group: str, key: str) -> Callable[..., Any]:
    """Return the component that a dataclass stands for in a group.

    Args:
        cls: a config class, or a component that is a dataclass.
        group: where the component would be registered.
        key: where it was given; deeper inside than the group, a dataclass that none takes is meant itself.

    Raises:
        ConfigError: none or more than one of the group's components take it.
    """
    own: Callable[..., Any] | None = getattr(cls, _MADE_FOR, (None, group))[0]
    if own is not None or registered_name(cls, group):
        return own or cls
    takers = {found.definition: found for found in _takers(cls, group)}
    if len(takers) == 1:
        return next(iter(takers.values())).load()
    if not takers and (group not in _BUILT or key != group):
        return cls
    listed = " and ".join(takers) if takers else f"no registered {group}"
    raise ConfigError(
        f"{key} is a {cls.__name__}, which {listed} {'take' if takers else 'takes'}. "
        f"Say which is meant: functools.partial(TheClass, {cls.__name__}(...))."
    )


def identity_of(cls: type[Any], group: str, key: str) -> dict[str, str]:
    """Return `name` or `_target_` of the component that a dataclass stands for in a group.

    Raises:
        ConfigError: as `component_of` and `identity`.
    """
    component, made_for = component_of(cls, group, key), getattr(cls, _MADE_FOR, (None, group))[1]
    # a component that gets nothing from rootflow can't go by a name, which would give it the group's rules
    return identity(component, group if made_for else "", key)


def identity(component: Callable[..., Any], group: str, key: str) -> dict[str, str]:
    """Return `name` or `_target_` of a component, as a config says it.

    Raises:
        ConfigError: neither: it isn't at the top of a module, so that no import path leads to it.
    """
    name = registered_name(component, group)
    if name is not None:
        return {"name": name}
    module = sys.modules.get(getattr(component, "__module__", None) or "")
    if getattr(module, getattr(component, "__qualname__", ""), None) is not component:
        raise ConfigError(
            f"{key} is {_title(component)}, which no import path leads to; "
            "define it at the top of a module, with def or class."
        )
    return {"_target_": _definition(component)}


def computed_fields(cls: type[Any]) -> set[str]:
    """Return the fields of a dataclass whose defaults are code, which no config says."""
    signature = read_signature(cls.__module__, cls.__qualname__)
    parameters = signature.parameters if signature is not None else ()
    return {p.name for p in parameters if p.default is COMPUTED and p.fields is None}


def registered_name(component: Any, group: str) -> str | None:
    """Return the name that a component is registered by in a group, by whichever path it was reached."""
    if not hasattr(component, "__qualname__"):
        return None
    definition = _definition(component)
    named = [c for c in components(group).values() if c.definition == definition] if group else []
    return min(named, key=lambda c: c.is_spelling).name if named else None


def _definition(component: Any) -> str:
    return definition_path(component.__module__ or "", component.__qualname__)


def _title(component: Any) -> str:
    return f"{getattr(component, '__module__', '')}.{getattr(component, '__qualname__', component)}"


def _takers(cls: type[Any], group: str) -> list[Component]:
    """Return the components of a group that take a dataclass whole; only likely ones are imported."""
    num_given = NUM_GIVEN.get(group, 0)
    keys = [field.name for field in dataclasses.fields(cls)]
    return [
        found
        for found in (components(group).values() if group else ())
        if _keys_taken_whole(found, num_given) == keys and taken_whole(found.load(), group) is cls
    ]


def _keys_taken_whole(component: Component, num_given: int) -> list[str] | None:
    signature = component.signature()
    own = signature.parameters[num_given:] if signature is not None else ()
    return [p.name for p in own[0].fields or ()] if len(own) == 1 and is_one_dataclass(own[0]) else None


def _schema(component: Callable[..., Any], group: str) -> Schema | None:
    module, name = getattr(component, "__module__", None), getattr(component, "__qualname__", None)
    if not module or not name:
        return None
    if group in GROUPS:
        return schema_of(group, {"_target_": f"{module}.{name}"})
    found = read_signature(module, name)
    if found is None:
        return None
    return Schema(_title(component), found.path, found.line, found.doc, found.parameters, found.accepts_more)


@functools.cache
def _made_class(component: Callable[..., Any], group: str) -> type[Any] | None:
    schema = _schema(component, group)
    if schema is None:
        return None
    hints, arguments = declared_types(component), {a.name: a for a in parameters_of(component)}
    words = [word[:1].upper() + word[1:] for word in component.__name__.split("_")]
    made = dataclasses.make_dataclass(
        f"{''.join(words)}Config",
        [
            _field(p, hints.get(p.name, Any), arguments.get(p.name))
            for p in schema.parameters
            if p.name not in OWN_KEYS
        ],
        frozen=True,
        kw_only=True,
        namespace={
            _MADE_FOR: (component, group),
            "__module__": component.__module__,
            "__doc__": "\n".join([schema.doc, "", *(f"    {p.name}: {p.doc}" for p in schema.parameters)]),
        },
    )
    copyreg.pickle(made, _reduced)
    return made


def _field(parameter: Parameter, hint: Any, argument: Argument | None) -> tuple[str, Any, Any]:
    default = parameter.default if argument is None else argument.default
    if parameter.default is COMPUTED and parameter.fields is None:
        default = COMPUTED
    elif default is Argument.empty and parameter.default == "auto":
        default, hint = "auto", hint | Literal["auto"]
    if default is Argument.empty or default is REQUIRED:
        return parameter.name, hint, dataclasses.field()
    if type(default).__hash__ is None:
        return parameter.name, hint, dataclasses.field(default_factory=lambda: copy.deepcopy(default))
    return parameter.name, hint, dataclasses.field(default=default)


@functools.cache
def _bound_class(taken: Any, component: Callable[..., Any], group: str) -> type[Any]:
    """Return a subclass of a dataclass that says which component it is for, otherwise the same."""
    options = taken.__dataclass_params__
    made = dataclasses.make_dataclass(
        taken.__name__,
        [],
        bases=(taken,),
        frozen=options.frozen,
        eq=options.eq,
        namespace={_MADE_FOR: (component, group), "__module__": taken.__module__},
    )
    copyreg.pickle(made, _reduced)
    return made


def _reduced(config: Any) -> tuple[Any, ...]:
    """Return what pickle keeps of an instance, to whose class no import path leads: the component."""
    return _blank, getattr(config, _MADE_FOR), config.__getstate__()


def _blank(component: Callable[..., Any], group: str) -> Any:
    cls: Any = find_config_class(component, group)
    return object.__new__(cls)
