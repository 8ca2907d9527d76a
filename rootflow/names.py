"""Which names a Python file gives to its classes and functions, read from its source.

    @register("model", "small")             # or @register: the folder's group, the class's name
    class Net(nn.Module): ...

    register("model", "small")(Net)         # the same, said elsewhere in the file

    MODELS = {"small": Net, "big": BigNet}  # a table, named for what the folder holds

    class MyNet(nn.Module): ...             # nothing at all, where the file is called my_net.py

The last two are for the files of a project's folders only. Nothing is imported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rootflow.sources import Definition, Source


@dataclass(frozen=True)
class Name:
    """A name that a file gives to something in it."""

    name: str
    qualname: str
    """What the file itself calls it."""
    line: int
    group: str | None = None
    """None is the group of the file's folder."""
    is_spelling: bool = False
    """Whether it is only another spelling, which any other definition may take."""


def registered_names(source: Source) -> Iterator[Name]:
    """Yield what `register` says, above a definition or as a statement."""
    for node in source.definitions.values():
        for decorator in node.decorator_list:
            if (said := _register_arguments(decorator)) is not None:
                yield Name(said[1] or node.name.lower(), node.name, node.lineno, said[0])
    for call in source.calls:
        said = _register_arguments(call.func) if isinstance(call.func, ast.Call) else None
        named = call.args[0] if len(call.args) == 1 else None
        if said is not None and isinstance(named, ast.Name):
            yield Name(said[1] or named.id.lower(), named.id, call.lineno, said[0])


def table_names(source: Source, group: str) -> Iterator[Name]:
    """Yield the entries of tables of classes or functions that are named for the group.

    `MODELS`, `AVAILABLE_MODELS` and `MODEL_TABLE` are for models, and any `REGISTRY`; the table
    `ACTIVATIONS` of a model's file isn't.
    """
    for table, value in source.aliases.items():
        if isinstance(value, ast.Dict) and (group.upper() in table or "REGISTRY" in table):
            for key, item in zip(value.keys, value.values, strict=True):
                is_text = isinstance(key, ast.Constant) and isinstance(key.value, str)
                if is_text and isinstance(item, ast.Name) and source.shows(item.id):
                    yield Name(str(_constant(key)), item.id, item.lineno)


def file_names(source: Source) -> Iterator[Name]:
    """Yield what a file is called for: its public class or function of the file's own name.

    Its name is as `@register` would give it, `mynet` for `MyNet`; `my_net`, the file's, is another spelling.
    """
    stem = source.path.stem
    registered = {name.qualname for name in registered_names(source)}
    for node in source.definitions.values():
        is_public = not node.name.startswith("_") and not stem.startswith("_")
        if is_like(node.name, stem) and is_public and node.name not in registered:
            yield Name(node.name.lower(), node.name, node.lineno)
            if stem != node.name.lower():
                yield Name(stem, node.name, node.lineno, is_spelling=True)


def is_like(one: str, other: str) -> bool:
    """Whether two names are the same but for case and underscores."""
    return one.replace("_", "").lower() == other.replace("_", "").lower()


def definitions_like(source: Source, name: str) -> list[Definition]:
    """Return the public definitions that a name may mean: those so called, or all of a file so called."""
    public = [node for node in source.definitions.values() if not node.name.startswith("_")]
    so_called = [node for node in public if is_like(node.name, name)]
    return so_called or (public if is_like(source.path.stem, name) else [])


def _register_arguments(node: ast.expr) -> tuple[str | None, str | None] | None:
    """Return the group and the name of `register`, `register(...)` or `rootflow.register(...)`."""
    call = node if isinstance(node, ast.Call) else None
    function = call.func if call else node
    if getattr(function, "attr", getattr(function, "id", None)) != "register":
        return None
    arguments = [_constant(a) for a in call.args] if call else []
    keywords = {k.arg: _constant(k.value) for k in call.keywords} if call else {}
    group = arguments[0] if arguments else keywords.get("group")
    name = arguments[1] if len(arguments) > 1 else keywords.get("name")
    return (str(group) if group else None), (str(name) if name else None)


def _constant(node: ast.expr | None) -> Any:
    return node.value if isinstance(node, ast.Constant) else None
