"""The flat form of a config: one mapping from dotted keys to values, and back without loss.

    {"model": {"name": "mlp", "hidden": [256, 128]}}  <->  {"model.name": "mlp", "model.hidden": [256, 128]}

A list is one value, whatever is in it; so is an empty mapping, and one with a key that isn't text, such as
`{0: 1.0}`, because a dotted key couldn't tell 0 from "0". In a key, a dot or a backslash of its own has a
backslash before it: `{"a.b": {"c": 1}}` is `{"a\\.b.c": 1}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rootflow.errors import ConfigError

_PART = re.compile(r"(?:[^.\\]|\\[.\\])*", re.DOTALL)


def to_flat(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flat form of a nested mapping; the values in it are the same objects.

    Raises:
        ConfigError: a key on the first level isn't text.
    """
    for key in nested:
        if not isinstance(key, str):
            raise ConfigError(f"the key {key!r} of the config is {type(key).__name__}; it must be text.")
    return dict(_leaves(nested, ()))


def from_flat(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested form of a flat mapping.

    Raises:
        ConfigError: one key stands for a value and another for something in it, or a backslash stands
            before another character than a dot or a backslash.
    """
    paths = {key: _path(key) for key in flat}
    keys = {path: key for key, path in paths.items()}
    nested: dict[str, Any] = {}
    for key, path in paths.items():
        node = nested
        for depth, part in enumerate(path[:-1], start=1):
            if path[:depth] in keys:
                above = keys[path[:depth]]
                raise ConfigError(
                    f"{above!r} and {key!r} can't both be there: {above!r} is {flat[above]!r}, "
                    f"so there is nothing in it. Leave one out."
                )
            node = node.setdefault(part, {})
        node[path[-1]] = flat[key]
    return nested


def _leaves(node: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        inner = (*path, re.sub(r"[.\\]", r"\\\g<0>", key))
        if isinstance(value, Mapping) and value and all(isinstance(k, str) for k in value):
            yield from _leaves(value, inner)
        else:
            yield ".".join(inner), value


def _path(key: str) -> tuple[str, ...]:
    parts, position = [], -1
    while position < len(key):
        found = _PART.match(key, position + 1)
        assert found is not None  # the pattern also matches nothing
        parts.append(re.sub(r"\\(.)", r"\1", found[0]))
        position = found.end()
        if key[position : position + 1] == "\\":
            raise ConfigError(
                f"the key {key!r} has a backslash that escapes nothing; write \\\\ for one, \\. for a dot."
            )
    return tuple(parts)
