"""SIGKILL at random instants of a training loses nothing, most of them in the middle of a save."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="each life of the training is a fork")
def test_twenty_kills_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.train.kill_storm", str(tmp_path), "--kills", "20"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
    counts = json.loads(done.stdout)
    assert counts["kills"] == 20
    assert counts["inside_a_save"] >= 6
    assert (counts["lost"], counts["corrupted"]) == (0, 0)
    assert counts["equal"] == counts["trainings"] >= 1
