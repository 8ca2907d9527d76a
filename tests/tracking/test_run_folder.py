from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback

import numpy as np
import pytest

from rootflow.errors import ConfigError, RunError
from rootflow.runs.paths import RunPaths
from rootflow.runs.record import read_run
from rootflow.tracking import run_folder
from rootflow.tracking.provenance import Provenance
from rootflow.tracking.run_folder import RunFolder, create_run_folder
from rootflow.tracking.run_lock import RunLock


def summary_of(folder: RunFolder) -> dict:
    return json.loads(folder.run_json.read_text())


def run_python(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)


CREATE = """
import os, subprocess, sys, time
from pathlib import Path
from rootflow.tracking.provenance import Provenance
from rootflow.tracking.run_folder import RunFolder
run = RunFolder.create(Path(sys.argv[1]), "mlp", config={}, config_yaml="", provenance=Provenance({}, {}))
"""


def test_two_hundred_processes_at_once_get_two_hundred_folders(tmp_path):
    code = """
import os, sys
from pathlib import Path
from rootflow.tracking.run_folder import create_run_folder
start, go = os.pipe()
for _ in range(200):
    if os.fork() == 0:
        os.close(go)
        os.read(start, 1)  # returns for all at once, when the parent closes the other end
        create_run_folder(Path(sys.argv[1]), "same name")
        os._exit(0)
os.close(go)
assert all(os.wait()[1] == 0 for _ in range(200))
"""
    assert run_python(code, str(tmp_path)).stderr == ""
    names = [folder.name for folder in tmp_path.iterdir()]
    assert len(set(names)) == 200
    assert all(re.fullmatch(r"\d{8}-\d{6}-same-name-[a-z2-7]{4}", name) for name in names)


@pytest.mark.parametrize(
    ("slug", "cleaned"),
    [
        ("ResNet CIFAR", "resnet-cifar"),
        ("../../etc/passwd", "etc-passwd"),
        ("lr=0.1,0.2", "lr-0.1-0.2"),
        ("x" * 100, "x" * 40),
        ("é\n", "run"),
        ("", "run"),
    ],
)
def test_any_slug_becomes_a_short_plain_name_inside_the_parent(tmp_path, slug, cleaned):
    path = create_run_folder(tmp_path / "deep" / "er", slug)
    assert path.parent == tmp_path / "deep" / "er"
    assert path.name[16:-5] == cleaned


def test_drawing_a_name_neither_uses_nor_disturbs_the_seeded_generator(tmp_path):
    random.seed(0)
    first = random.random()
    random.seed(0)
    create_run_folder(tmp_path, "a")
    assert random.random() == first


def test_a_name_that_is_taken_is_drawn_again(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "_BASE32", "a" * 31 + "b")
    names = [create_run_folder(tmp_path, "a").name for _ in range(4)]
    assert len(set(names)) == 4


def test_a_folder_is_complete_when_it_is_made(create_run):
    run = create_run(config={"model": {"name": "mlp"}}, overrides=["model=mlp"])
    record = read_run(run.path)
    assert record.status == "running"
    assert record.id == run.path.name == run.summary["id"]
    assert record.summary["config"] == {"model": {"name": "mlp"}}
    assert record.summary["overrides"] == ["model=mlp"]
    assert record.summary["versions"] == {"python": "3"}
    assert run.config_yaml.read_text() == "seed: 1\n"
    assert sorted(path.name for path in run.path.iterdir()) == [
        "config.yaml", "metrics.jsonl", "output.log", "run.json", "run.lock", "timing.jsonl",
    ]  # fmt: skip


def test_the_patch_is_kept_when_there_is_one(create_run):
    run = create_run(provenance=Provenance({}, {}, {"commit": "abc"}, "diff --git a b\n"))
    assert run.git_patch.read_text() == "diff --git a b\n"
    assert summary_of(run)["git"] == {"commit": "abc"}


def test_secrets_reach_no_file_of_the_folder(create_run, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["rootflow", "train", "hub.api_key=sekret-1"])
    with create_run(
        config={"hub": {"api_key": "sekret-2", "url": "https://me:sekret-3@example.org"}},
        config_yaml="hub:\n  api_key: sekret-4\n",
        overrides=["+hub.password=sekret-5"],
    ) as run:
        run.fail(ValueError("db_password=sekret-6"), "ValueError: db_password=sekret-6")
    for path in run.path.iterdir():
        assert "sekret" not in path.read_text(), path
    assert summary_of(run)["overrides"] == ["+hub.password=[redacted]"]


def test_update_replaces_fields_whole_and_leaves_no_scratch_file(create_run):
    run = create_run()
    run.update(best={"val/loss": 1.0, "step": 1}, progress={"step": 1, "epoch": 1})
    run.update(best={"val/loss": 0.5})
    assert summary_of(run)["best"] == {"val/loss": 0.5}
    assert summary_of(run)["progress"] == {"step": 1, "epoch": 1}
    assert summary_of(run)["elapsed_s"] > 0
    assert not list(run.path.glob(".*"))


def test_numbers_of_any_kind_are_recorded_and_read_back(create_run):
    run = create_run()
    run.update(
        last={"a": np.float32(0.5), "b": np.int64(3), "c": float("nan"), "d": -np.inf},
        dataset={"path": run.path},
    )
    last = summary_of(run)["last"]
    assert last == {"a": 0.5, "b": 3, "c": "nan", "d": "-inf"}
    assert float(last["d"]) == -np.inf
    assert summary_of(run)["dataset"] == {"path": str(run.path)}


def test_the_end_of_a_block_without_a_word_is_a_finished_run(create_run):
    with create_run() as run:
        pass
    assert (summary_of(run)["status"], summary_of(run)["exit_code"]) == ("finished", 0)
    assert summary_of(run)["ended_at"] >= summary_of(run)["created_at"]


def test_what_finish_said_stays(create_run):
    with create_run() as run:
        run.finish("interrupted", stop_reason="the time was up", exit_code=3)
    assert [summary_of(run)[key] for key in ("status", "stop_reason", "exit_code")] == [
        "interrupted",
        "the time was up",
        3,
    ]


@pytest.mark.parametrize(
    ("error", "status", "exit_code"),
    [
        (ConfigError("model.depth is -1"), "failed", 2),
        (RunError("no"), "failed", 1),
        (ZeroDivisionError("division by zero"), "failed", 1),
        (SystemExit(5), "failed", 1),
        (SystemExit("bye"), "failed", 1),
        (KeyboardInterrupt(), "interrupted", 130),
        (SystemExit(143), "interrupted", 143),
        (SystemExit(0), "finished", 0),
        (SystemExit(), "finished", 0),
    ],
)
def test_how_a_run_ended_is_recorded_and_the_exception_goes_on(create_run, error, status, exit_code):
    with pytest.raises(type(error)) as caught, create_run() as run:
        raise error
    assert caught.value is error
    assert (summary_of(run)["status"], summary_of(run)["exit_code"]) == (status, exit_code)
    if status == "failed":
        assert summary_of(run)["error"] == {"type": type(error).__name__, "message": str(error)}
        assert "Traceback (most recent call last)" in run.output_log.read_text()
        assert f"raise error\n{traceback.format_exception_only(error)[0]}" in run.output_log.read_text()


def test_a_failure_to_record_does_not_hide_the_error_of_the_run(create_run):
    run = create_run()
    shutil.rmtree(run.path)
    with pytest.raises(ZeroDivisionError), run:
        raise ZeroDivisionError


def test_a_run_whose_end_can_not_be_recorded_does_not_pass_for_finished(create_run):
    run = create_run()
    shutil.rmtree(run.path)
    with pytest.raises(FileNotFoundError), run:
        pass


def test_a_killed_run_has_crashed_and_keeps_every_row(tmp_path):
    code = (
        CREATE
        + """
for step in range(3):
    run.log({"step": step})
os.kill(os.getpid(), 9)
"""
    )
    assert run_python(code, str(tmp_path)).returncode == -signal.SIGKILL
    (folder,) = tmp_path.iterdir()
    assert read_run(folder).status == "crashed"
    assert (folder / "metrics.jsonl").read_text() == '{"step": 0}\n{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize(
    "child",
    [
        "if os.fork() == 0:\n    time.sleep(3)\n    os._exit(0)",
        "subprocess.Popen(['sleep', '3'], close_fds=False, stdin=0, stdout=-3, stderr=-3)",
    ],
    ids=["forked", "started"],
)
def test_a_child_that_outlives_a_killed_run_does_not_keep_it_running(tmp_path, child):
    code = CREATE + child + "\nos.kill(os.getpid(), 9)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as process:
        process.wait(timeout=60)
        (folder,) = tmp_path.iterdir()
        deadline_s = time.monotonic() + 1.0  # a forked child needs a moment to let go; both live 3 s
        while read_run(folder).status != "crashed":
            assert time.monotonic() < deadline_s


def test_a_forked_child_that_leaves_the_block_does_not_end_its_parents_run(tmp_path):
    code = (
        CREATE
        + """
with run:
    if os.fork() == 0:
        raise SystemExit(5)
    os.wait()
    assert '"status": "running"' in run.run_json.read_text()
"""
    )
    assert run_python(code, str(tmp_path)).returncode == 0
    (folder,) = tmp_path.iterdir()
    assert read_run(folder).status == "finished"


def test_resuming_cuts_what_came_after_the_checkpoint_and_keeps_it(create_run):
    run = create_run()
    run.update(seed=7)
    for step in range(3):
        run.log({"step": step, "text": "a\u2028b"}, timing={"perf/samples_per_s": 1.0})
    size = run.sync_metrics()
    for step in (3, 3, 2):
        run.log({"step": step})
    with pytest.raises(ZeroDivisionError), run:
        raise ZeroDivisionError
    with run.metrics_jsonl.open("ab") as metrics:
        metrics.write(b'{"step": 4, "te\xc3')
    elapsed_s = summary_of(run)["elapsed_s"]
    timing = run.timing_jsonl.read_text()
    with RunFolder.resume(run.path, metrics_bytes=size) as resumed:
        assert summary_of(resumed)["status"] == "running"
        assert summary_of(resumed)["error"] is None
        assert resumed.cut.missing_bytes == 0
        resumed.log({"step": 3})
    rows = [json.loads(line) for line in run.metrics_jsonl.read_bytes().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    cut = b'{"step": 3}\n{"step": 3}\n{"step": 2}\n{"step": 4, "te\xc3'
    assert (run.path / "metrics.cut-1.jsonl").read_bytes() == cut
    assert run.timing_jsonl.read_text() == timing
    assert summary_of(run)["status"] == "finished"
    assert summary_of(run)["seed"] == 7
    assert summary_of(run)["elapsed_s"] > elapsed_s


def test_a_run_that_is_alive_can_not_be_resumed(create_run):
    run = create_run()
    run.log({"step": 9})
    with pytest.raises(RunError, match="another process"):
        RunFolder.resume(run.path, metrics_bytes=0)
    assert run.metrics_jsonl.read_text() == '{"step": 9}\n'


def test_who_holds_the_lock_of_a_run_may_resume_it(create_run):
    run = create_run()
    run.close()
    lock = RunLock(RunPaths(run.path))
    with RunFolder.resume(run.path, metrics_bytes=0, lock=lock):
        assert lock.is_held
    assert not lock.is_held


def test_a_corrupt_run_can_not_be_resumed(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunError, match="corrupt"):
        RunFolder.resume(tmp_path, metrics_bytes=0)
