"""Names to components, one table per group.

    @register("model", "resnet")        # or @register in ./models: group from the folder, name from the class
    class ResNet(nn.Module): ...

A YAML's `name: resnet` leads here. Built-in components are found in rootflow's own packages, a
user's in the Python files of ./models, ./datasets and so on (`rootflow.names` says by which names), both
by reading the source; only the one that is asked for gets imported. `name: AdamW` in the groups
optimizer and scheduler also means the class of that name in torch, and a dotted name is an import path.

However a class of a project is named, it is the same Python object: its file is imported once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

from rootflow import names, signatures
from rootflow.errors import ConfigError, did_you_mean
from rootflow.project import is_projects, module_of, open_package, project_files, project_folders
from rootflow.signatures import Signature
from rootflow.sources import (
    PROJECT_FOLDERS,
    PROJECT_PACKAGE,
    definition_path,
    find_source,
    in_project,
    parse_file,
    read_source,
)

GROUPS = ("model", "dataset", "task", "optimizer", "scheduler", "trainer", "loader", "discover", "tracking")
"""The groups whose options name a component."""

NUM_GIVEN = {"optimizer": 1, "scheduler": 1}
"""How many leading arguments (the parameters, the optimizer) rootflow passes, not the config."""

_LIBRARIES = {"optimizer": "torch.optim", "scheduler": "torch.optim.lr_scheduler"}
_LIBRARY_BASES = {"Optimizer", "LRScheduler"}
_BUILT_IN = ("models", "data", "tasks", "optim", "train", "discover", "tracking")
_REGISTRABLE = tuple(dict.fromkeys([*GROUPS, *PROJECT_FOLDERS.values()]))

T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class Component:
    """Where a named component is defined; importing it is left to `load`."""

    group: str
    name: str
    module: str
    qualname: str
    is_users: bool = False
    path: Path | None = None
    line: int = 0
    is_spelling: bool = False
    """Whether the name is only another spelling of the component's."""

    @property
    def definition(self) -> str:
        """The one dotted path of the class or function, whichever name or re-export led to it."""
        return definition_path(self.module, self.qualname)

    def load(self) -> Callable[..., Any]:
        """Import and return the class or function.

        Raises:
            ConfigError: the file can't be imported; the cause is attached.
        """
        return import_object(f"{self.module}.{self.qualname}", f"{self.group}.name={self.name}")

    def signature(self) -> Signature | None:
        """Return what it takes, from its source; None where the source doesn't show it."""
        return signatures.read_signature(self.module, self.qualname)


_registered: dict[tuple[str, str], Component] = {}
_remembered: dict[tuple[str, str], Component] = {}
_is_remembering = False


@overload
def register(group: T) -> T: ...
@overload
def register(group: str | None = None, name: str | None = None) -> Callable[[T], T]: ...
def register(group: T | str | None = None, name: str | None = None) -> T | Callable[[T], T]:
    """Give a class or function a name that a YAML or the command line can use.

    Returns the object unchanged, so it stays a plain class. Bare `@register` in a file of ./models
    takes the group from the folder and the name from the class, in lower case.

    Args:
        group: one of `GROUPS`, `loss` or `diagnostic`; None for the group of the folder of the file.
        name: what `name:` says in YAML; None for the object's own name in lower case.

    Raises:
        ConfigError: there is no such group, or the folder doesn't tell one.
    """
    if callable(group):
        return _add(group, None, None)
    return functools.partial(_add, group=group, name=name)


def _add(obj: T, group: str | None, name: str | None) -> T:
    module, qualname = obj.__module__, obj.__qualname__
    folders = [part for part in module.split(".") if part in PROJECT_FOLDERS]
    group = group or (PROJECT_FOLDERS[folders[-1]] if folders else None)
    if group not in _REGISTRABLE:
        raise ConfigError(
            f"{module}.{qualname} registers in group {group!r}, which does not exist."
            f"{did_you_mean(str(group), _REGISTRABLE)} Groups: {', '.join(_REGISTRABLE)}."
        )
    name = name or qualname.lower()
    _registered[group, name] = Component(group, name, module, qualname, not module.startswith("rootflow."))
    return obj


def open_project(root: Path) -> None:
    """Make the Python files of a user's project importable, and their components known by name."""
    if open_package(root):
        for key in [key for key, found in _registered.items() if is_projects(found.module)]:
            del _registered[key]


def components(group: str) -> dict[str, Component]:
    """Return all components of a group by name, a user's own over the built-in ones."""
    found = {c.name: c for c in _library_components(group)}
    found |= {c.name: c for c in _built_in_components() if c.group == group}
    found |= {c.name: c for c in _registered.values() if c.group == group}
    own = [c for c in _project_components() if c.group == group]
    return found | {c.name: c for c in sorted(own, key=lambda c: not c.is_spelling)}


def find_component(group: str, name: str) -> Component:
    """Return the component that `name` means in a group: a registered one, or an import path.

    Raises:
        ConfigError: there is none, and it says which there are and which is nearest; or the project
            has two of that name, and it says where.
    """
    if (group, name) in _remembered:
        return _remembered[group, name]
    found = components(group)
    if name in found:
        _check_unambiguous(found[name])
        return _remember(found[name])
    if _is_found(name.rpartition(".")[0]):
        return _remember(_at_path(group, name))
    raise ConfigError(
        f"{group}.name is {name!r}, which is not registered.{did_you_mean(name, found)}"
        f"{unregistered_hint(group, name)} Registered: {', '.join(sorted(found)) or 'none'}."
    )


@contextlib.contextmanager
def looking_up_once() -> Iterator[None]:
    """Look each component up once while this is open: the jobs of a sweep name the same few over and over."""
    global _is_remembering  # as long as the block, no longer
    before, _is_remembering = _is_remembering, True
    try:
        yield
    finally:
        _is_remembering = before
        _remembered.clear()


def _remember(found: Component) -> Component:
    if _is_remembering:
        _remembered[found.group, found.name] = found
    return found


def is_component(group: str, option: str) -> bool:
    """Whether `group=option` can do without a YAML: a project's own component, or an import path."""
    if group not in GROUPS:
        return False
    found = components(group).get(option)
    return found.is_users if found else _is_found(option.rpartition(".")[0])


def unregistered_hint(group: str, name: str) -> str:
    """Return ` models/net.py:3 defines Net: ...` for an unknown name that a project's file has, or nothing.

    Says also that the file of that name can't be read, and why.
    """
    for path in (path for folder_group, path in project_files() if folder_group == group):
        source = read_source(module_of(path), path)
        if source is None and names.is_like(path.stem, name):
            return f" {_shown(path)} can't be read: {_reading_error(path)}."
        for node in names.definitions_like(source, name) if source else ():
            known = (
                [n.name for n in names.registered_names(source) if n.qualname == node.name] if source else []
            )
            dotted = f"{module_of(path)}.{node.name}".removeprefix(f"{PROJECT_PACKAGE}.")
            told = f"put @register above it, or name {dotted}."
            told = f"registered as {known[0]!r}." if known else told
            return f" {_shown(path, node.lineno)} defines {node.name}: {told}"
    return ""


def absent_hint(path: str) -> str:
    """Return why an import path can't lead anywhere, as far as the sources show it; nothing if it may.

    Names that a module makes when it runs, or that are written in C, can't be seen: those may be there.
    """
    module, _, name = path.rpartition(".")
    if not _is_found(module):
        return f"there is no package {module.partition('.')[0]!r}."
    file = find_source(in_project(module))
    source = read_source(in_project(module), file) if file else None
    if source is None or source.stars or source.shows(name) or source.shows("__getattr__"):
        return ""
    if any(word in source.path.read_text(encoding="utf-8") for word in ("globals()", "sys.modules", "exec(")):
        return ""
    return f"{_shown(source.path)} has no {name}.{did_you_mean(name, source.definitions)}"


def import_object(path: str, asked_by: str) -> Callable[..., Any]:
    """Import what a dotted path names; `models.net.Net` is the project's, if it has that file.

    Raises:
        ConfigError: the module or the name in it does not exist, or importing it failed; says
            where, and carries the cause.
    """
    module, _, name = path.rpartition(".")
    try:
        value = getattr(importlib.import_module(in_project(module)), name)
    except Exception as error:
        place = place_of(error)
        raise ConfigError(
            f"{asked_by}: importing {path} failed: {type(error).__name__}: {error}{place}"
        ) from error
    if not callable(value):
        raise ConfigError(f"{asked_by}: {path} is {value!r}, not a class or function.")
    return value  # type: ignore[no-any-return]


def place_of(error: BaseException) -> str:
    """Return ` (file:line)` of the innermost frame in a user's file."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith("<") and name not in _NEVER_TO_BLAME:
            place = f" ({name}:{trace.tb_lineno})"
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename:
        place = f" ({error.filename}:{error.lineno})"
    return place


_NEVER_TO_BLAME = (
    *(__file__, str(Path(__file__).with_name("build.py"))),
    *(importlib.__file__, dataclasses.__file__),
)


@functools.cache
def _built_in_components() -> tuple[Component, ...]:
    root = Path(__file__).parent
    return tuple(
        Component(str(named.group), named.name, source.module, named.qualname)
        for package in _BUILT_IN
        for path in sorted((root / package).glob("*.py"))
        if b"register" in path.read_bytes()
        and (source := read_source(f"rootflow.{package}.{path.stem}", path)) is not None
        for named in names.registered_names(source)
        if named.group is not None
    )


def _project_components() -> Iterator[Component]:
    for group_of_folder, path in project_files():
        source = read_source(module_of(path), path)
        if source is None:
            continue
        for found in (
            *names.registered_names(source),
            *names.table_names(source, group_of_folder),
            *names.file_names(source),
        ):
            yield Component(
                *(found.group or group_of_folder, found.name, source.module, found.qualname),
                is_users=True,
                path=path,
                line=found.line,
                is_spelling=found.is_spelling,
            )


def _is_found(module: str) -> bool:
    """Whether a module may be there: its top-level package is. To know more would import that."""
    top = module.partition(".")[0]
    try:
        return bool(top) and (top in sys.modules or importlib.util.find_spec(top) is not None)
    except (ImportError, ValueError):
        return False


def _at_path(group: str, path: str) -> Component:
    """Return what an import path names; in a project's own file it must be there."""
    module, _, qualname = path.rpartition(".")
    inside = in_project(module)
    file = find_source(inside)
    source = read_source(inside, file) if file and inside != module else None
    is_open = source is not None and (bool(source.stars) or source.shows("__getattr__"))
    if source is not None and not is_open and not source.shows(qualname):
        raise ConfigError(
            f"{group}.name is {path!r}, but {_shown(source.path)} has no {qualname}."
            f"{did_you_mean(qualname, source.definitions)} "
            f"It defines {', '.join(source.definitions) or 'nothing'}."
        )
    if file is None and module.partition(".")[0] in project_folders():
        raise ConfigError(f"{group}.name is {path!r}, but there is no {module.replace('.', '/')}.py.")
    if inside == module and (absent := absent_hint(path)):
        raise ConfigError(f"{group}.name is {path!r}, but {absent}")
    return Component(group, path, inside, qualname, is_users=inside != module)


def _check_unambiguous(found: Component) -> None:
    named = [c for c in _project_components() if (c.group, c.name) == (found.group, found.name)]
    places = {c.definition: c for c in named if c.is_spelling == found.is_spelling}
    if len(places) > 1:
        listed = " and ".join(f"{_shown(c.path, c.line)} ({path})" for path, c in places.items())
        raise ConfigError(
            f"{found.group}.name is {found.name!r}, which means two things: {listed}. "
            f"Rename one, or give the import path: {found.group}={next(iter(places))}"
        )


def _reading_error(path: Path) -> str:
    try:
        parse_file(path)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (OSError, ValueError, RecursionError) as error:
        return str(error)
    return "it is no Python"


def _shown(path: Path | None, line: int | None = None) -> str:
    """Return `models/net.py:3`: the path from the project's folder."""
    file = f"{path.parent.name}/{path.name}" if path else "?"
    return f"{file}:{line}" if line else file


def _library_components(group: str) -> Iterator[Component]:
    module = _LIBRARIES.get(group)
    for name in signatures.public_classes(module) if module else ():
        if name not in _LIBRARY_BASES:
            yield Component(group, name, str(module), name)
