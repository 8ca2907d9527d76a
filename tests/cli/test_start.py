"""Commands that should answer at once: what they import, counted; how long they take is in benchmarks/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "wandb", "sklearn", "numpy", "rich", "safetensors", "pandas", "matplotlib")


def imported_by(arguments: list[str], folder: Path) -> set[str]:
    """Run `rootflow ARGUMENTS` in a fresh process; return the top-level modules that it loaded."""
    code = (
        "import sys, io, contextlib\n"
        "from rootflow.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): code = main(sys.argv[1:])\n"
        "print(*sorted({m.partition('.')[0] for m in sys.modules}))\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "also_absent"),
    [
        (["--help"], ("hydra", "omegaconf", "yaml", "inspect")),
        (["runs", "list"], ("hydra", "omegaconf", "yaml")),
        (["list", "model"], ("hydra", "omegaconf")),
        (["list", "optimizer", "adamw"], ("hydra", "omegaconf")),
        (["train", "--help"], ("hydra", "omegaconf")),
        (["train", "--cfg", "job"], ()),
        (
            [
                "config",
                "model=resnet",
                "dataset=cifar",
                "optimizer=sgd",
                "scheduler=one_cycle_lr",
                "epochs=9",
            ],
            (),
        ),
    ],
)
def test_commands_that_do_not_train_import_nothing_heavy(
    tmp_path: Path, arguments: list[str], also_absent: tuple[str, ...]
) -> None:
    loaded = imported_by(arguments, tmp_path)
    assert "rootflow" in loaded
    assert not loaded & {*HEAVY, *also_absent}
