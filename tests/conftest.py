"""What every test has: no search finds what another session found, nor leaves anything behind."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("ROOTFLOW_CACHE")
    os.environ["ROOTFLOW_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["ROOTFLOW_CACHE"]
    else:
        os.environ["ROOTFLOW_CACHE"] = before
