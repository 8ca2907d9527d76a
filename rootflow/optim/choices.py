"""What stands for an optimizer or a scheduler in a call: a class, a function, a name or a config's node."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rootflow.build import COMPONENT_KEYS, OWN_KEYS, arguments, load, take_about
from rootflow.config.folders import option_files
from rootflow.config.show import read_option
from rootflow.errors import ConfigError


@dataclass(frozen=True)
class Chosen:
    """A component, and what is given for it."""

    group: str
    component: Callable[..., Any]
    settings: dict[str, Any]
    """Keyword arguments; of a node as the config has them, `auto` and all."""
    about: Any
    """The node's keys about the component, see `rootflow.build.take_about`; None where there is no node."""
    node: Mapping[str, Any] | None = None

    def keywords(self, filled: Mapping[str, Any], *positional: Any) -> dict[str, Any]:
        """Return the arguments with some more filled in; those of a node in the types that are declared.

        Raises:
            ConfigError: a nested component refuses what it is given.
        """
        if self.node is None:
            return self.settings | dict(filled)
        identity = {key: self.node[key] for key in COMPONENT_KEYS if key in self.node}
        return arguments(self.group, identity | self.settings | dict(filled), *positional)

    def called(self, first: Any, filled: Mapping[str, Any]) -> Any:
        """Call the component with what rootflow passes first, and its keywords.

        Raises:
            ConfigError: it refuses them; says which component and why.
        """
        keywords = self.keywords(filled, first)
        try:
            return self.component(first, **keywords)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{self.group} can't be built: {title(self.component)}: {error}") from error


def read_choice(group: str, chosen: Callable[..., Any] | Mapping[str, Any] | str) -> Chosen:
    """Return the component that is meant in a group.

    Args:
        group: `optimizer` or `scheduler`.
        chosen: a class or function, or `functools.partial` of it with keywords; the name of an option in
            conf/ or of a component; or a node.

    Raises:
        ConfigError: it is nothing of these, or names what there isn't.
    """
    if isinstance(chosen, str | Mapping):
        return _of_node(group, _node(group, chosen))
    if isinstance(chosen, functools.partial) and not chosen.args:
        return Chosen(group, chosen.func, dict(chosen.keywords), None)
    if not callable(chosen) or isinstance(chosen, functools.partial):
        raise ConfigError(
            f"{group} is {chosen!r}; it must be one that is built, a class or function, functools.partial of "
            f"it with arguments by name, a mapping with `name`, or a name (`rootflow list {group}`)."
        )
    return Chosen(group, chosen, {}, None)


def title(component: Callable[..., Any]) -> str:
    """Return the dotted name of a class or function."""
    return f"{component.__module__}.{getattr(component, '__qualname__', component)}"


def _of_node(group: str, node: Mapping[str, Any]) -> Chosen:
    about, rest = take_about(group, node)
    settings = {key: value for key, value in rest.items() if key not in OWN_KEYS}
    return Chosen(group, load(group, rest), settings, about, rest)


def _node(group: str, chosen: str | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(chosen, str):
        return read_option(group, chosen) if chosen in option_files(group) else {"name": chosen}
    if not any(chosen.get(key) for key in COMPONENT_KEYS):
        raise ConfigError(f"{group} is {dict(chosen)!r}, which names no component; add `name` or `_target_`.")
    return chosen
