"""What a user who makes a mistake is told by the command itself; tests/config_mistakes.yaml has the words."""

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
            ["model=resnet", "model.dpeth=50"],
            r"model\.dpeth does not exist \(command line\)\. Did you mean 'depth'\?",
        ),
        (["--cfg", "job", "--package", "optimzer"], r"no such part\. Did you mean 'optimizer'"),
        (["model._target_=json.decoder.Nowhere"], r"json/decoder\.py has no Nowhere"),
        (["trainer.device=xpu:3"], r"trainer\.device is 'xpu:3', which can't be used here"),
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
        "error: there is no verb 'trian'. Did you mean 'train'? Verbs: train, resume, tune, check, config, list, runs, new, completion.\n",
    )
