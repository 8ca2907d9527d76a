"""The user's project: the current folder, importable as the package `rootflow_project`.

Each of its files is imported once, by whichever name it is asked for, so that a class has one identity.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from rootflow.sources import PROJECT_FOLDERS, PROJECT_PACKAGE, find_source, in_project


def open_package(root: Path) -> bool:
    """Make a folder the package `rootflow_project`; return False if it was already.

    A package of our own, because ./datasets or ./models would clash with installed packages of
    those names. The folder itself also goes on `sys.path`, for the files' own imports; where these
    lead to a file of the package, as `from models.net import Net`, they get the package's module.
    """
    if getattr(sys.modules.get(PROJECT_PACKAGE), "__path__", None) == [str(root)]:
        return False
    before = getattr(sys.modules.get(PROJECT_PACKAGE), "added_path", None)
    if before in sys.path:
        sys.path.remove(before)  # or the files of the project that was open before would come first
    package = types.ModuleType(PROJECT_PACKAGE)
    package.__path__ = [str(root)]
    for name, module in list(sys.modules.items()):
        is_mere_folder = name in PROJECT_FOLDERS and getattr(module, "__file__", None) is None
        if is_mere_folder or is_projects(name) or is_projects(getattr(module, "__name__", "")):
            del sys.modules[name]
    sys.modules[PROJECT_PACKAGE] = package
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
        package.added_path = str(root)  # type: ignore[attr-defined]
    if not any(isinstance(finder, _OneCopy) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OneCopy())
    for name, module in list(sys.modules.items()):
        if _is_one_file(in_project(name), getattr(module, "__file__", None)):
            sys.modules.setdefault(in_project(name), module)  # imported before, by a script of the user's
    return True


def project_folders() -> dict[str, Path]:
    """Return those of `PROJECT_FOLDERS` that the open project has."""
    roots = map(Path, getattr(sys.modules.get(PROJECT_PACKAGE), "__path__", ()))
    return {folder: root / folder for root in roots for folder in PROJECT_FOLDERS if (root / folder).is_dir()}


def project_files() -> Iterator[tuple[str, Path]]:
    """Yield `(group of the folder, file)` of every Python file that may name components."""
    for folder, path in project_folders().items():
        yield from ((PROJECT_FOLDERS[folder], file) for file in sorted(path.glob("*.py")))


def module_of(path: Path) -> str:
    """Return the module that a file of `project_files` is."""
    package = f"{PROJECT_PACKAGE}.{path.parent.name}"
    return package if path.name == "__init__.py" else f"{package}.{path.stem}"


def is_projects(module: str) -> bool:
    """Whether a module is the project's, by its name there."""
    return module.partition(".")[0] == PROJECT_PACKAGE


def _is_one_file(module: str, file: str | None) -> bool:
    """Whether a module of the project is this file."""
    found = find_source(module) if is_projects(module) and file else None
    return found is not None and found.samefile(str(file))


class _OneCopy(MetaPathFinder, Loader):
    """Gives `import models.net` the module `rootflow_project.models.net`, where both are one file.

    Python would run the file a second time, and its classes wouldn't be those that rootflow built.
    """

    def __init__(self) -> None:
        self.specs: dict[types.ModuleType, ModuleSpec | None] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, _target: object = None
    ) -> ModuleSpec | None:
        inside = in_project(fullname)
        found = PathFinder.find_spec(fullname, path) if inside != fullname else None
        is_own = found is not None and _is_one_file(inside, found.origin if found.has_location else None)
        return ModuleSpec(fullname, self, origin=inside) if is_own else None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        module = importlib.import_module(str(spec.origin))
        self.specs[module] = module.__spec__
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        module.__spec__ = self.specs.pop(module)  # the import system has put the other name's there
