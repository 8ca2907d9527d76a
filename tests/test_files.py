"""A file is the old one or the new one, whatever happens while it is written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rootflow.files import replace_when_done, write_json


def test_a_block_that_raises_leaves_the_old_file_and_no_scratch(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half() -> None:
        with replace_when_done(path) as scratch:
            scratch.write_text("ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]  # noqa: PTH208  # hidden files too


def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    code = (
        "import os, signal, sys, pathlib; from rootflow.files import replace_when_done\n"
        "with replace_when_done(pathlib.Path(sys.argv[1])) as scratch:\n"
        "    scratch.write_text('{'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert json.loads(path.read_text()) == {"a": 1}


@pytest.mark.parametrize("value", [{"a": float("nan")}, {"a": float("inf")}])
def test_numbers_that_json_has_not_are_refused(tmp_path: Path, value: dict[str, float]) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, value)
    assert json.loads(path.read_text()) == {"a": 1}
