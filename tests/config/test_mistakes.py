"""The table of mistakes: what each is told, word for word."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import rootflow
from rootflow.cli import main
from rootflow.config import compose  # noqa: F401  # so that no mistake pays for the import
from rootflow.config.folders import shipped_folder
from rootflow.registry import open_project

TABLE: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "config_mistakes.yaml").read_text(encoding="utf-8")
)
PLACES = {
    "{rootflow}": str(Path(rootflow.__file__).parent),
    "{torch}": str(Path(torch.__file__).parent),
    "{conf}": str(shipped_folder("conf")),
}
A_PLACE = re.compile(
    r"command line|[\w}-]\.(yaml|py):(\d+|\{line\})|standard input:\d+|--overrides-json: line \d+"
)


def as_pattern(told: str) -> str:
    """The message as a pattern: what stands in braces differs from machine to machine."""
    for name, place in PLACES.items():
        told = told.replace(name, place)
    return re.escape(told).replace(re.escape("{line}"), r"\d+")


@pytest.mark.parametrize("mistake", TABLE, ids=lambda mistake: mistake["mistake"].replace(" ", "_"))
def test_a_mistake_is_told_word_for_word(
    mistake: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, text in mistake.get("files", {}).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    before = set(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("NOTHING_SUCH", raising=False)

    started_s = time.process_time()
    code = main(["train", *mistake["typed"]])
    elapsed_s = time.process_time() - started_s
    open_project(tmp_path / "closed")

    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert re.fullmatch(as_pattern(mistake["told"]) + "\n", said.err), said.err
    assert A_PLACE.search(mistake["told"])
    assert elapsed_s < 1
    assert set(tmp_path.rglob("*")) == before, "a mistake must leave nothing behind"


def test_the_table_is_long_and_says_each_mistake_once() -> None:
    assert len(TABLE) >= 60
    assert len({mistake["mistake"] for mistake in TABLE}) == len(TABLE)
    assert len({str(mistake.get("files")) + str(mistake["typed"]) for mistake in TABLE}) == len(TABLE)
