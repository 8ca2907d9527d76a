"""The pieces alone, each in a script of a few lines, where neither hydra nor omegaconf can be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples import isolated

FOLDER = Path(__file__).parents[2] / "examples" / "components"
SAID = {
    "checkpoints": "began with step 1; [2, 3] are on the disk\nbegan with step 4; [5, 6] are on the disk",
    "early_stopping": "stopped after epoch 4; the best is epoch 2 with 0.5",
    "find_lr": "between 0.05 and 1: True",
    "ema": "the weight is 2.0, its average 1.25",
    "run_folder": "finished, 3 rows, last {'train/loss': 0.3333333333333333}",
    "seeding": "drawn again: True",
    "tensor_loader": "another order: True; the rest again: True",
    "trainer": "max_epochs reached; the best of 30 updates is 30",
    "wandb_mirror": "offline, 1 file to sync",
    "warmup_decay": "[0.25, 0.75, 1.0, 1.0, 0.65, 0.39, 0.21, 0.06]",
    "weight_decay": "0.1 [(16, 8), (2, 16)]\n0.0 [(16,), (16,), (16,), (2,)]",
}
ABOVE_COMPONENTS = ("cli", "experiment", "assemble")
MOST_LINES = 15


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which every script was run; `checkpoints` twice, and one that imports hydra."""
    where = tmp_path_factory.mktemp("components")
    forbidden = where / "forbidden.py"
    forbidden.write_text("try:\n    import hydra\nexcept ImportError as error:\n    print(error)\n")
    scripts = [FOLDER / f"{name}.py" for name in (*SAID, "checkpoints")]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(where),
        "WANDB_MODE": "offline",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, isolated.__file__, *map(str, scripts), str(forbidden)],
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return where


def test_every_script_is_run_here() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.py")) == sorted(SAID)


@pytest.mark.parametrize("name", SAID)
def test_a_piece_works_without_hydra_in_a_few_lines(name: str, ran: Path) -> None:
    lines = [line for line in (FOLDER / f"{name}.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= MOST_LINES
    assert (ran / name / "exit_code.txt").read_text() == "0"
    assert (ran / name / "stdout.txt").read_text().strip() == SAID[name]


@pytest.mark.parametrize("name", SAID)
def test_a_piece_brings_nothing_of_the_experiment_or_the_command(name: str, ran: Path) -> None:
    modules = (ran / name / "modules.txt").read_text().split()
    assert any(module.startswith("rootflow.") for module in modules)
    above = {f"rootflow.{layer}" for layer in ABOVE_COMPONENTS}
    assert not [module for module in modules if ".".join(module.split(".")[:2]) in above]
    assert not [module for module in modules if module.partition(".")[0] in isolated.FORBIDDEN]


def test_hydra_can_not_be_imported_where_they_ran(ran: Path) -> None:
    assert (ran / "forbidden" / "stdout.txt").read_text() == "hydra is forbidden here\n"
