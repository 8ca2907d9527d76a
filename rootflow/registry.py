"""Names to components, one table per group.

    @register("model", "resnet")        # or @register in ./models: group from the folder, name from the class
    class ResNet(nn.Module): ...

A YAML's `name: resnet` leads here. Built-in components are found in rootflow's own packages, a
user's in the Python files of ./models, ./datasets and so on, both by reading the source; only the one
that is asked for gets imported. `name: AdamW` in the groups optimizer and scheduler also means
the class of that name in torch.
"""

from __future__ import annotations

import functools
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

from rootflow import signatures
from rootflow.errors import ConfigError, did_you_mean
from rootflow.signatures import Signature

GROUPS = ("model", "dataset", "task", "optimizer", "scheduler", "trainer", "loader", "discover", "tracking")
"""The groups whose options name a component."""

_LIBRARIES = {"optimizer": "torch.optim", "scheduler": "torch.optim.lr_scheduler"}
_LIBRARY_BASES = {"Optimizer", "LRScheduler"}
_BUILT_IN = ("models", "data", "tasks", "optim", "train", "discover", "tracking")
_PROJECT_FOLDERS = {
    "models": "model",
    "datasets": "dataset",
    "tasks": "task",
    "losses": "loss",
    "diagnostics": "diagnostic",
    "optimizers": "optimizer",
    "schedulers": "scheduler",
    "trainers": "trainer",
}
"""Folders of a project whose files may register components, and the group that each stands for."""
_REGISTRABLE = tuple(dict.fromkeys([*GROUPS, *_PROJECT_FOLDERS.values()]))
_PROJECT_PACKAGE = "rootflow_project"

T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class Component:
    """Where a named component is defined; importing it is left to `load`."""

    group: str
    name: str
    module: str
    qualname: str
    is_users: bool = False

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
    folder = module.split(".")[-2] if "." in module else ""
    group = group or _PROJECT_FOLDERS.get(folder)
    if group not in _REGISTRABLE:
        raise ConfigError(
            f"{module}.{qualname} registers in group {group!r}, which does not exist."
            f"{did_you_mean(str(group), _REGISTRABLE)} Groups: {', '.join(_REGISTRABLE)}."
        )
    name = name or qualname.lower()
    _registered[group, name] = Component(group, name, module, qualname, not module.startswith("rootflow."))
    return obj


def open_project(root: Path) -> None:
    """Make the Python files of a user's project importable, as the package `rootflow_project`.

    A package of our own, because ./datasets or ./models would clash with installed packages of
    those names. The folder itself also goes on `sys.path`, for the files' own imports.
    """
    if getattr(sys.modules.get(_PROJECT_PACKAGE), "__path__", None) == [str(root)]:
        return
    package = types.ModuleType(_PROJECT_PACKAGE)
    package.__path__ = [str(root)]
    for name in [m for m in sys.modules if m.split(".")[0] == _PROJECT_PACKAGE]:
        del sys.modules[name]
    sys.modules[_PROJECT_PACKAGE] = package
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))


def components(group: str) -> dict[str, Component]:
    """Return all components of a group by name, a user's own over the built-in ones."""
    found = {c.name: c for c in _library_components(group)}
    found |= {c.name: c for c in _built_in_components() if c.group == group}
    found |= {c.name: c for c in _registered.values() if c.group == group}
    return found | {c.name: c for c in _project_components() if c.group == group}


def find_component(group: str, name: str) -> Component:
    """Return the component that `name` means in a group.

    Raises:
        ConfigError: there is none; says which there are and which is nearest.
    """
    found = components(group)
    if name not in found:
        raise ConfigError(
            f"{group}.name is {name!r}, which is not registered.{did_you_mean(name, found)} "
            f"Registered: {', '.join(sorted(found)) or 'none'}."
        )
    return found[name]


def import_object(path: str, asked_by: str) -> Callable[..., Any]:
    """Import what a dotted path names.

    Raises:
        ConfigError: the module or the name in it does not exist, or importing it failed; says
            where, and carries the cause.
    """
    module, _, name = path.rpartition(".")
    try:
        value = getattr(importlib.import_module(module), name)
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
        if not name.startswith("<") and name not in (__file__, importlib.__file__):
            place = f" ({name}:{trace.tb_lineno})"
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename:
        place = f" ({error.filename}:{error.lineno})"
    return place


@functools.cache
def _built_in_components() -> tuple[Component, ...]:
    root = Path(__file__).parent
    return tuple(
        Component(group, name, f"rootflow.{package}.{path.stem}", qualname)
        for package in _BUILT_IN
        for path in sorted((root / package).glob("*.py"))
        for group, name, qualname in signatures.registrations(path)
        if group is not None
    )


def _project_components() -> Iterator[Component]:
    package = sys.modules.get(_PROJECT_PACKAGE)
    for root in map(Path, getattr(package, "__path__", ())):
        for folder, group_of_folder in _PROJECT_FOLDERS.items():
            for path in sorted((root / folder).glob("*.py")):
                for group, name, qualname in signatures.registrations(path):
                    module = f"{_PROJECT_PACKAGE}.{folder}.{path.stem}"
                    yield Component(group or group_of_folder, name, module, qualname, is_users=True)


def _library_components(group: str) -> Iterator[Component]:
    module = _LIBRARIES.get(group)
    for name in signatures.public_classes(module) if module else ():
        if name not in _LIBRARY_BASES:
            yield Component(group, name, str(module), name)
