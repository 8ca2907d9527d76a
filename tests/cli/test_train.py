"""`rootflow train` from a user's own folder, to a run folder that says everything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Rootflow

ROOT = str(Path(__file__).parents[2])

QUICK = ("trainer.max_epochs=2", "trainer.batch_size=256")


def the_run(folder: Path) -> Path:
    (found,) = (folder / "runs" / "manual").iterdir()
    return found


def summary(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def test_a_run_leaves_a_folder_that_says_everything(rootflow: Rootflow, tmp_path: Path) -> None:
    done = rootflow("train", *QUICK, "seed=3")
    assert done.returncode == 0, done.stderr
    run = the_run(tmp_path)
    assert done.stdout.splitlines()[-1] == f"run: runs/manual/{run.name}"
    record = summary(run)
    assert record["status"] == "finished"
    assert record["seed"] == 3
    assert record["overrides"] == [*QUICK, "seed=3"]
    assert record["progress"] == {"step": 10, "epoch": 2}
    assert record["stop_reason"] == "max_epochs reached"
    assert 0 < record["test"]["test/accuracy"] <= 1
    assert record["discovered"]["optimizer.lr"]["reason"].startswith("rule for AdamW")
    assert record["discovered"]["model.num_classes"]["value"] == 10
    assert record["dataset"]["num_train"] == 1294
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_epochs"] == 2
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows if "val/accuracy" in row] == [1, 2]
    assert record["best"]["val/accuracy"] == max(row.get("val/accuracy", 0) for row in rows)
    assert "epoch 2/2" in (run / "output.log").read_text()
    for name in ("best", "last"):
        assert (run / "checkpoints" / f"{name}.safetensors").is_file()
        assert "val/accuracy" in json.loads((run / "checkpoints" / f"{name}.json").read_text())


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    rootflow: Rootflow, tmp_path: Path
) -> None:
    found = []
    for seed in (0, 0, 1):
        done = rootflow("train", *QUICK, f"seed={seed}")
        assert done.returncode == 0, done.stderr
        run = Path(tmp_path, done.stdout.splitlines()[-1].removeprefix("run: "))
        found.append((run / "checkpoints" / "last.safetensors").read_bytes())
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_a_users_own_model_needs_a_yaml_and_a_class(rootflow: Rootflow, tmp_path: Path) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mynet.yaml").write_text("# A net of mine.\nname: mynet\n")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mynet.py").write_text(
        "from rootflow import register\nfrom torch import nn\n\n\n@register\nclass MyNet(nn.Module):\n"
        "    def __init__(self, in_features: int, num_classes: int, width: int = 8):\n"
        "        super().__init__()\n        self.layers = nn.Sequential(\n"
        "            nn.Flatten(), nn.Linear(in_features, width), nn.ReLU(), nn.Linear(width, num_classes))\n\n"
        "    def forward(self, x):\n        return self.layers(x)\n"
    )
    done = rootflow("train", "model=mynet", "model.width=3", *QUICK)
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load((the_run(tmp_path) / "config.yaml").read_text())
    assert config["model"] == {"name": "mynet", "in_features": "auto", "num_classes": "auto", "width": 3}
    assert "mynet" in rootflow("list", "model").stdout


def test_any_importable_class_is_a_model_by_its_target(rootflow: Rootflow, tmp_path: Path) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "theirs.yaml").write_text("_target_: some_package.Net\nout_features: 10\n")
    package = tmp_path / "site" / "some_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .nets import Net\n")
    (package / "nets.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self, out_features: int, bias: bool = True):\n"
        "        super().__init__()\n        self.layer = nn.Linear(64, out_features, bias=bias)\n\n"
        "    def forward(self, x):\n        return self.layer(x.flatten(1))\n"
    )
    done = rootflow(
        "train", "model=theirs", "model.bias=false", *QUICK, PYTHONPATH=f"{tmp_path / 'site'}:{ROOT}"
    )
    assert done.returncode == 0, done.stderr
    assert (
        "model.bia does not exist (command line). Did you mean 'bias'?"
        in rootflow("train", "model=theirs", "model.bia=1", PYTHONPATH=f"{tmp_path / 'site'}:{ROOT}").stderr
    )


def test_a_users_own_data_set_may_be_a_plain_one(rootflow: Rootflow, tmp_path: Path) -> None:
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "mine.yaml").write_text("name: mine\n")
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "mine.py").write_text(
        "import torch\nfrom rootflow import register\n\n\n@register\nclass Mine(torch.utils.data.Dataset):\n"
        "    num_classes = 3\n    def __init__(self, size: int = 90):\n        self.size = size\n"
        "    def __len__(self):\n        return self.size\n"
        "    def __getitem__(self, i):\n        return torch.full((4,), float(i % 3)), i % 3\n"
    )
    done = rootflow(
        "train", "dataset=mine", "dataset.size=120", "trainer.max_epochs=2", "loader.num_workers=0"
    )
    assert done.returncode == 0, done.stderr
    record = summary(the_run(tmp_path))
    assert record["discovered"]["model.num_classes"]["value"] == 3
    assert record["dataset"]["num_test"] == 24


def test_many_runs_are_made_by_values_with_commas(rootflow: Rootflow, tmp_path: Path) -> None:
    done = rootflow("train", "-m", "optimizer=adamw,sgd", "seed=0,1", *QUICK)
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "runs" / "sweeps").iterdir()
    assert done.stdout.splitlines()[-1] == f"sweep: runs/sweeps/{sweep.name}"
    runs = [path for path in sweep.iterdir() if path.is_dir()]
    found = {(summary(run)["config"]["optimizer"]["name"], summary(run)["seed"]) for run in runs}
    assert found == {("AdamW", 0), ("AdamW", 1), ("SGD", 0), ("SGD", 1)}
    assert {summary(run)["status"] for run in runs} == {"finished"}
    listed = json.loads(rootflow("runs", "list", "--json").stdout)
    assert len(listed) == 4


def test_one_failing_run_of_many_does_not_end_the_others(rootflow: Rootflow, tmp_path: Path) -> None:
    done = rootflow("train", "-m", "optimizer.lr=1e38,0.01", *QUICK, "optimizer=sgd")
    assert done.returncode == 1
    assert "no gradient was finite in 5 updates" in done.stderr
    assert "optimizer.lr=1e+38" in done.stderr
    assert "1 of 2 runs finished" in done.stdout
    listed = json.loads(rootflow("runs", "list", "--json").stdout)
    assert sorted(run["status"] for run in listed) == ["failed", "finished"]


def test_a_bug_in_a_users_model_keeps_its_traceback_in_the_run(rootflow: Rootflow, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "bad.py").write_text(
        "from rootflow import register\nfrom torch import nn\n\n\n@register\nclass Bad(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.layer = nn.Linear(64, 10)\n"
        "    def forward(self, x):\n        return self.layer(x.nothing)\n"
    )
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "bad.yaml").write_text("name: bad\n")
    done = rootflow("train", "model=bad", *QUICK)
    assert done.returncode == 1
    assert "AttributeError: 'Tensor' object has no attribute 'nothing'" in done.stderr
    run = the_run(tmp_path)
    assert "bad.py" in (run / "output.log").read_text()
    assert summary(run)["status"] == "failed"
    assert summary(run)["error"]["type"] == "AttributeError"


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_that_it_was_interrupted(tmp_path: Path, sent: int, code: int) -> None:
    env = os.environ | {"WANDB_MODE": "disabled", "PYTHONPATH": ROOT}
    process = subprocess.Popen(
        [sys.executable, "-m", "rootflow", "train", "trainer.max_epochs=100000"],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 2"):
            break
    process.send_signal(sent)
    process.stdout.close()
    assert process.wait(timeout=30) == code
    assert summary(the_run(tmp_path))["status"] == "interrupted"


def test_output_that_is_not_a_terminal_is_plain_lines(rootflow: Rootflow) -> None:
    printed = rootflow("train", *QUICK).stdout
    assert "\r" not in printed
    assert "\x1b" not in printed
    assert printed.isascii()
    assert sum(line.startswith("epoch ") for line in printed.splitlines()) == 2


def test_the_config_shown_is_the_config_that_runs(rootflow: Rootflow, tmp_path: Path) -> None:
    shown = yaml.safe_load(rootflow("config", *QUICK, "optimizer=sgd").stdout)
    assert rootflow("train", *QUICK, "optimizer=sgd").returncode == 0
    assert yaml.safe_load((the_run(tmp_path) / "config.yaml").read_text()) == shown
    assert yaml.safe_load(rootflow("train", "--cfg", "job", *QUICK, "optimizer=sgd").stdout) == shown


def test_the_help_of_train_lists_groups_and_flags(rootflow: Rootflow) -> None:
    printed = rootflow("train", "--help").stdout
    assert "dataset    cifar, cifar10, cifar100, csv, digits" in printed
    assert "--multirun" in printed


def test_hydras_own_views_work(rootflow: Rootflow) -> None:
    assert "rootflow://" in rootflow("train", "--info", "searchpath").stdout
    assert "sweep:" in rootflow("train", "--cfg", "hydra").stdout
    assert rootflow("train", "--cfg", "job", "--package", "seed", "seed=5").stdout == "5\n"


def test_a_registered_model_is_an_option_without_a_file(rootflow: Rootflow, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "bare.py").write_text(
        "from rootflow import register\nfrom rootflow.models.mlp import MLP\n\n\n@register\n"
        "class Bare(MLP):\n    '''A bare one.'''\n"
    )
    done = rootflow("train", "model=bare", "model.hidden=[8]", *QUICK)
    assert done.returncode == 0, done.stderr
    assert summary(the_run(tmp_path))["config"]["model"]["hidden"] == [8]
    assert "project   A bare one." in rootflow("list", "model").stdout
    assert "Did you mean 'bare'?" in rootflow("train", "model=bar").stderr


def test_a_pipe_whose_reader_went_away_does_not_end_the_training(tmp_path: Path) -> None:
    command = f"{sys.executable} -m rootflow train trainer.max_epochs=4 trainer.batch_size=256 | head -1"
    env = os.environ | {"WANDB_MODE": "disabled", "PYTHONPATH": ROOT, "HOME": str(tmp_path)}
    subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, env=env, check=True, capture_output=True
    )
    assert summary(the_run(tmp_path))["status"] == "finished"


def test_a_signal_that_comes_twice_does_not_cost_the_weights(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "rootflow", "train", "trainer.max_epochs=100000", "model.hidden=[1000,1000]"],
        cwd=tmp_path,
        env=os.environ | {"WANDB_MODE": "disabled", "PYTHONPATH": ROOT, "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 2"):
            break
    process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    told = process.stdout.read()
    process.stdout.close()
    assert process.wait(timeout=30) == 130
    run = the_run(tmp_path)
    assert summary(run)["status"] == "interrupted"
    assert f"ended early; what there is: runs/manual/{run.name}" in told
    assert {p.name for p in (run / "checkpoints").iterdir()} >= {"best.safetensors", "last.safetensors"}


def test_a_place_that_can_not_be_written_is_told(rootflow: Rootflow, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    done = rootflow("train", *QUICK)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no folder can be made in runs/manual: ")


def test_a_seed_may_come_from_the_environment(rootflow: Rootflow, tmp_path: Path) -> None:
    done = rootflow(
        "train",
        "seed=${oc.env:MY_SEED}",
        "trainer.max_epochs=${oc.env:MY_EPOCHS}",
        MY_SEED="7",
        MY_EPOCHS="1",
    )
    assert done.returncode == 0, done.stderr
    assert summary(the_run(tmp_path))["seed"] == 7


def test_numbers_to_predict_are_found_in_the_data(rootflow: Rootflow, tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "pairs.py").write_text(
        "import torch\nfrom rootflow import register\n\n\n@register\ndef pairs():\n"
        "    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))\n"
        "    return torch.utils.data.TensorDataset(x, torch.stack([x[:, 0] + 5, x.sum(1)], 1))\n"
    )
    done = rootflow("train", "dataset=pairs", "scheduler=reduce_lr_on_plateau", OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    record = summary(the_run(tmp_path))
    assert record["discovered"]["task.name"]["value"] == "regression"
    assert record["discovered"]["model.num_classes"]["value"] == 2
    assert record["discovered"]["scheduler.mode"]["value"] == "min"
    assert record["test"]["test/mae"] < 0.5


def test_data_without_targets_is_refused_before_a_folder_is_made(rootflow: Rootflow, tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "bare.py").write_text(
        "import torch\nfrom rootflow import register\n\n\n@register\ndef bare():\n"
        "    return torch.utils.data.TensorDataset(torch.zeros(30, 3))\n"
    )
    done = rootflow("train", "dataset=bare")
    assert done.returncode == 1
    assert "has no targets that tell what to learn" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_no_secret_of_the_config_is_written_anywhere(rootflow: Rootflow, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.py").write_text(
        "from rootflow import register\nfrom rootflow.models.mlp import MLP\n\n\n@register\n"
        "def mine(in_features: int, num_classes: int, password: str = ''):\n    return MLP(in_features, num_classes)\n"
    )
    secret = "hunter2"
    for many in ([], ["-m"]):
        done = rootflow(
            "train", *many, "model=mine", f"model.password={secret}", *QUICK, WANDB_MODE="offline"
        )
        assert done.returncode == 0, done.stderr
        assert secret not in done.stdout
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 10
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
