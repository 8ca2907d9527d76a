"""A script in plain PyTorch, the same one with the Trainer, and the page that shows the difference."""

from __future__ import annotations

import re
import runpy
from difflib import SequenceMatcher, unified_diff
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
BEFORE, AFTER = (ROOT / "examples" / "port" / name for name in ("before.py", "after.py"))
PAGE = ROOT / "docs" / "port.md"


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def ran(path: Path) -> dict[str, Any]:
    """Return the names that a script leaves; the generators are as they were, after it."""
    with torch.random.fork_rng():
        return runpy.run_path(str(path))


def test_the_port_computes_the_same_to_the_bit(capsys: pytest.CaptureFixture[str]) -> None:
    before, after = ran(BEFORE), ran(AFTER)
    assert before["final_loss"] == after["final_loss"] < 0.3
    own, ours = before["model"].state_dict(), after["model"].state_dict()
    assert all(torch.equal(own[name], ours[name]) for name in own)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == said[-1] == f"loss {before['final_loss']:.4f}"


def test_the_port_changes_ten_lines_at_most() -> None:
    before, after = ([line for line in lines(path) if line.strip()] for path in (BEFORE, AFTER))
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    changed = [max(i2 - i1, j2 - j1) for tag, i1, i2, j1, j2 in matcher.get_opcodes() if tag != "equal"]
    assert 0 < sum(changed) <= 10
    assert 30 <= len(before) <= 40


def test_the_page_shows_the_difference_as_it_is() -> None:
    assert len(lines(PAGE)) <= 50
    (shown,) = re.findall(r"^```diff\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    before, after = (path.relative_to(ROOT).as_posix() for path in (BEFORE, AFTER))
    difference = unified_diff(lines(BEFORE), lines(AFTER), before, after, n=2, lineterm="")
    assert shown.splitlines() == [line.rstrip() for line in difference]
