"""What the documents say is so."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_reference_is_what_the_sources_say() -> None:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.TARGET.read_text(encoding="utf-8") == module.reference(), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:rootflow|conf|sweeps|docs|tests|benchmarks|examples)/[\w./-]+)`", text)
    named += [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    for name in named:
        assert (ROOT / name).exists() or (page.parent / name).exists(), name


def test_the_readme_is_short_and_its_commands_are_commands() -> None:
    from rootflow.cli import VERBS

    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    commands = [
        shlex.split(line.removeprefix("$ "), comments=True) for line in lines if line.startswith("$ rootflow")
    ]
    assert len(commands) >= 5
    assert all(command[1] in VERBS for command in commands)


def test_the_readmes_mistakes_are_told_as_it_shows_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`(...)` stands for a place on the reader's machine."""
    from rootflow.cli import main

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    ((typed, told),) = re.findall(
        r"^\$ rootflow (check .*)\n((?:error: .*|  - .*)(?:\n  - .*)+)", text, re.MULTILINE
    )
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(typed)) == 2
    pattern = re.escape(told).replace(re.escape("(...)"), r"\([^)]*:\d+\)")
    assert re.fullmatch(pattern, capsys.readouterr().err.strip())


def test_every_target_of_make_is_in_its_help() -> None:
    text = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert set(phony.split()) == set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))
