"""Lets the tests find what models/ and datasets/ register, as `rootflow train` does."""

from __future__ import annotations

from pathlib import Path

from rootflow.registry import open_project

open_project(Path(__file__).parents[1])
