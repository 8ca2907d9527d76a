"""`rootflow new`: a project that trains at once, and new components for it.

What is written are the files of rootflow/template, with names put in place of `new_name` and `NewName`.
Either all of them are there afterwards or none.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import keyword
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from rootflow.config.folders import option_files
from rootflow.errors import ConfigError, RootflowError, did_you_mean

KINDS = {
    "model": "rootflow train model={name}",
    "dataset": "rootflow train dataset={name}",
    "task": "rootflow train task={name}",
    "optimizer": "rootflow train optimizer={name}",
    "scheduler": "rootflow train scheduler={name}",
    "experiment": "rootflow train experiment={name}",
    "sweep": "rootflow train -m +sweeps={name}",
}
"""What can be added to a project, each with the command that uses it."""

USAGE = """rootflow new NAME          a project in the folder NAME, which trains at once
       rootflow new KIND NAME     a component or config of that kind, in the project in this folder
"""

HELP = f"""kinds: {", ".join(KINDS)}

  rootflow new my_project       then: cd my_project, rootflow train
  rootflow new model my_net     models/my_net.py and conf/model/my_net.yaml; then: rootflow train model=my_net
  rootflow new sweep widths     sweeps/widths.yaml; then: rootflow train -m +sweeps=widths"""

_TEMPLATE = Path(__file__).resolve().parents[1] / "template"
_EXAMPLES = {"model": "small_net", "dataset": "spirals"}
"""The components that a new project begins with; its own files name them."""

_NO_NAMES = ("auto", "inf", "nan", "no", "null", "off", "on", "yes")
"""Words that YAML, Hydra or rootflow take for something else than a name."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the verb."""
    made = argparse.ArgumentParser(
        "rootflow new", usage=USAGE, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("words", nargs="+", help=argparse.SUPPRESS)
    return made


def run(argv: list[str]) -> int:
    """Write a project or a component; say what was written and what to do next."""
    made = parser()
    words = made.parse_args(argv).words
    if len(words) == 1:
        _new_project(words[0])
    elif len(words) == 2:
        _new_component(*words)
    else:
        made.error(f"{len(words)} words were given.")
    return 0


def _new_project(text: str) -> None:
    if text in KINDS:
        raise ConfigError(
            f"`rootflow new {text}` says no name. For a {text}: rootflow new {text} NAME. "
            f"For a project in a folder {text}: rootflow new ./{text}"
        )
    folder = Path(text)
    name = folder.resolve().name
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ConfigError(
            f"{name!r} is no name for a project; it must be letters, digits, '_', '-' and '.', and begin "
            "with a letter or digit."
        )
    _check_empty(folder)
    files = _render("project", name)
    for kind, example in _EXAMPLES.items():
        files |= _render(kind, example, class_name=_camel_case(example))
    _write_all({folder / path: content for path, content in files.items()})
    print(f"{folder}/", *(f"  {path}" for path in sorted(files)), "next:", sep="\n")
    enter = [] if folder.resolve() == Path.cwd() else [f"cd {folder}"]
    commands = [*enter, "rootflow train", "make", "rootflow new model my_net"]
    print(*(f"  {command}" for command in commands), sep="\n")


def _new_component(kind: str, text: str) -> None:
    if kind not in KINDS:
        raise ConfigError(
            f"there is no kind {kind!r}.{did_you_mean(kind, KINDS)} Kinds: {', '.join(KINDS)}. "
            "For a project: rootflow new NAME"
        )
    _check_name(kind, text)
    name, class_name = _snake_case(text), _camel_case(text)
    files = _render(kind, name, class_name=class_name)
    _check_free(kind, name, files)
    _check_unshadowed({name, class_name}, files)
    folders = sorted({f"{_first_missing(path)}/" for path in files} - {f"{path}/" for path in files})
    _write_all(files)
    if folders:
        print(f"new folders: {', '.join(folders)}; rootflow reads them in the folder where it is run")
    print(*files, f"try: {KINDS[kind].format(name=name)}", sep="\n")


def _check_name(kind: str, text: str) -> None:
    """Refuse what can't be the name of a file, an option and a class at once."""
    if _is_name(text):
        return
    likely = re.sub(r"\W+", "_", text).strip("_0123456789")
    hint = f" Did you mean {likely!r}?" if _is_name(likely) else ""
    raise ConfigError(
        f"{text!r} is no name for a {kind}.{hint} It must be letters from a to z, digits and '_', begin "
        "with a letter, and mean nothing else to Python and YAML."
    )


def _is_name(text: str) -> bool:
    names = (_snake_case(text), _camel_case(text))
    is_word = any(map(keyword.iskeyword, names)) or names[0] in _NO_NAMES
    return re.fullmatch(r"[A-Za-z]\w*", text, re.ASCII) is not None and not is_word


def _check_free(kind: str, name: str, files: Iterable[Path]) -> None:
    """Refuse what would overwrite a file, or hide a shipped option or component without a word."""
    from rootflow.config.folders import display_path
    from rootflow.registry import components, open_project

    for path in files:
        if path.exists() or path.is_symlink():
            raise ConfigError(f"{path} is there already. Choose another name, or remove it.")
    open_project(Path.cwd())
    group = "sweeps" if kind == "sweep" else kind
    places = {option: display_path(path) for option, (_, path) in option_files(group).items()}
    places = {found.name: f"{found.module}.{found.qualname}" for found in components(group).values()} | places
    if name in places:
        raise ConfigError(
            f"{group}={name} is there already ({places[name]}); a new one would hide it. Choose another name."
        )


def _check_unshadowed(names: set[str], files: Mapping[Path, str]) -> None:
    """Refuse a name that the new Python file needs for something else, such as `torch`."""
    trees = [ast.parse(text) for path, text in files.items() if path.suffix == ".py"]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    used = {node.id for node in nodes if isinstance(node, ast.Name) and hasattr(builtins, node.id)}
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            used |= {alias.asname or alias.name for alias in node.names}
    if names & used:
        taken = min(names & used)
        raise ConfigError(f"{taken!r} is something else in the new Python file. Choose another name.")


def _check_empty(folder: Path) -> None:
    if folder.is_dir():
        # A repository that was just made or cloned counts as empty.
        found = sorted(path.name for path in folder.iterdir() if path.name != ".git")
        if found:
            shown = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
            raise ConfigError(f"{folder}/ is not empty: it has {shown}. Choose a new or an empty folder.")
    elif folder.exists() or folder.is_symlink():
        raise ConfigError(f"{folder} is there already, and no folder. Choose another name, or remove it.")


def _render(what: str, name: str, *, class_name: str = "") -> dict[Path, str]:
    """Return the files of a template by their path in a project, with the names put in."""
    root = _TEMPLATE / what
    files: dict[Path, str] = {}
    for path in sorted(root.rglob("*")):
        # An installer compiles the template's Python files, too.
        if path.is_file() and "__pycache__" not in path.parts:
            text = path.read_text(encoding="utf-8").replace("new_name", name).replace("NewName", class_name)
            files[Path(path.relative_to(root).as_posix().replace("new_name", name))] = text
    return files


def _write_all(files: Mapping[Path, str]) -> None:
    """Write new files and the folders they need: all, or none when one can't be written.

    What is missing is made beside its place, whole folders at once, and renamed when everything is ready.

    Raises:
        RootflowError: the disk refused; nothing was left behind.
    """
    scratch: dict[Path, Path] = {}
    placed: list[Path] = []
    try:
        for path, text in files.items():
            top = _first_missing(path)
            scratch[top] = top.with_name(f".{top.name}.{os.getpid()}.partial")
            part = scratch[top] / path.relative_to(top)
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(text, encoding="utf-8")
        for top, whole in scratch.items():
            whole.rename(top)
            placed.append(top)
    except BaseException as error:
        for done in placed:
            _remove(done)
        if isinstance(error, OSError):
            raise RootflowError(f"{top} can't be made: {error.strerror}. Nothing was written.") from error
        raise
    finally:
        for whole in scratch.values():
            _remove(whole)


def _first_missing(path: Path) -> Path:
    """Return the outermost part of a new file's path that isn't there yet."""
    while not path.parent.exists():
        path = path.parent
    return path


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _camel_case(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))
