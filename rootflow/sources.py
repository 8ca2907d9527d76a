"""Python files as syntax trees: found, parsed and followed through their imports, never run.

Everything here works on source text, so asking what a module of torch defines costs a millisecond
and imports nothing.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path

Definition = ast.ClassDef | ast.FunctionDef


@dataclass
class Source:
    """A parsed file: its top-level definitions, imports and aliases, by name."""

    module: str
    path: Path
    definitions: dict[str, Definition] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    aliases: dict[str, ast.expr] = field(default_factory=dict)
    docs: dict[str, str] = field(default_factory=dict)
    """Docstrings that are assigned, as torch's optimizers have them: `AdamW.__doc__ = ...`."""


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


def find_definition(module: str, name: str, depth: int = 0) -> tuple[Source, Definition] | None:
    """Return where a class or function is defined, its imports followed from file to file."""
    path = find_source(module)
    source = read_source(module, path) if path else None
    if source is None or depth > 6:
        return None
    if name in source.definitions:
        return source, source.definitions[name]
    if name in source.imports:
        origin, original = source.imports[name]
        return find_definition(origin, original, depth + 1)
    return None


def read_source(module: str, path: Path) -> Source | None:
    """Return a parsed file, anew when it has changed; None for one that isn't valid Python."""
    try:
        return _parse(module, path, path.stat().st_mtime_ns)
    except (OSError, SyntaxError, ValueError):
        return None


@functools.lru_cache(maxsize=512)
def _parse(module: str, path: Path, _mtime_ns: int) -> Source:
    source = Source(module, path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            source.definitions[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(node, package)
            source.imports |= {a.asname or a.name: (origin, a.name) for a in node.names}
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
    path = find_source(origin) if is_near(source, origin) else None
    there = read_source(origin, path) if path else None
    return find_alias(there, original) if there and there.path != source.path else None


def is_near(source: Source, module: str) -> bool:
    """Whether a module is rootflow's or of the same package: others' types are never config."""
    return module.partition(".")[0] in ("rootflow", source.module.partition(".")[0]) and module != "torch"
