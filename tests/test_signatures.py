"""Signatures read from source must be what Python itself would say, without importing anything."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from rootflow import signatures
from rootflow.signatures import COMPUTED, REQUIRED, read_signature


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable folder of Python files, whose modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def read(project: Path, text: str, name: str = "Net"):
    module = f"module_{abs(hash(text))}"
    (project / f"{module}.py").write_text(text)
    found = read_signature(module, name)
    assert found is not None
    return found


def test_every_torch_optimizer_and_scheduler_reads_as_inspect_says() -> None:
    pytest.importorskip("torch.optim.lr_scheduler")
    checked = 0
    for module in ("torch.optim", "torch.optim.lr_scheduler"):
        for name in signatures.public_classes(module):
            real = inspect.signature(getattr(sys.modules[module], name)).parameters
            read_back = read_signature(module, name)
            assert read_back is not None, name
            assert [p.name for p in read_back.parameters] == list(real), name
            for parameter in read_back.parameters:
                default = real[parameter.name].default
                if parameter.default is REQUIRED:
                    assert default is inspect.Parameter.empty, (name, parameter.name)
                elif parameter.default is not COMPUTED:
                    assert parameter.default == (list(default) if isinstance(default, tuple) else default)
            checked += 1
    assert checked >= 30


def test_reading_imports_nothing_heavy() -> None:
    code = (
        "import sys; from rootflow.signatures import read_signature;"
        "assert read_signature('torch.optim', 'AdamW'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_keyword_arguments_are_followed_along_the_bases(project: Path) -> None:
    found = read(
        project,
        "class A:\n    def __init__(self, depth: int = 3, act: str = 'relu'): ...\n"
        "class Net(A):\n    def __init__(self, width: int, **kwargs): ...\n",
    )
    assert [(p.name, p.default) for p in found.parameters] == [
        ("width", REQUIRED),
        ("depth", 3),
        ("act", "relu"),
    ]
    assert not found.accepts_more


def test_a_base_in_another_file_is_found(project: Path) -> None:
    (project / "blocks.py").write_text("class Base:\n    def __init__(self, depth: int = 18): ...\n")
    found = read(project, "from blocks import Base\nclass Net(Base):\n    pass\n")
    assert [p.name for p in found.parameters] == ["depth"]


def test_keyword_arguments_that_go_nowhere_are_open(project: Path) -> None:
    assert read(project, "def Net(a, **kwargs): ...\n").accepts_more
    assert read(
        project, "from nowhere import Base\nclass Net(Base):\n    def __init__(self, **kw): ...\n"
    ).accepts_more


def test_a_dataclass_parameter_brings_its_fields_and_overridden_defaults(project: Path) -> None:
    found = read(
        project,
        "from dataclasses import dataclass, field\n"
        "@dataclass\nclass Inner:\n    flip: bool = False\n    'mirror'\n    size: int = 4\n"
        "@dataclass\nclass Net:\n    inner: Inner = Inner(size=8)\n    'how'\n    more: Inner = field(default_factory=Inner)\n"
        "    names: list[str] = field(default_factory=list)\n",
    )
    inner, more, names = found.parameters
    assert inner.doc == "how"
    assert {p.name: p.default for p in inner.fields or ()} == {"flip": False, "size": 8}
    assert [p.doc for p in inner.fields or ()] == ["mirror", ""]
    assert {p.name: p.default for p in more.fields or ()} == {"flip": False, "size": 4}
    assert names.default == []


def test_comments_come_from_the_args_section(project: Path) -> None:
    found = read(
        project,
        'class Net:\n    """A net.\n\n    More.\n\n    Args:\n        width: channels of the first stage,\n'
        '            doubled in each next.\n        depth (int): layers.\n\n    Raises:\n        width: no.\n    """\n\n'
        "    def __init__(self, width: int, depth: int = 2): ...\n",
    )
    assert found.doc == "A net."
    assert [p.doc for p in found.parameters] == [
        "channels of the first stage, doubled in each next",
        "layers",
    ]


def test_a_changed_file_is_read_again(project: Path) -> None:
    import os

    path = project / "changing.py"
    path.write_text("def net(a=1): ...\n")
    first = read_signature("changing", "net")
    path.write_text("def net(b=1): ...\n")
    os.utime(path, ns=(1, 1))
    second = read_signature("changing", "net")
    assert first is not None
    assert second is not None
    assert [p.name for p in (*first.parameters, *second.parameters)] == ["a", "b"]


def annotations(project: Path, text: str) -> dict[str, str]:
    """Return the annotations as the check sees them, each name replaced by what it stands for."""
    return {p.name: ast.unparse(p.annotation) for p in read(project, text).parameters if p.annotation}


def test_an_enum_is_a_choice_among_the_names_of_its_members(project: Path) -> None:
    package = project / "paint"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "colors.py").write_text(
        "import enum\n\n\nclass Named(enum.StrEnum):\n    'No members, but the kind of them.'\n\n\n"
        "class Color(Named):\n    RED = enum.auto()\n    DARK_RED: str = 'dark'\n    _hidden = 3\n\n"
        "    def lighter(self): ...\n"
    )
    (package / "net.py").write_text(
        "from enum import Enum\nfrom .colors import Color\n"
        "class Size(Enum):\n    SMALL, LARGE = 1, 2\n"
        "Either = Color | None\n"
        "def Net(a: Color, b: Color | None = Color.RED, c: 'Size' = Size.LARGE, d: list[Color] = (Color.RED,),\n"
        "        e: Either = Color.BLUE, f: Color = Color.RED.value): ...\n",
    )
    found = read_signature("paint.net", "Net")
    assert found is not None
    words = {p.name: ast.unparse(p.annotation) for p in found.parameters if p.annotation}
    color = "Literal['RED', 'DARK_RED']"
    assert words == {
        "a": color,
        "b": f"{color} | None",
        "c": "Literal['SMALL', 'LARGE']",
        "d": f"list[{color}]",
        "e": f"{color} | None",
        "f": color,
    }
    assert [p.default for p in found.parameters] == [REQUIRED, "RED", "LARGE", ["RED"], COMPUTED, COMPUTED]


def test_an_enum_of_another_package_is_a_name_as_any_other(project: Path) -> None:
    assert annotations(project, "from http import HTTPMethod\ndef Net(a: HTTPMethod): ...\n") == {
        "a": "HTTPMethod"
    }


def test_units_and_durations_are_read_from_the_marks(project: Path) -> None:
    found = annotations(
        project,
        "from typing import Annotated\nfrom annotated_types import Ge\n"
        "from rootflow.limits import Epochs, Unit\nfrom rootflow.durations import Duration\n"
        "LEAST = 2\nWidth = Annotated[int, Ge(LEAST), Unit('channels')]\nMaybe = Width | None\n"
        "def Net(a: Maybe, b: Epochs, c: Duration, d: Annotated[int, Unit('LEAST')]): ...\n",
    )
    assert found == {
        "a": "Annotated[int, Ge(2), Unit('channels')] | None",
        "b": "Annotated[int, Ge(1), Unit('epochs')]",
        "c": "Annotated[str, Unit('steps'), Unit('epochs'), Unit('%')]",
        "d": "Annotated[int, Unit('LEAST')]",
    }


def test_names_that_stand_for_themselves_or_for_no_type_stay(project: Path) -> None:
    found = annotations(
        project,
        "from typing import TypeVar\nT = TypeVar('T')\nTree = dict[str, 'Tree']\n"
        "def Net(a: T, b: Tree, c: 'not a type'): ...\n",
    )
    assert found == {"a": "T", "b": "dict[str, Tree]", "c": "'not a type'"}
