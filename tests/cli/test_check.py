"""`rootflow check` and `rootflow config`, as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml

from tests.cli.conftest import Rootflow


def test_a_right_experiment_is_checked_without_a_trace(rootflow: Rootflow, tmp_path: Path) -> None:
    done = rootflow("check", "model=resnet")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ok: experiment ")
    assert len(done.stdout.split()[-1]) == 12
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_experiment_ends_in_2(rootflow: Rootflow) -> None:
    done = rootflow("check", "seed=-1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: seed is -1 (command line); it must be a whole number from 0 to 2**63 - 1.\n"
    )


def test_a_sweep_is_checked_by_its_name(rootflow: Rootflow, tmp_path: Path) -> None:
    assert rootflow("check", "seeds").stdout == "ok: 6 experiments, no two the same\n"
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text(
        "# @package _global_\n# Is it?\nhydra:\n  sweeper:\n    params:\n      seed: 0,-1\n"
    )
    done = rootflow("check", "mine")
    assert done.returncode == 2
    assert "job 1 of 2 (seed=-1 +sweeps=mine): seed is -1 (sweeps/mine.yaml:6)" in done.stderr


def test_one_bad_job_of_200_is_found_without_torch(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom rootflow.cli import main\n"
        "code = main(['check', '-m', 'seed=range(0,20)', 'trainer.max_steps=1,2,3,4,5,6,7,8,9,10', "
        "'optimizer.lr=0.1', '+sweeps=mine'])\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "print(code, sorted(loaded & {'torch', 'wandb', 'numpy', 'rich'}))\n"
    )
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text(
        "# @package _global_\n# Is it?\nhydra:\n  sweeper:\n    params: {}\n"
        "model:\n  dropout: ${eval_199:${seed},${trainer.max_steps}}\n"
    )
    register = (
        "from omegaconf import OmegaConf\n"
        "OmegaConf.register_new_resolver('eval_199', lambda s, m: 2.0 if (s, m) == (19, 7) else 0.5)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", register + script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "2 []\n"
    assert done.stderr == (
        "error: job 196 of 200 (seed=19 trainer.max_steps=7 optimizer.lr=0.1 +sweeps=mine): model.dropout is 2.0 "
        "(sweeps/mine.yaml:7); it must be a number from 0 to 1 (or 0% to 100%).\n"
    )


def test_the_shown_config_is_yaml_with_every_key_and_a_comment(rootflow: Rootflow) -> None:
    shown = rootflow("config", "model=resnet", "model.depth=34").stdout
    config = yaml.safe_load(shown)
    assert config["model"]["depth"] == 34
    assert config["optimizer"]["betas"] == [0.9, 0.999]
    (depth,) = (line for line in shown.splitlines() if line.startswith("  depth:"))
    assert "# layers with weights" in depth
    assert json.loads(rootflow("config", "--json", "model=resnet", "model.depth=34").stdout) == config


def test_the_flat_config_is_overrides_that_give_the_same_config(rootflow: Rootflow) -> None:
    typed = ("model=resnet", "name='a, b'", "tracking.wandb.tags=[x,y z]")
    flat = rootflow("config", "--flat", *typed).stdout.splitlines()
    assert 'name="a, b"' in flat
    again = rootflow("config", "--flat", "model=resnet", *flat).stdout.splitlines()
    assert again == flat
    as_json = json.loads(rootflow("config", "--flat", "--json", *typed).stdout)
    assert (as_json["name"], as_json["tracking.wandb.tags"]) == ("a, b", ["x", "y z"])


def test_the_difference_from_the_defaults_is_shown_with_places(rootflow: Rootflow) -> None:
    assert rootflow("config", "--diff", "seed=3", "lr=0.1").stdout == (
        "optimizer.lr  auto -> 0.1  command line\nseed          0 -> 3       command line\n"
    )
    assert rootflow("config", "--diff").stdout == "nothing differs from the defaults\n"


def test_a_key_is_explained(rootflow: Rootflow, tmp_path: Path) -> None:
    (tmp_path / "conf" / "trainer").mkdir(parents=True)
    (tmp_path / "conf" / "trainer" / "mine.yaml").write_text("name: trainer\nlog_every: 5\n")
    lines = rootflow("config", "explain", "trainer.log_every", "trainer=mine").stdout.splitlines()
    assert lines[0] == "trainer.log_every = 5"
    assert lines[2] == "takes a whole number at least 1 (steps)"
    assert lines[3].startswith("  50  default of rootflow.train.trainer.Trainer (")
    assert lines[4:] == ["  5   conf/trainer/mine.yaml:2  <- holds"]


def test_a_config_is_read_from_a_run_and_from_a_pipe(rootflow: Rootflow, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("model:\n  name: resnet\n  depth: 34\n")
    identity = rootflow("check", "model=resnet", "model.depth=34").stdout
    assert rootflow("check", "--config", "run").stdout == identity
    assert rootflow("check", "--config", "run/config.yaml").stdout == identity
    assert (
        rootflow("check", "--config=run", "model.depth=18").stdout == rootflow("check", "model=resnet").stdout
    )


def test_two_places_to_start_from_are_refused(rootflow: Rootflow) -> None:
    done = rootflow("check", "--config", "a.yaml", "--config-name", "b")
    assert done.returncode == 2
    assert "both say what to start from" in done.stderr


def test_the_difference_of_a_file_is_to_what_train_would_do_by_itself(
    rootflow: Rootflow, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("seed: 4\n")
    assert rootflow("config", "--diff", "--config", "mine.yaml").stdout == "seed  0 -> 4  mine.yaml:1\n"


def test_flags_and_explain_stand_in_any_order(rootflow: Rootflow) -> None:
    first = rootflow("config", "--json", "explain", "lr", "optimizer=sgd")
    assert json.loads(first.stdout)[0]["key"] == "optimizer.lr"
    assert rootflow("config", "explain", "lr", "--json", "optimizer=sgd").stdout == first.stdout
    assert rootflow("config", "explain", "--help").stdout.startswith("usage: rootflow config")


def test_a_closed_input_is_an_error_of_ours(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rootflow", "check", "--config", "-"]
    shell = ["sh", "-c", f"exec {' '.join(command)} <&-"]
    done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("error: --config - (command line)")) == (2, 1)


def test_a_folder_that_is_gone_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    script = f"cd gone && rmdir ../gone && exec {sys.executable} -m rootflow check"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr.splitlines()[-1] == "error: the current folder is no longer there; change to one that is."
    )
