"""`rootflow new`: what it makes trains at once, and nothing is half made."""

from __future__ import annotations

import compileall
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rootflow.cli.new import KINDS
from tests.cli.conftest import Rootflow

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "rootflow" / "template"

PROJECT = [
    ".gitignore",
    "Makefile",
    "README.md",
    "conf/config.yaml",
    "conf/dataset/spirals.yaml",
    "conf/experiment/long_spirals.yaml",
    "conf/model/small_net.yaml",
    "datasets/spirals.py",
    "models/small_net.py",
    "requirements.txt",
    "sweeps/width.yaml",
    "tests/conftest.py",
    "tests/test_spirals.py",
]


def files_in(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def records(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((folder / "runs").rglob("run.json"))]


def test_a_new_project_trains_at_once_and_well(rootflow: Rootflow, tmp_path: Path) -> None:
    made = rootflow("new", "work/demo")
    assert made.returncode == 0, made.stderr
    demo = tmp_path / "work" / "demo"
    assert files_in(tmp_path) == [f"work/demo/{name}" for name in PROJECT]
    assert made.stdout.splitlines()[:14] == ["work/demo/", *(f"  {name}" for name in PROJECT)]
    assert made.stdout.splitlines()[14:17] == ["next:", "  cd work/demo", "  rootflow train"]
    assert (demo / "README.md").read_text().startswith("# demo\n")
    done = rootflow("train", "trainer.max_epochs=15", cwd=demo)
    assert done.returncode == 0, done.stderr
    (record,) = records(demo)
    assert (record["config"]["model"]["name"], record["config"]["dataset"]["name"]) == (
        "small_net",
        "spirals",
    )
    assert record["test"]["test/accuracy"] > 0.95


def test_the_experiment_and_the_sweep_of_a_new_project_run(rootflow: Rootflow, tmp_path: Path) -> None:
    rootflow("new", "demo")
    demo = tmp_path / "demo"
    done = rootflow(
        "train", "-m", "+sweeps=width", "experiment=long_spirals", "trainer.max_epochs=1", cwd=demo
    )
    assert done.returncode == 0, done.stderr
    configs = [record["config"] for record in records(demo)]
    assert sorted((c["model"]["width"], c["seed"]) for c in configs) == [(8, 0), (8, 1), (64, 0), (64, 1)]
    assert {config["dataset"]["num_turns"] for config in configs} == {3.0}


def test_make_test_passes_in_a_new_project(rootflow: Rootflow, tmp_path: Path) -> None:
    rootflow("new", "demo")
    env = os.environ | {"PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["make", "test"], cwd=tmp_path / "demo", env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


def test_new_components_of_every_kind_train_at_once_also_where_there_is_no_project(
    rootflow: Rootflow, tmp_path: Path
) -> None:
    printed = {kind: rootflow("new", kind, f"my_{kind}").stdout.splitlines() for kind in KINDS}
    assert printed["model"] == [
        "new folders: conf/, models/; rootflow reads them in the folder where it is run",
        "conf/model/my_model.yaml",
        "models/my_model.py",
        "try: rootflow train model=my_model",
    ]
    assert printed["sweep"][-2:] == ["sweeps/my_sweep.yaml", "try: rootflow train -m +sweeps=my_sweep"]
    groups = [kind for kind in KINDS if kind != "sweep"]
    chosen = [f"{group}=my_{group}" for group in groups]
    few = ("dataset.num_samples=64", "trainer.max_epochs=1")
    done = rootflow("train", "-m", *chosen, "+sweeps=my_sweep", *few)
    assert done.returncode == 0, done.stderr
    assert "6 of 6 runs finished" in done.stdout
    config = records(tmp_path)[0]["config"]
    assert [config[group]["name"] for group in groups if group != "experiment"] == [
        f"my_{group}" for group in groups if group != "experiment"
    ]


def test_a_name_in_camel_case_gives_a_file_in_snake_case_and_that_class(
    rootflow: Rootflow, tmp_path: Path
) -> None:
    for name in ("MyNet", "other_net"):
        done = rootflow("new", "model", name)
        assert done.returncode == 0, done.stderr
    assert '\n@register(name="my_net")\nclass MyNet(' in (tmp_path / "models" / "my_net.py").read_text()
    assert '\n@register(name="other_net")\nclass OtherNet(' in (tmp_path / "models/other_net.py").read_text()
    assert "\nname: my_net " in (tmp_path / "conf" / "model" / "my_net.yaml").read_text()
    listed = rootflow("list", "model").stdout
    assert listed.count("project   Two hidden layers.") == 2
    assert "mynet" not in listed


REFUSED = {
    "model": "`rootflow new model` says no name. For a model: rootflow new model NAME. For a project in a",
    "modle net": "there is no kind 'modle'. Did you mean 'model'?",
    "model my-net": "'my-net' is no name for a model. Did you mean 'my_net'? It must be",
    "model class": "'class' is no name for a model. It must be",
    "dataset yes": "'yes' is no name for a dataset. It must be",
    "model ../net": "'../net' is no name for a model. Did you mean 'net'?",
    "model mlp": "model=mlp is there already (/",
    "scheduler WarmupDecay": "scheduler=warmup_decay is there already (rootflow.optim.schedules.WarmupDecay); a new",
    "experiment cifar_resnet": "experiment=cifar_resnet is there already (/",
    "sweep seeds": "sweeps=seeds is there already (/",
    "dataset torch": "'torch' is something else in the new Python file.",
    "model tensor": "'Tensor' is something else in the new Python file.",
    "scheduler max": "'max' is something else in the new Python file.",
    "a=b": "'a=b' is no name for a project; it must be letters",
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_name_that_can_not_be_is_refused_and_nothing_is_written(
    rootflow: Rootflow, tmp_path: Path, words: str
) -> None:
    done = rootflow("new", *words.split())
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert REFUSED[words] in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(rootflow: Rootflow, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.py").write_text("# mine\n")
    (tmp_path / "taken").write_text("a file\n")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "models" / "link.py").symlink_to("nowhere")
    for words, told in {
        ("model", "mine"): "models/mine.py is there already. Choose another name, or remove it.",
        ("taken",): "taken is there already, and no folder. Choose another name, or remove it.",
        ("gone",): "gone is there already, and no folder. Choose another name, or remove it.",
        ("model", "link"): "models/link.py is there already. Choose another name, or remove it.",
        ("models",): "models/ is not empty: it has link.py, mine.py. Choose a new or an empty folder.",
    }.items():
        done = rootflow("new", *words)
        assert (done.returncode, done.stderr) == (2, f"error: {told}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gone", "models", "taken"]
    assert files_in(tmp_path) == ["models/mine.py", "taken"]


def test_a_project_may_go_into_an_empty_folder_or_a_fresh_repository(
    rootflow: Rootflow, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "cloned" / ".git").mkdir(parents=True)
    for words, folder in ((["empty"], tmp_path), (["."], tmp_path / "cloned")):
        done = rootflow("new", *words, cwd=folder)
        assert done.returncode == 0, done.stderr
    assert files_in(tmp_path / "empty") == files_in(tmp_path / "cloned") == PROJECT
    assert (tmp_path / "cloned" / "README.md").read_text().startswith("# cloned\n")
    assert "cd " not in done.stdout


def test_nothing_is_left_when_the_disk_refuses_half_way(rootflow: Rootflow, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words in ("far/demo", "empty", "model my_net"):
        # files of more than a kilobyte can't be written, as on a full disk
        command = f"ulimit -f 1; exec {sys.executable} -m rootflow new {words}"
        env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr.endswith(" can't be made: File too large. Nothing was written.\n")
        assert [path.name for path in tmp_path.rglob("*")] == ["empty"]
    (tmp_path / "models").write_text("a file where a folder must be\n")
    done = rootflow("new", "model", "my_net")
    assert done.returncode == 1
    assert done.stderr == "error: models/my_net.py can't be made: File exists. Nothing was written.\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "models"]


def test_what_was_already_in_place_goes_when_the_rest_can_not_follow(
    rootflow: Rootflow, tmp_path: Path
) -> None:
    (tmp_path / "models").symlink_to("nowhere")  # conf/ comes first, then no folder can be put here
    done = rootflow("new", "model", "my_net")
    assert done.returncode == 1
    assert done.stderr == "error: models can't be made: Not a directory. Nothing was written.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_an_installed_rootflow_makes_the_same_project(rootflow: Rootflow, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    installed = tmp_path / "site" / "rootflow" / "template"
    kept = [name for name in files_in(TEMPLATE) if "__pycache__" not in name and "_cache/" not in name]
    assert files_in(installed) == kept
    compileall.compile_dir(installed, quiet=1)  # as an installer does
    assert list(installed.rglob("*.pyc"))
    (installed / "project" / "README.md").write_text("# new_name, from the wheel\n")
    done = rootflow("new", "demo", PYTHONPATH=str(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    assert files_in(tmp_path / "demo") == PROJECT
    assert (tmp_path / "demo" / "README.md").read_text() == "# demo, from the wheel\n"


def test_what_is_made_is_formatted_linted_and_short(rootflow: Rootflow, tmp_path: Path) -> None:
    rootflow("new", ".")
    for kind in KINDS:
        rootflow("new", kind, f"my_{kind}")
    ruff = [sys.executable, "-m", "ruff"]
    rules = "E,W,F,I,B,UP,N,SIM,PTH,RET,C4,PIE,PT,RUF,TID,ARG,FBT,T20,BLE,ERA"
    for command in (["check", f"--select={rules}", "--ignore=N812"], ["format", "--check"]):
        done = subprocess.run(
            [*ruff, *command, "--isolated", "--no-cache", "."],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
    lines = {name: (tmp_path / name).read_text().splitlines() for name in files_in(tmp_path)}
    assert {name: len(text) for name, text in lines.items() if len(text) > 60} == {}
    assert [name for name, text in lines.items() if "new_name" in "\n".join(text) + name] == []


def test_the_help_shows_both_uses_and_every_kind(rootflow: Rootflow) -> None:
    printed = rootflow("new", "--help").stdout
    assert "rootflow new NAME " in printed
    assert "rootflow new KIND NAME " in printed
    assert "kinds: model, dataset, task, optimizer, scheduler, experiment, sweep\n" in printed
    assert sorted([*KINDS, "project"]) == sorted(
        path.name for path in TEMPLATE.iterdir() if path.name[0] != "."
    )
