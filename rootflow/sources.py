"""Python files as syntax trees: found, parsed and followed through their imports, never run.

Everything here works on source text, so asking what a module of torch defines costs a millisecond
and imports nothing.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Definition = ast.ClassDef | ast.FunctionDef

PROJECT_PACKAGE = "rootflow_project"
"""The package whose folder is the user's project, see `registry.open_project`."""

PROJECT_FOLDERS = {
    "models": "model",
    "datasets": "dataset",
    "tasks": "task",
    "losses": "loss",
    "diagnostics": "diagnostic",
    "optimizers": "optimizer",
    "schedulers": "scheduler",
    "trainers": "trainer",
}
"""Folders of a project whose files name components, and the group that each stands for."""


@dataclass
class Source:
    """A parsed file: its top-level definitions, imports, aliases and calls."""

    module: str
    path: Path
    definitions: dict[str, Definition] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    """Modules of which everything is imported."""
    aliases: dict[str, ast.expr] = field(default_factory=dict)
    calls: list[ast.Call] = field(default_factory=list)
    """Calls that are statements by themselves, as `register("model", "net")(Net)`."""
    docs: dict[str, str] = field(default_factory=dict)
    """Docstrings that are assigned, as torch's optimizers have them: `AdamW.__doc__ = ...`."""
    read: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What `signatures` made of its definitions, so that a sweep's hundred jobs read each once."""

    def shows(self, name: str) -> bool:
        """Whether a name is plainly there; a star import or `__getattr__` may give others."""
        return any(name in known for known in (self.definitions, self.imports, self.aliases))


def find_source(module: str) -> Path | None:
    """Return the file of a Python module, without importing its parent packages."""
    loaded = sys.modules.get(module)
    if loaded is not None and getattr(loaded, "__file__", None):
        return Path(str(loaded.__file__))
    top, *rest = module.split(".")
    package = sys.modules.get(top)
    try:
        folders = list(package.__path__) if package else _search_locations(top)
    except (AttributeError, ImportError, ValueError):
        return None
    for folder in map(Path, folders):
        path = folder.joinpath(*rest)
        for candidate in (path / "__init__.py", path.with_name(path.name + ".py")):
            if candidate.is_file() and (rest or candidate.name == "__init__.py"):
                return candidate
    return _single_file(top) if not rest else None


def _search_locations(top: str) -> list[str]:
    spec = importlib.util.find_spec(top)
    return list(spec.submodule_search_locations or []) if spec else []


def _single_file(top: str) -> Path | None:
    spec = importlib.util.find_spec(top)
    origin = spec.origin if spec else None
    return Path(origin) if origin and origin.endswith(".py") else None


def in_project(module: str) -> str:
    """Return `rootflow_project.models.net` for `models.net` if the open project has that file.

    Any other module is returned as it is: an installed package may be called `models`, too.
    """
    inside = f"{PROJECT_PACKAGE}.{module}"
    is_own = module.partition(".")[0] in PROJECT_FOLDERS and find_source(inside) is not None
    return inside if is_own else module


def find_definition(module: str, name: str, depth: int = 0) -> tuple[Source, Definition] | None:
    """Return where a class or function is defined, its imports followed from file to file."""
    module = in_project(module)
    path = find_source(module)
    source = read_source(module, path) if path else None
    if source is None or depth > 6:
        return None
    if name in source.definitions:
        return source, source.definitions[name]
    alias = source.aliases.get(name)
    if isinstance(alias, ast.Name) and alias.id != name:
        return find_definition(module, alias.id, depth + 1)
    origins = [source.imports[name]] if name in source.imports else [(star, name) for star in source.stars]
    found = (find_definition(origin, original, depth + 1) for origin, original in origins)
    return next(filter(None, found), None)


def definition_path(module: str, name: str) -> str:
    """Return the one dotted path of a class or function, by whichever module it was named.

    The module that defines it, if the source shows that, else the module as given; a project's own files
    as they lie there, `models.net.Net`.
    """
    found = find_definition(module, name)
    path = f"{found[0].module}.{found[1].name}" if found else f"{module}.{name}"
    return path.removeprefix(f"{PROJECT_PACKAGE}.")


def read_source(module: str, path: Path) -> Source | None:
    """Return a parsed file, anew when it has changed; None for one that isn't valid Python."""
    try:
        return _parse(module, path, path.stat().st_mtime_ns) if path.suffix == ".py" else None
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None


@functools.lru_cache(maxsize=512)
def _parse(module: str, path: Path, _mtime_ns: int) -> Source:
    source = Source(module, path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in _statements(parse_file(path).body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            source.definitions[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(node, package)
            source.imports |= {a.asname or a.name: (origin, a.name) for a in node.names if a.name != "*"}
            source.stars += [origin for a in node.names if a.name == "*"]
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            source.calls.append(node.value)
        elif isinstance(node, ast.Assign) and _assigns_docs(node.targets[0]):
            constants = (part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant))
            source.docs[ast.unparse(node.targets[0]).partition(".")[0]] = "\n".join(
                text for text in constants if isinstance(text, str)
            )
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            source.aliases[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            source.aliases[node.target.id] = node.value
    return source


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield what may run on import, that within `if` and `try` too, but not what is for type checkers."""
    for node in body:
        if isinstance(node, ast.If | ast.Try | ast.With):
            is_for_checkers = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            handlers = [s for handler in getattr(node, "handlers", ()) for s in handler.body]
            rest = [*handlers, *getattr(node, "orelse", ()), *getattr(node, "finalbody", ())]
            yield from _statements(rest if is_for_checkers else [*node.body, *rest])
        else:
            yield node


def parse_file(path: Path) -> ast.Module:
    """Return a file's syntax tree; what Python would warn about there is for when the file runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(path.read_bytes())  # bytes: the file may say its encoding


def _assigns_docs(target: ast.expr) -> bool:
    return (
        isinstance(target, ast.Attribute) and target.attr == "__doc__" and isinstance(target.value, ast.Name)
    )


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def find_alias(source: Source, name: str) -> ast.expr | None:
    """Return the value that a module-level name was given, there or where it was imported from."""
    if name in source.aliases:
        return source.aliases[name]
    origin, original = source.imports.get(name, ("", ""))
    origin = in_project(origin)
    path = find_source(origin) if is_near(source, origin) else None
    there = read_source(origin, path) if path else None
    return find_alias(there, original) if there and there.path != source.path else None


def is_near(source: Source, module: str) -> bool:
    """Whether a module is rootflow's, of the same package or project: others' types are never config."""
    top = module.partition(".")[0]
    is_same = top in ("rootflow", source.module.partition(".")[0])
    return bool(top) and module != "torch" and (is_same or _lies_in_project(top))


def _lies_in_project(top: str) -> bool:
    """Whether a file or a folder of the open project has this name."""
    folders = getattr(sys.modules.get(PROJECT_PACKAGE), "__path__", ())
    return any((Path(f) / top).is_dir() or (Path(f) / f"{top}.py").is_file() for f in folders)
