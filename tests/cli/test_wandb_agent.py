"""W&B's own agent, against a server on the loopback interface, starts runs with exactly its parameters."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rootflow.config.plain_yaml import escaped
from tests.tracking.wandb_server import API_KEY, WandbServer

DOCS = Path(__file__).parents[2] / "docs" / "wandb_sweeps.md"
PROGRAMS = Path(sys.executable).parent

PARAMETERS: dict[str, Any] = {
    "model": {"values": ["mlp", "convnet"]},
    "lr": {"value": 1e-05},
    "name": {"value": "a, b=(c) ${x}"},
    "tracking.wandb.notes": {"value": None},
    "tracking.wandb.group": {"value": "1e3"},
    "optimizer": {"parameters": {"betas": {"value": [0.8, 0.9]}, "amsgrad": {"value": True}}},
    "trainer.max_steps": {"value": 2},
    "trainer.max_epochs": {"value": 1},
    "trainer.batch_size": {"value": 32},
}


def documented_sweep() -> dict[str, Any]:
    """The YAML of the docs, with other parameters."""
    text = DOCS.read_text().partition("```yaml\n")[2].partition("```")[0]
    return {**yaml.safe_load(text), "method": "grid", "parameters": PARAMETERS}


def environment(server: WandbServer, home: Path) -> dict[str, str]:
    """Nothing of the machine's own account, and no server but ours."""
    env = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("WANDB", "ROOTFLOW")) and "proxy" not in k.lower()
    }
    folders = ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "XDG_CACHE_HOME", "NETRC")
    return {
        **env,
        **dict.fromkeys(folders, str(home)),
        "PATH": os.pathsep.join([str(PROGRAMS), env.get("PATH", "")]),
        "OMP_NUM_THREADS": "1",
        "WANDB_BASE_URL": server.url,
        "WANDB_API_KEY": API_KEY,
    }


@pytest.mark.slow
def test_the_runs_of_an_agent_have_its_parameters_exactly_and_belong_to_its_sweep(tmp_path: Path) -> None:
    if shutil.which("rootflow", path=PROGRAMS) is None or shutil.which("wandb", path=PROGRAMS) is None:
        pytest.skip("the commands rootflow and wandb aren't installed beside python")
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(documented_sweep(), sort_keys=False))
    with WandbServer() as server:

        def wandb(*arguments: str) -> str:
            done = subprocess.run(
                [PROGRAMS / "wandb", *arguments],
                cwd=tmp_path,
                env=environment(server, tmp_path / "home"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stdout
            return done.stdout

        assert "wandb agent tester/rootflow/sweep0" in wandb("sweep", "sweep.yaml")
        shown = wandb("agent", "--count", "2", "tester/rootflow/sweep0")

    folders = sorted((tmp_path / "runs" / "manual").glob("*"))
    assert len(folders) == 2, shown
    records = [json.loads((folder / "run.json").read_text()) for folder in folders]
    assert [record["status"] for record in records] == ["finished", "finished"], shown
    for record, folder, model in zip(records, folders, ("mlp", "convnet"), strict=True):
        config = record["config"]
        assert yaml.safe_load((folder / "config.yaml").read_text()) == escaped(config)
        assert config["model"]["name"] == model
        assert config["name"] == "a, b=(c) ${x}"
        assert config["tracking"]["wandb"]["notes"] is None
        assert config["tracking"]["wandb"]["group"] == "1e3"
        assert (config["optimizer"]["lr"], config["optimizer"]["betas"]) == (1e-05, [0.8, 0.9])
        assert config["optimizer"]["amsgrad"] is True
        assert (config["trainer"]["max_steps"], config["trainer"]["max_epochs"]) == (2, 1)
        assert record["progress"]["step"] == 2
    assert [record["wandb"]["id"] for record in records] == list(server.sweeps["sweep0"].runs)
    assert [run.about["sweep"] for run in server.runs.values()] == ["sweep0", "sweep0"]
    assert [run.exit_code for run in server.runs.values()] == [0, 0]
    assert server.unknown == []
