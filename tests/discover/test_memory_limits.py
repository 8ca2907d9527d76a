"""The search against real allocation failures: it finds the largest power of two that fits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

NUM_PAIRS = 42
NUM_RIGHT = 40
"""A size that needs just what there is may fit alone, and not beside what the search has run before."""


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, Any]]:
    """What was found for each pair of a model and a limit, and what is true."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.discover.memory_limit_pairs", str(NUM_PAIRS)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=262144"},
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_what_is_found_is_the_largest_power_of_two_that_fits(pairs: list[dict[str, Any]]) -> None:
    assert len(pairs) == NUM_PAIRS
    wrong = {pair["name"]: (pair["found"], pair["true"]) for pair in pairs if pair["found"] != pair["true"]}
    assert len(wrong) <= NUM_PAIRS - NUM_RIGHT, wrong
    assert all(2 * found == true for found, true in wrong.values()), wrong


@pytest.mark.slow
def test_what_is_found_has_been_run_and_needed_no_more_than_it_may(pairs: list[dict[str, Any]]) -> None:
    for pair in pairs:
        (row,) = [row for row in pair["curve"] if row["size"] == pair["found"]]
        assert row["fits"]
        assert row["peak_bytes"] <= 0.9 * pair["free_bytes"]


@pytest.mark.slow
def test_it_takes_three_runs_of_full_size_at_most(pairs: list[dict[str, Any]]) -> None:
    assert max(pair["num_full_size_tries"] for pair in pairs) <= 3


@pytest.mark.slow
def test_memory_hardly_ever_runs_out_on_the_way(pairs: list[dict[str, Any]]) -> None:
    assert sum(pair["num_out_of_memory"] for pair in pairs) <= NUM_PAIRS // 4
