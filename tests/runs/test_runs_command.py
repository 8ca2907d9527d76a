from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import sys
import termios
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rootflow.cli.runs import run
from rootflow.errors import RunError

ID = "20260102-120000-resnet-cifar-k3f9"
FIELDS = {
    "name": "resnet-cifar",
    "created_at": "2026-01-02T12:00:00.000+00:00",
    "elapsed_s": 200.0,
    "argv": ["rootflow", "train", "model=resnet"],
    "overrides": ["model=resnet", "dataset=cifar"],
    "config": {"model": {"name": "resnet"}, "optimizer": {"name": "AdamW", "lr": 0.1}, "seed": 3},
    "seed": 3,
    "discovered": {"optimizer.lr": {"value": 0.1, "reason": "steepest descent"}},
    "progress": {"epoch": 12, "step": 4800},
    "last": {"val/accuracy": 0.9, "val/loss": "nan"},
    "best": {"monitor": "val/accuracy", "epoch": 9, "step": 3600, "val/loss": 0.3, "val/accuracy": 0.91234},
    "test": {"test/loss": 0.4, "test/accuracy": 0.9},
    "stop_reason": "no better for 3 epochs",
    "timing": {"fit_s": 180.0},
    "wandb": {"id": ID, "mode": "offline", "url": None, "dir": "wandb"},
}


def listed(capsys: pytest.CaptureFixture[str], root: Path, *words: str) -> list[dict[str, str]]:
    """The rows of `rootflow runs list` as a pipe gets them."""
    assert run(["list", "--root", str(root), *words]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


def test_a_pipe_gets_tab_separated_values(make_run, root, capsys):
    make_run(f"manual/{ID}", **FIELDS)
    assert listed(capsys, root) == [
        {
            "id": ID,
            "status": "finished",
            "started": "2026-01-02T12:00:00.000+00:00",
            "what": "model=resnet dataset=cifar",
            "epoch": "12",
            "best": "val/accuracy=0.9123",
            "test": "test/accuracy=0.9000",
            "time": "3 min 20 s",
        }
    ]


def test_only_the_newest_are_listed_unless_all_are_asked_for(make_run, root, capsys):
    for second in range(30):
        make_run(f"manual/20260102-1200{second:02d}-mlp-abcd")
    assert len(listed(capsys, root)) == 20
    assert [row["id"][:15] for row in listed(capsys, root, "-n", "2")] == [
        "20260102-120028",
        "20260102-120029",
    ]
    assert len(listed(capsys, root, "--all")) == len(listed(capsys, root, "-n", "31")) == 30
    assert listed(capsys, root, "-n", "0") == []


def test_a_broken_run_is_listed_beside_the_others(make_run, root, capsys):
    make_run("manual/20260101-120000-mlp-abcd", text="{")
    make_run(f"manual/{ID}")
    broken, whole = listed(capsys, root)
    assert broken["status"].startswith("corrupt: ")
    assert whole["status"] == "finished"


def test_json_is_a_list_of_objects_also_when_there_are_no_runs(make_run, root, capsys):
    root.mkdir()
    run(["list", "--root", str(root), "--json"])
    assert json.loads(capsys.readouterr().out) == []
    folder = make_run(f"manual/{ID}", **FIELDS)
    run(["list", "--root", str(root), "--json"])
    (listed_run,) = json.loads(capsys.readouterr().out)
    assert listed_run["path"] == str(folder)
    assert listed_run["best"] == FIELDS["best"]


def test_a_terminal_gets_lines_that_fit_it(make_run, root, monkeypatch):
    started = datetime.now(UTC) - timedelta(minutes=3)
    make_run(f"manual/{ID}", **{**FIELDS, "created_at": started.isoformat(), "overrides": ["x=" + "y" * 500]})
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 140, 0, 0))
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        run(["list", "--root", str(root)])
        terminal.flush()
        lines = os.read(master, 10_000).decode().splitlines()
    os.close(master)
    assert "3 min 0" in lines[1]
    assert "ago" in lines[1]
    assert "yyy..." in lines[1]
    assert max(map(len, lines)) <= 140


def test_a_folder_of_runs_that_is_not_there_is_an_error_only_if_it_was_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    with pytest.raises(RunError, match="other"):
        run(["list", "--root", "other"])


def test_show_tells_all_that_was_recorded(make_run, root, capsys):
    (make_run(f"manual/{ID}", **FIELDS) / "plots").mkdir()
    assert run(["show", "k3f9", "--root", str(root)]) == 0
    shown = capsys.readouterr().out
    for part in (
        ID,
        "finished, no better for 3 epochs",
        "fit 180 s",
        "model=resnet dataset=cifar",
        "model resnet, optimizer AdamW",
        "optimizer.lr  0.1000  steepest descent",
        "val/accuracy=0.9123, epoch 9, step 3600",
        "val/accuracy   0.9000  0.9123",
        "test/accuracy",
        "mode offline",
        "plots/  run.json  run.lock",
    ):
        assert part in shown


def test_show_names_the_error_of_a_failed_run(make_run, root, capsys):
    make_run(f"manual/{ID}", status="failed", error={"type": "DataError", "message": "no\x1bfile"})
    run(["show", "latest", "--root", str(root)])
    assert "failed, DataError: no\\x1bfile" in capsys.readouterr().out


def test_show_json_has_every_field(make_run, root, capsys):
    make_run(f"manual/{ID}", **FIELDS)
    run(["show", ID, "--root", str(root), "--json"])
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["config"] == FIELDS["config"]


def test_show_says_what_is_wrong_with_a_broken_run(make_run, root, capsys):
    make_run(f"manual/{ID}", text="{")
    run(["show", "latest", "--root", str(root)])
    assert "corrupt: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "odd",
    [
        {"progress": {"epoch": {}}, "elapsed_s": "long", "created_at": 5, "overrides": [1, {}]},
        {"best": {"monitor": ["x"], "val/a": []}, "test": {"a/b": None}, "config": {"model": {"name": {}}}},
        {"discovered": {"a": 1, "b": {}}, "timing": {"x": {}}, "argv": [None], "error": {"type": 1}},
    ],
)
def test_fields_of_odd_types_are_shown_somehow(make_run, root, capsys, odd):
    make_run(f"manual/{ID}", **odd)
    for words in (["list"], ["list", "--json"], ["show", "latest"]):
        assert run([*words, "--root", str(root)]) == 0
        assert ID in capsys.readouterr().out


def test_listing_a_hundred_runs_loads_nothing_heavy(make_run, root):
    for index in range(100):
        make_run(f"manual/20260102-12{index // 60:02d}{index % 60:02d}-mlp-abcd", **FIELDS)
    code = (
        "import sys; from rootflow.cli.runs import run; run(['list', '--all', '--root', sys.argv[1]]);"
        "assert not {'torch', 'hydra', 'omegaconf', 'wandb', 'rich', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 101


def test_an_error_after_the_training_is_shown_before_its_stop_reason(make_run, root, capsys):
    failed = {"status": "failed", "error": {"type": "CheckpointError", "message": "the disk is full"}}
    make_run("manual/20260102-120000-mlp-abcd", **{**FIELDS, **failed})
    run(["show", "latest", "--root", str(root)])
    assert "status     failed, CheckpointError: the disk is full" in capsys.readouterr().out
