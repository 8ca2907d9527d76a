"""Composing in an empty project folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootflow.config.compose import open_composer
from rootflow.config.schema import Config
from rootflow.registry import open_project

Compose = Callable[..., Config]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's own project: the current folder, with a conf/model and models/ in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "models").mkdir()
    open_project(tmp_path)
    yield tmp_path
    open_project(tmp_path / "closed")


@pytest.fixture
def compose(project: Path) -> Compose:
    """Compose overrides there."""

    def call(*overrides: str, extra: Path | None = None) -> Config:
        with open_composer(extra=extra) as composer:
            return composer.compose(list(overrides))

    return call
