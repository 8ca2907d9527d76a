"""What a component takes, read from its source without importing it.

The schema of `model=resnet` is the signature of the class behind it. Importing that class would
import torch, which takes seconds; parsing its file takes a millisecond or two. So `--cfg job`, `list`
and the config check read signatures here, from the syntax tree; a file that has changed is read anew.

Guarantee: nothing in this module runs or imports a component's code.
"""

from __future__ import annotations

import ast
import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootflow.sources import Source, find_alias, find_definition, find_source, is_near, read_source


class _Mark:
    """A named singleton, for defaults that no YAML value can stand for."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> str:
        return self.name  # a copy is the same one


REQUIRED = _Mark("REQUIRED")
"""The default of a parameter that has none."""

COMPUTED = _Mark("COMPUTED")
"""A default that is code, not a literal; only the component itself can evaluate it."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a component: the schema of one config key."""

    name: str
    annotation: ast.expr | None
    default: Any
    doc: str = ""
    fields: tuple[Parameter, ...] | None = None
    """The parameters of the dataclass that this parameter takes, if it takes one."""
    item_fields: tuple[Parameter, ...] | None = None
    """The same of each item, where it takes a list or a mapping of them."""


@dataclass(frozen=True)
class Signature:
    """What calling a component takes, and where that is written."""

    qualname: str
    module: str
    path: Path
    line: int
    doc: str
    parameters: tuple[Parameter, ...]
    accepts_more: bool
    """Whether it takes keyword arguments that the source doesn't name."""


def read_signature(module: str, qualname: str) -> Signature | None:
    """Return the signature of a class or function, or None where the source doesn't show it."""
    found = find_definition(module, qualname)
    if found is None:
        return None
    source, node = found
    if node.name not in source.read:
        source.read[node.name] = _signature(source, node)
    signature: Signature = source.read[node.name]
    return signature


def _signature(source: Source, node: ast.ClassDef | ast.FunctionDef) -> Signature:
    taken = _parameters(source, node)
    doc = ast.get_docstring(node) or source.docs.get(node.name, "")
    return Signature(
        qualname=node.name,
        module=source.module,
        path=source.path,
        line=node.lineno,
        doc=doc.strip().partition("\n")[0],
        parameters=tuple(taken[0]),
        accepts_more=taken[1],
    )


def public_classes(module: str) -> list[str]:
    """Return the names in a module's `__all__` that are spelt like classes."""
    path = find_source(module)
    source = read_source(module, path) if path else None
    names = _default(source, source.aliases["__all__"]) if source and "__all__" in source.aliases else []
    return [name for name in names if name[:1].isupper()]


def _parameters(source: Source, node: ast.ClassDef | ast.FunctionDef) -> tuple[list[Parameter], bool]:
    """Return the parameters, and whether keyword arguments beyond them are accepted."""
    if isinstance(node, ast.FunctionDef):
        return _of_function(source, node, ast.get_docstring(node) or "")
    if _is_dataclass(node):
        return _of_dataclass(source, node)
    docs = ast.get_docstring(node) or source.docs.get(node.name, "")
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            taken, more = _of_function(source, item, docs + "\n" + (ast.get_docstring(item) or ""))
            inherited = _of_bases(source, node) if more else ([], False)
            known = {p.name for p in taken}
            return taken + [p for p in inherited[0] if p.name not in known], inherited[1] if more else False
    return _of_bases(source, node)


def _of_bases(source: Source, node: ast.ClassDef) -> tuple[list[Parameter], bool]:
    """Follow the bases in order to the first one that says what it takes."""
    for base in node.bases:
        name = _last_name(base)
        if name in ("Module", "Dataset", "object", "Protocol", "Generic", "ABC"):
            return [], False
        found = find_definition(source.module, name) if name else None
        if found is None:
            return [], True
        return _parameters(*found)
    return [], False


def _of_function(source: Source, node: ast.FunctionDef, docs: str) -> tuple[list[Parameter], bool]:
    spec = node.args
    positional = [*spec.posonlyargs, *spec.args]
    padding: list[ast.expr | None] = [None] * (len(positional) - len(spec.defaults))
    pairs = [*zip(positional, [*padding, *spec.defaults], strict=True)]
    if pairs and pairs[0][0].arg == "self":
        pairs = pairs[1:]
    pairs += zip(spec.kwonlyargs, spec.kw_defaults, strict=True)
    comments = _argument_docs(docs)
    taken = [
        _parameter(source, arg.arg, arg.annotation, default, comments.get(arg.arg, ""))
        for arg, default in pairs
    ]
    return taken, spec.kwarg is not None


def _of_dataclass(source: Source, node: ast.ClassDef) -> tuple[list[Parameter], bool]:
    taken: dict[str, Parameter] = {}
    for base in node.bases:
        found = find_definition(source.module, _last_name(base))
        if found and isinstance(found[1], ast.ClassDef) and _is_dataclass(found[1]):
            taken |= {p.name: p for p in _of_dataclass(found[0], found[1])[0]}
    for item, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        if item.target.id.startswith("_") or "ClassVar" in ast.unparse(item.annotation):
            continue
        doc = _string(following) or ""
        taken[item.target.id] = _parameter(source, item.target.id, item.annotation, item.value, doc)
    return list(taken.values()), False


def _parameter(
    source: Source, name: str, annotation: ast.expr | None, default: ast.expr | None, doc: str
) -> Parameter:
    value, fields = _default(source, default), _nested_fields(source, annotation)
    if fields is not None and isinstance(default, ast.Call) and value is COMPUTED:
        fields = tuple(_overridden(source, fields, _constructor_keywords(default)))
        value = {p.name: p.default for p in fields}
    resolved = _Resolver(source).visit(copy.deepcopy(annotation)) if annotation else None
    items = _nested_fields(source, _item_annotation(annotation)) if fields is None else None
    return Parameter(name, resolved, value, _first_sentence(doc), fields, items)


def _first_sentence(doc: str) -> str:
    """Return a comment's first sentence, without the default that some repeat."""
    return re.split(r" \(default|\.(?= [A-Z]|$)", " ".join(doc.split()))[0]


def _constructor_keywords(call: ast.Call) -> dict[str, ast.expr]:
    """Keywords of `Split(val_frac=0.2)`, or of the same within `field(default_factory=...)`."""
    keywords = {k.arg: k.value for k in call.keywords if k.arg}
    factory = keywords.get("default_factory") if _last_name(call.func) == "field" else None
    if factory is None:
        return keywords
    if isinstance(factory, ast.Lambda) and isinstance(factory.body, ast.Call):
        return _constructor_keywords(factory.body)
    return {}


def _overridden(source: Source, fields: tuple[Parameter, ...], given: dict[str, ast.expr]) -> list[Parameter]:
    return [
        Parameter(p.name, p.annotation, _default(source, given[p.name]), p.doc, p.fields)
        if p.name in given
        else p
        for p in fields
    ]


def _default(source: Source, node: ast.expr | None) -> Any:
    if node is None:
        return REQUIRED
    try:
        value = ast.literal_eval(node)
    except ValueError:
        if isinstance(node, ast.Name) and node.id in source.aliases:
            return _default(source, source.aliases[node.id])
        if isinstance(node, ast.Call) and _last_name(node.func) == "field":
            return _field_default(source, node)
        if isinstance(node, ast.Attribute) and node.attr in _enum_members(source, _last_name(node.value)):
            return node.attr
        if isinstance(node, ast.Tuple | ast.List):
            items = [_default(source, item) for item in node.elts]
            return COMPUTED if COMPUTED in items else items
        return COMPUTED
    return list(value) if isinstance(value, tuple | set) else value


def _field_default(source: Source, call: ast.Call) -> Any:
    keywords = {k.arg: k.value for k in call.keywords}
    if "default" in keywords:
        return _default(source, keywords["default"])
    factory = keywords.get("default_factory")
    empty: dict[str | None, Any] = {"list": [], "dict": {}, "tuple": []}
    name = _last_name(factory) if factory else None
    return empty.get(name, COMPUTED) if factory else REQUIRED


def _nested_fields(source: Source, annotation: ast.expr | None) -> tuple[Parameter, ...] | None:
    """Return the fields of the dataclass that an annotation names, if it names one."""
    for name in _names_in(annotation):
        found = _find_near_class(source, name)
        if found and _is_dataclass(found[1]):
            return tuple(_of_dataclass(*found)[0])
    return None


_CONTAINERS = ("list", "List", "tuple", "Tuple", "Sequence", "dict", "Dict", "Mapping")


def _item_annotation(annotation: ast.expr | None) -> ast.expr | None:
    """Return X of `list[X]`, `tuple[X, ...]`, `dict[str, X]` and their unions with None."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            return _item_annotation(ast.parse(annotation.value.strip(), mode="eval").body)
        except SyntaxError:
            return None
    if isinstance(annotation, ast.BinOp):
        return _item_annotation(annotation.left) or _item_annotation(annotation.right)
    if not isinstance(annotation, ast.Subscript):
        return None
    name, inner = _last_name(annotation.value), annotation.slice
    if name == "Optional":
        return _item_annotation(inner)
    arguments = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if name not in _CONTAINERS or not arguments:
        return None
    return arguments[-1] if name in ("dict", "Dict", "Mapping") else arguments[0]


def _find_near_class(source: Source, name: str) -> tuple[Source, ast.ClassDef] | None:
    if name not in source.definitions and not is_near(source, source.imports.get(name, ("", ""))[0]):
        return None
    found = find_definition(source.module, name)
    return (found[0], found[1]) if found and isinstance(found[1], ast.ClassDef) else None


def _enum_members(source: Source, name: str) -> list[str]:
    """Return the names of an Enum's members; none for any other class."""
    found = _find_near_class(source, name)
    if found is None or not _is_enum(*found):
        return []
    targets: list[ast.expr] = []
    for item in found[1].body:
        if isinstance(item, ast.Assign):
            targets += item.targets
        elif isinstance(item, ast.AnnAssign) and item.value:
            targets.append(item.target)
    names = (node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))
    return [name for name in names if not name.startswith("_")]


def _is_enum(source: Source, node: ast.ClassDef) -> bool:
    names = [_last_name(base) for base in node.bases]
    bases = (_find_near_class(source, name) for name in names if name != node.name)
    return not _ENUMS.isdisjoint(names) or any(_is_enum(*base) for base in bases if base)


_ENUMS = frozenset({"Enum", "IntEnum", "StrEnum", "Flag", "IntFlag"})


def _names_in(annotation: ast.expr | None) -> list[str]:
    """Names in `X`, `X | None` and `Optional[X]`; containers of X are plain values."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return _names_in(_quoted(annotation.value))
    if isinstance(annotation, ast.Name | ast.Attribute):
        return [_last_name(annotation)]
    if isinstance(annotation, ast.BinOp):
        return _names_in(annotation.left) + _names_in(annotation.right)
    if isinstance(annotation, ast.Subscript) and _last_name(annotation.value) == "Optional":
        return _names_in(annotation.slice)
    return []


def _quoted(annotation: str) -> ast.expr | None:
    try:
        return ast.parse(annotation, mode="eval").body
    except (SyntaxError, ValueError):
        return None


class _Resolver(ast.NodeTransformer):
    """Replaces names by what they stand for: `PositiveInt`, a file's own `Shape = Literal[...]`, an Enum.

    An Enum is a choice among the names of its members.
    """

    def __init__(self, source: Source, within: tuple[str, ...] = ()) -> None:
        self.source = source
        self.within = within
        """The aliases that are being resolved: one that names itself stays as it is."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        found = find_alias(self.source, node.id)
        if found is not None and not isinstance(found, ast.Call):  # TypeVar("T") is no alias
            return self._resolved(copy.deepcopy(found), node.id)
        members: list[ast.expr] = [ast.Constant(name) for name in _enum_members(self.source, node.id)]
        return ast.Subscript(ast.Name("Literal"), ast.Tuple(members)) if members else node

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        """A quoted annotation, where it stands for a type: `visit_Call` and Literal keep their texts."""
        quoted = _quoted(node.value) if isinstance(node.value, str) else None
        return node if quoted is None else self._resolved(quoted, str(node.value))

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        return node if _last_name(node.value) == "Literal" else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """A mark of Annotated, whose limits may be constants of the file."""
        node.args = [self.visit(a) if isinstance(a, ast.Name) else a for a in node.args]
        for keyword in (k for k in node.keywords if isinstance(k.value, ast.Name)):
            keyword.value = self.visit(keyword.value)
        return node

    def _resolved(self, node: ast.expr, name: str) -> ast.expr:
        is_of_this_file = name in self.source.aliases or name not in self.source.imports
        if not is_of_this_file or name in self.within:  # the names in it are those of another file
            return node
        resolved: ast.expr = _Resolver(self.source, (*self.within, name)).visit(node)
        return resolved


def _is_dataclass(node: ast.ClassDef | ast.FunctionDef) -> bool:
    return isinstance(node, ast.ClassDef) and any(
        _last_name(d.func if isinstance(d, ast.Call) else d) == "dataclass" for d in node.decorator_list
    )


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript):
        return _last_name(node.value)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _string(node: ast.stmt | None) -> str | None:
    value = node.value if isinstance(node, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


_ARGUMENT = re.compile(r"^(?P<indent> +)\*{0,2}(?P<name>\w+)\s*(?:\([^)]*\))?\s*:\s*(?P<text>.*)$")


def _argument_docs(docs: str) -> dict[str, str]:
    """Return the comments of a Google-style `Args:` section, by parameter."""
    found: dict[str, str] = {}
    name, indent, inside = "", "", False
    for line in docs.splitlines():
        match = _ARGUMENT.match(line)
        if line.strip() in ("Args:", "Arguments:"):
            inside, name, indent = True, "", ""
        elif inside and match and (not indent or match["indent"] == indent):
            name, indent = match["name"], match["indent"]
            found.setdefault(name, match["text"])
        elif inside and name and line.startswith(indent + " ") and line.strip():
            found[name] += " " + line.strip()
        elif line.strip():
            inside = False
        else:
            name = ""
    return found
