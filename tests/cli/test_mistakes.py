"""What a user who makes a mistake is told: one paragraph that names key, place, what is allowed."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path

import pytest

from tests.cli.conftest import Rootflow


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["model.dpeth=50"],
            r"model\.dpeth does not exist \(command line\)\. rootflow\.models\.mlp\.MLP .* takes .*hidden",
        ),
        (
            ["model=resnet", "model.dpeth=50"],
            r"model\.dpeth does not exist \(command line\)\. Did you mean 'depth'\?",
        ),
        (
            ["model=resnt"],
            r"model has no option 'resnt'\. Did you mean 'resnet'\? Options: convnet, mlp, resnet\.",
        ),
        (
            ["trainer.batch_size=-3"],
            r"trainer\.batch_size is -3 \(command line\); it must be a whole number at least 1 or 'auto'\.",
        ),
        (["modle=resnet"], r"modle is no setting \(command line\)\. Did you mean 'model'\?"),
        (["seed=-1"], r"seed is -1 \(command line\); it must be a whole number"),
        (["trainer.precision=fp8"], r"trainer\.precision is 'fp8' .* must be 'auto' or 'fp32' or 'bf16'\."),
        (["optimizer.lr=abc"], r"optimizer\.lr is 'abc' \(command line\); it must be a number"),
        (["model.hidden=[64,x]"], r"model\.hidden is \[64, 'x'\] .* a list of a whole number"),
        (["dataset=csv"], r"dataset\.path has no value; it must be text\. Set it: dataset\.path=\.\.\."),
        (["model.hidden=${nothing}"], r"model\.hidden: Interpolation key 'nothing' not found"),
        (
            ["experiment=nothing"],
            r"experiment has no option 'nothing'\. Options: cifar_resnet, fashion_convnet\.",
        ),
        (
            ["optimizer.lr=-0.1"],
            r"optimizer\.lr is -0\.1 \(command line\); it must be a number above 0 or 'auto'\.",
        ),
        (
            ["optimizer=sgd", "optimizer.lr=0"],
            r"optimizer\.lr is 0 \(command line\); it must be a number above 0",
        ),
        (["--cfg", "job", "--package", "optimzer"], r"no such part\. Did you mean 'optimizer'"),
        (["model=1"], r"Config group override must be a string.*write the option in quotes"),
        (["hydra.run.dir=foo"], r"hydra\.run\.dir \(command line\) can't be set"),
        (["name=a b/c\u00df("], r"'name=a b/c\u00df\(' \(command line\) can't be read"),
        (["optimizer=adamw,sgd"], r"-m"),
        (["model=["], r"'model=\[' \(command line\) can't be read"),
        (["--config-dir", "nowhere"], r"--config-dir nowhere is not a folder"),
        (["--config-name", "nothing"], r"there is no config 'nothing'"),
        (["+sweeps=nothing"], r"sweeps has no option 'nothing'"),
        (["model._target_=nowhere.Net"], r"importing nowhere\.Net failed: ModuleNotFoundError"),
        (["model.name=nothing"], r"model\.name is 'nothing', which is not registered"),
        (["trainer.device=nonsense"], r"trainer\.device is 'nonsense', which can't be used here"),
    ],
)
def test_a_wrong_config_is_one_paragraph_and_leaves_nothing(
    rootflow: Rootflow, tmp_path: Path, arguments: list[str], told: str
) -> None:
    done = rootflow("train", *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
    assert re.search(told, done.stderr), done.stderr
    assert not (tmp_path / "runs").exists()


def test_all_mistakes_are_told_at_once(rootflow: Rootflow) -> None:
    done = rootflow("train", "model.dpeth=50", "trainer.batch_size=-3", "optimizer.lrr=1")
    assert done.returncode == 2
    assert "3 mistakes" in done.stderr
    for key in ("model.dpeth", "trainer.batch_size", "optimizer.lrr"):
        assert f"  - {key} " in done.stderr


def test_a_mistake_in_a_file_is_told_with_its_line(rootflow: Rootflow, tmp_path: Path) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("# mine\nname: mlp\nhiden: [3]\ndropout: 2\n")
    done = rootflow("train", "model=mine")
    assert "model.hiden does not exist (conf/model/mine.yaml:3). Did you mean 'hidden'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert (
        "model.dropout is 2 (conf/model/mine.yaml:4); it must be a number at least 0 and at most 1."
        in done.stderr
    )


def test_yaml_that_can_not_be_read_is_told_with_its_line(rootflow: Rootflow, tmp_path: Path) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("name: mlp\nhidden: [3\nx: 1\n")
    done = rootflow("train", "model=mine")
    assert done.returncode == 2
    assert re.search(r"mine\.yaml:\d: ", done.stderr), done.stderr


def test_one_bad_job_of_many_is_told_before_the_first_starts(rootflow: Rootflow, tmp_path: Path) -> None:
    done = rootflow("train", "-m", "trainer.batch_size=16,32,-3", "seed=0,1")
    assert done.returncode == 2
    assert "trainer.batch_size is -3" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_data_set_that_is_not_there_leaves_nothing(rootflow: Rootflow, tmp_path: Path) -> None:
    done = rootflow(
        "train", "dataset=cifar", f"dataset.root={tmp_path / 'nowhere'}", "dataset.download=false"
    )
    assert done.returncode == 1
    assert str(tmp_path / "nowhere") in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "nowhere").exists()


def test_a_column_that_is_not_there_is_told_with_those_that_are(rootflow: Rootflow, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("height,weight,kind\n1,2,a\n2,3,b\n")
    done = rootflow("train", "dataset=csv", "dataset.path=t.csv", "dataset.target=knd")
    assert done.returncode == 1
    assert re.search(r"error: .*t\.csv.*'knd'.*Did you mean 'kind'.*height", done.stderr, re.DOTALL), (
        done.stderr
    )
    assert not (tmp_path / "runs").exists()


def test_a_truncated_file_is_told_with_its_sizes(rootflow: Rootflow, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        with gzip.open(folder / f"{part}-images-idx3-ubyte.gz", "wb", compresslevel=1) as file:
            file.write(struct.pack(">IIII", 2051, count, 28, 28) + bytes(count * 784 - 100))
        with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(struct.pack(">II", 2049, count) + bytes(count))
    done = rootflow("train", "dataset=mnist", f"dataset.root={tmp_path / 'data'}", "dataset.download=false")
    assert done.returncode == 1
    assert "train-images-idx3-ubyte.gz" in done.stderr
    assert re.search(r"47,039,9\d\d|47,040,0\d\d", done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_unknown_verb_is_told_the_nearest(rootflow: Rootflow) -> None:
    done = rootflow("trian")
    assert (done.returncode, done.stderr) == (
        2,
        "error: there is no verb 'trian'. Did you mean 'train'? Verbs: train, config, list, runs.\n",
    )
