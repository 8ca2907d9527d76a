"""Going on with a run: the whole path, from one run folder to the same one."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import rootflow
from rootflow.checkpoint import Checkpoints
from rootflow.cli import main
from rootflow.errors import CheckpointError, ConfigError, RunError
from rootflow.runs.record import read_run
from rootflow.tracking.run_folder import RunFolder
from tests.stoppable import STOP_AT, STOP_BY

ROOT = str(Path(__file__).parents[1])

EXPERIMENT: dict[str, Any] = {
    "model": {"_target_": "tests.stoppable.Net"},
    "dataset": {"_target_": "tests.stoppable.tensors"},
    "scheduler": {"name": "warmup_decay", "total_steps": 24},
    "trainer": {"name": "trainer", "max_epochs": 3, "batch_size": 8, "log_every": 3, "ema_decay": 0.9},
    "loader": {"name": "loader", "num_workers": 0},
}
STEPS_PER_EPOCH = 8


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    return tmp_path


def train(*overrides: str, **changes: Any) -> Path:
    return rootflow.run({**EXPERIMENT, **changes}, overrides=overrides).folder


@contextlib.contextmanager
def stopping(at: str | int, by: str = "SIGTERM") -> Iterator[None]:
    os.environ |= {STOP_AT: str(at), STOP_BY: by}
    try:
        yield
    finally:
        del os.environ[STOP_AT], os.environ[STOP_BY]


def train_stopped(at: str | int, *overrides: str, by: str = "SIGTERM", **changes: Any) -> Path:
    before = {*Path("runs").glob("*/*")}
    with stopping(at, by), pytest.raises((SystemExit, ValueError)):
        train(*overrides, **changes)
    (path,) = {*Path("runs").glob("*/*")} - before
    return path


def record(path: Path) -> dict[str, Any]:
    return json.loads((path / "run.json").read_text())


def last_resume(path: Path) -> dict[str, Any]:
    return record(path)["resumes"][-1]


def edit_record(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    changed = record(path)
    change(changed)
    (path / "run.json").write_text(json.dumps(changed))


def assert_same(one: Path, other: Path) -> None:
    """Rows, weights and the whole final state are the same, to the bit."""
    for name in ("metrics.jsonl", "checkpoints/best.safetensors", "checkpoints/last.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    states = [Checkpoints(path / "checkpoints").load().state for path in (one, other)]  # type: ignore[union-attr]
    assert_equal({**states[0], "clock": None}, {**states[1], "clock": None}, "state")
    assert record(one)["test"] == record(other)["test"]


def assert_equal(one: Any, other: Any, place: str) -> None:
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key, value in one.items():
            assert_equal(value, other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{place}.{index}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    else:
        assert bool((one == other) if not hasattr(one, "shape") else (one == other).all()), place


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that never stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        patch.setenv("WANDB_MODE", "disabled")
        return train().absolute()


@pytest.mark.parametrize("at", [1, 5, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1, "16:evaluation", 23])
def test_a_run_that_was_stopped_by_a_signal_goes_on_as_if_it_never_was(whole: Path, at: str | int) -> None:
    path = train_stopped(at)
    assert record(path)["status"] == "interrupted"
    assert rootflow.resume(path).folder == path
    assert_same(path, whole)
    resumed = last_resume(path)
    assert (resumed["exact"], resumed["reasons"], resumed["changes"]) == (True, [], {})
    assert resumed["step"] == int(str(at).partition(":")[0])
    assert record(path)["status"] == "finished"
    assert record(path)["discovered"] == record(whole)["discovered"]
    assert not list(path.glob("metrics.cut-*"))


def test_a_run_that_crashed_after_its_checkpoint_loses_nothing_but_time(whole: Path) -> None:
    path = train_stopped(13, "trainer.save_every=5 steps", by="error")
    rows = (path / "metrics.jsonl").read_bytes()
    with (path / "metrics.jsonl").open("ab") as metrics:
        metrics.write(b'{"step": 13, "tra')
    rootflow.resume("latest")
    assert_same(path, whole)
    assert last_resume(path)["step"] == 10
    assert last_resume(path)["exact"]
    kept = (path / "metrics.cut-1.jsonl").read_bytes()
    assert kept.endswith(b'{"step": 13, "tra')
    assert rows.endswith(kept.removesuffix(b'{"step": 13, "tra'))
    assert [json.loads(line)["step"] for line in kept.splitlines()[:-1]] == [12]
    assert record(path)["error"] is None


def test_a_run_may_be_stopped_again_and_again(whole: Path, capsys: Any) -> None:
    path = train_stopped(3)
    for at in (4, "8:evaluation", 17):
        with stopping(at), pytest.raises(SystemExit):
            rootflow.resume(path)
    rootflow.resume(path)
    assert_same(path, whole)
    assert [resumed["step"] for resumed in record(path)["resumes"]] == [3, 4, 8, 17]
    assert main(["runs", "show", str(path)]) == 0
    assert "resumed    at step 3, at step 4, at step 8, at step 17\n" in capsys.readouterr().out


@pytest.mark.parametrize("workers", [(0, 2), (2, 0)])
def test_samples_read_by_other_workers_are_the_same_after_a_stop(workers: tuple[int, int]) -> None:
    noisy = {"dataset": {"_target_": "tests.stoppable.pairs"}}
    never_stopped = train(f"loader.num_workers={workers[0]}", **noisy)
    path = train_stopped(11, f"loader.num_workers={workers[0]}", **noisy)
    rootflow.resume(path, overrides=[f"loader.num_workers={workers[1]}"])
    assert_same(path, never_stopped)
    assert last_resume(path)["exact"]
    assert last_resume(path)["changes"] == {"loader.num_workers": {"old": workers[0], "new": workers[1]}}


@pytest.mark.parametrize("limit", ["trainer.max_epochs=2", "trainer.max_steps=16"])
def test_a_run_that_reached_its_length_can_be_made_longer(whole: Path, limit: str) -> None:
    path = train(limit)
    key = limit.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"has ended .* raise it, e\.g\. {key}="):
        rootflow.resume(path)
    assert "resumes" not in record(path)
    assert record(path)["status"] == "finished"
    rootflow.resume(path, overrides=[f"{key}={'3' if 'epochs' in key else '24'}"])
    if "epochs" in key:
        assert_same(path, whole)
    else:
        assert (path / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert last_resume(path)["exact"]


def test_an_evaluation_that_only_the_end_asked_for_is_told() -> None:
    path = train("trainer.max_steps=10")
    rootflow.resume(path, overrides=["trainer.max_steps=12"])
    assert last_resume(path)["reasons"] == [
        "the end was evaluated, at step 10; a longer training has no row there"
    ]


def test_a_schedule_that_follows_the_length_is_told() -> None:
    schedule = {"scheduler": {"name": "OneCycleLR", "max_lr": 0.01, "total_steps": "auto"}}
    path = train("trainer.max_epochs=2", **schedule)
    rootflow.resume(path, overrides=["trainer.max_epochs=3"])
    assert last_resume(path)["reasons"] == ["scheduler.total_steps was 16 and is now 24"]
    assert record(path)["progress"] == {"step": 24, "epoch": 3}
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    rates = {row["step"]: row["optim/lr"] for row in rows if "optim/lr" in row}
    never_stopped = train("trainer.max_epochs=3", **schedule)
    rows = [json.loads(line) for line in (never_stopped / "metrics.jsonl").read_text().splitlines()]
    longer = {row["step"]: row["optim/lr"] for row in rows if "optim/lr" in row}
    assert {step: rates[step] for step in (18, 21, 24)} == {step: longer[step] for step in (18, 21, 24)}
    assert rates[15] != longer[15]


def test_an_open_ended_run_goes_on_from_before_its_learning_rate_fell() -> None:
    opened = {
        "scheduler": "default",
        "trainer": {"name": "trainer", "batch_size": 8, "log_every": 3, "patience": 1},
        "optimizer": {"name": "SGD", "lr": 1e-6},
    }
    path = train(**opened)
    reason, steps = record(path)["stop_reason"], record(path)["progress"]["step"]
    assert reason.endswith("evaluations; cooled down")
    stable = Checkpoints(path / "checkpoints").load("stable")
    assert stable is not None
    rootflow.resume(path)
    resumed = last_resume(path)
    assert (resumed["step"], resumed["label"], resumed["exact"]) == (stable.step, "stable", False)
    assert resumed["reasons"] == [f"the run had ended ({reason}); its patience starts anew"]
    cut = [json.loads(line)["step"] for line in (path / "metrics.cut-1.jsonl").read_text().splitlines()]
    assert (min(cut) > stable.step, max(cut)) == (True, steps)
    assert record(path)["progress"]["step"] > steps


@pytest.mark.parametrize(("stall_s", "ended"), [(0.0, "max_time; cooled down"), (0.4, "max_time reached")])
def test_a_run_whose_time_let_its_learning_rate_fall_needs_more_time_to_go_on(
    stall_s: float, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rootflow.train import session

    ticks = itertools.count()
    monkeypatch.setattr(
        session,
        "time",
        SimpleNamespace(monotonic=lambda: (tick := 0.01 * next(ticks)) + (stall_s if tick > 2.6 else 0.0)),
    )
    opened = {
        "scheduler": "default",
        "trainer": {"name": "trainer", "batch_size": 8, "patience": 10_000, "max_time": 3.0},
        "optimizer": {"name": "SGD", "lr": 1e-3},
    }
    path = train(**opened)
    assert record(path)["stop_reason"] == ended
    stable = Checkpoints(path / "checkpoints").load("stable")
    assert stable is not None
    before = {file: file.read_bytes() for file in path.glob("*.json*")}
    for raised in ([], ["trainer.max_time=2.5"]):
        with pytest.raises(ConfigError, match=r"trainer\.max_time is [23].*raise it"):
            rootflow.resume(path, overrides=raised)
    assert {file: file.read_bytes() for file in path.glob("*.json*")} == before
    rootflow.resume(path, overrides=["trainer.max_time=3.5"])
    resumed = last_resume(path)
    assert (resumed["step"], resumed["label"], resumed["reasons"]) == (stable.step, "stable", [])
    final = Checkpoints(path / "checkpoints").load()
    assert final is not None
    evaluations = final.state["stopping"]["num_evaluations"]
    assert final.state["stopping"]["num_since_best"] <= evaluations
    assert evaluations > stable.state["stopping"]["num_evaluations"]
    assert record(path)["stop_reason"] == "max_time; cooled down"


def test_a_setting_of_the_optimizer_takes_effect_when_it_is_allowed() -> None:
    path = train_stopped(10)
    with pytest.raises(ConfigError, match=r"optimizer\.lr was 0\.003 and is now 0\.5.*--allow optimizer\.lr"):
        rootflow.resume(path, overrides=["lr=0.5"])
    with stopping(12), pytest.raises(SystemExit):
        rootflow.resume(path, overrides=["lr=0.5", "optimizer.weight_decay=0.25"], allow=["optimizer"])
    found = Checkpoints(path / "checkpoints").load()
    assert found is not None
    (group, _) = found.state["optimizer"]["0"]["param_groups"]
    assert (group["initial_lr"], group["weight_decay"]) == (0.5, 0.25)
    assert found.state["optimizer"]["0"]["state"][0]["step"] == 12
    rootflow.resume(path)  # which keeps what was changed
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"]: row["optim/lr"] for row in rows if row["step"] == 15 and "optim/lr" in row}[
        15
    ] == pytest.approx(0.5 * (24 - 14.5) / (24 - 1.2))
    assert [resumed["exact"] for resumed in record(path)["resumes"]] == [False, True]
    assert record(path)["config"]["optimizer"]["lr"] == "auto"


def test_what_would_be_another_run_is_refused_all_at_once() -> None:
    path = train_stopped(10)
    with pytest.raises(ConfigError) as caught:
        rootflow.resume(path, overrides=["seed=1", "model.width=7", "batch_size=4", "trainer.max_epoch=5"])
    assert "trainer.max_epoch does not exist" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        rootflow.resume(path, overrides=["seed=1", "model.width=7", "batch_size=4"], allow=["seed"])
    assert [str(told).partition(",")[0] for told in caught.value.args] == [
        "model.width was 6 and is now 7",
        "trainer.batch_size was 8 and is now 4",
        "seed was 0 and is now 1",
    ]
    assert f"rootflow train --config {path} init_from={path} seed=1" in str(caught.value)
    assert record(path)["status"] == "interrupted"


def test_a_run_that_is_alive_or_has_no_checkpoint_is_refused() -> None:
    path = train_stopped(10)
    with RunFolder.resume(path, metrics_bytes=0), pytest.raises(RunError, match="run by another process"):
        rootflow.resume(path)
    early = train_stopped(1, by="error")
    with pytest.raises(RunError, match=r"no checkpoint .* rootflow train --config"):
        rootflow.resume(early)
    (early / "run.json").write_text("{")
    with pytest.raises(RunError, match="corrupt"):
        rootflow.resume(early)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(whole: Path, capsys: Any) -> None:
    path = train_stopped(13, "trainer.save_every=5 steps", by="SIGTERM")
    newest = path / "checkpoints" / "step-00000013"
    with (newest / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, os.SEEK_END)
        weights.write(b"\xff")
    rootflow.resume(path)
    assert_same(path, whole)
    (told,) = last_resume(path)["rejected"]
    assert "step-00000013 is damaged" in told
    assert told in capsys.readouterr().out
    assert last_resume(path)["step"] == 10


def test_other_code_and_machines_are_told_and_other_data_is_refused() -> None:
    path = train_stopped(10)

    def elsewhere(summary: dict[str, Any]) -> None:
        summary["versions"]["torch"] = "1.0"
        summary["hardware"]["cpu"] = "another"
        summary["dataset"]["num_train"] = 63

    edit_record(path, elsewhere)
    with pytest.raises(ConfigError, match=r"num_train was 63 and is now 64.*--allow dataset"):
        rootflow.resume(path)
    rootflow.resume(path, allow=["dataset"])
    reasons = last_resume(path)["reasons"]
    assert [reason.partition(" was ")[0] for reason in reasons] == [
        "torch",
        "processor",
        "the data set: num_train",
    ]
    assert not last_resume(path)["exact"]


def test_the_best_weights_that_are_on_the_disk_stay_the_best_until_better_ones_come() -> None:
    path = train_stopped(13, "trainer.save_every=5 steps", by="error")
    about = path / "checkpoints" / "best.json"
    best = json.loads(about.read_text())
    about.write_text(json.dumps({**best, "val/accuracy": 2.0, "step": 12}))
    rootflow.resume(path)
    assert json.loads(about.read_text())["val/accuracy"] == 2.0
    assert Checkpoints(path / "checkpoints").load().state["progress"]["best"]["step"] == 12  # type: ignore[union-attr]


def test_best_weights_that_are_lost_are_told_and_found_anew() -> None:
    path = train_stopped(13)
    (path / "checkpoints" / "best.safetensors").write_bytes(b"broken")
    rootflow.resume(path)
    (reason,) = last_resume(path)["reasons"]
    assert reason.startswith("the best weights are lost: ")
    assert json.loads((path / "checkpoints" / "best.json").read_text())["step"] > 13


def test_a_run_that_only_lacks_its_test_is_tested() -> None:
    path = train()
    tested = record(path)["test"]
    edit_record(path, lambda summary: summary.update(status="running", test={}, stop_reason=None))
    rootflow.resume(path)
    assert record(path)["test"] == tested
    assert record(path)["status"] == "finished"


def test_what_was_found_out_is_not_searched_again(capsys: Any) -> None:
    path = train_stopped(10)
    found = record(path)["discovered"]["trainer.precision"]["value"]
    other = {"bf16": "fp32", "fp32": "bf16"}[found]
    edit_record(path, lambda summary: summary["discovered"]["trainer.precision"].update(value=other))
    before = record(path)["discovered"]
    capsys.readouterr()
    rootflow.resume(path)
    assert record(path)["discovered"] == before
    assert capsys.readouterr().out.startswith("resumes at step 10")


def test_a_run_may_start_from_the_best_weights_of_another() -> None:
    source = train("trainer.max_epochs=1")
    path = train("trainer.max_steps=1", "optimizer=sgd", "lr=1e-30", f"init_from={source.name}")
    weights = source / "checkpoints" / "best.safetensors"
    best, ours = load_file(weights), load_file(path / "checkpoints" / "last.safetensors")
    same = [
        torch.equal(best[name], ours[name]) for name in best if "running" not in name and "num_" not in name
    ]
    assert all(same)
    assert record(path)["init_from"]["path"] == str(weights)
    assert len(record(path)["init_from"]["sha256"]) == 64
    by_path = train("trainer.max_steps=1", "optimizer=sgd", "lr=1e-30", f"init_from={weights}")
    assert record(by_path)["identity"] == record(path)["identity"]
    anew = train("trainer.max_steps=1", "optimizer=sgd", "lr=1e-30")
    assert record(anew)["identity"] != record(path)["identity"]


def test_a_model_gets_back_what_it_saved_of_its_own() -> None:
    from rootflow.init_from import find_start_weights
    from tests.stoppable import Net

    source = train("trainer.max_epochs=1")
    net = Net()
    find_start_weights(str(source), Path("runs")).load(net)
    assert net.taken == {"num_steps": STEPS_PER_EPOCH}


def test_the_folder_of_another_run_is_read_and_never_changed() -> None:
    from rootflow.init_from import find_start_weights
    from tests.stoppable import Net

    source = train("trainer.save_every='4 steps'")
    checkpoints = source / "checkpoints"
    about = json.loads((checkpoints / "best.json").read_text())
    (checkpoints / "best.json").write_text(json.dumps({**about, "step": 19}))
    state = Checkpoints(checkpoints).load()
    assert state is not None
    assert [step for step in Checkpoints(checkpoints).steps() if step != 20] == [24]
    damaged = checkpoints / "step-00000024" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    names = sorted(checkpoints.iterdir())
    net = Net()
    find_start_weights(str(source), Path("runs")).load(net)
    assert net.taken == {"num_steps": 20}
    (checkpoints / "best.json").write_text(json.dumps({**about, "step": 24}))
    find_start_weights(str(source), Path("runs")).load(net)
    assert net.taken == {"num_steps": 20}
    assert sorted(checkpoints.iterdir()) == names


def test_weights_that_are_missing_or_of_another_model_leave_nothing_behind(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"init_from is 'nothing': "):
        train("init_from=nothing")
    with pytest.raises(ConfigError, match=r"no\.safetensors can't be read"):
        train("init_from=no.safetensors")
    assert not (folder / "runs").exists()
    save_file({"other": torch.zeros(3)}, "other.safetensors")
    with pytest.raises(
        CheckpointError, match=r"layers\.0\.weight is missing in the file, \(6, 4\) in the model"
    ):
        train("init_from=other.safetensors")


def test_a_run_that_started_from_weights_goes_on_without_them(folder: Path) -> None:
    source = train("trainer.max_epochs=1")
    weights = folder / "start.safetensors"
    weights.write_bytes((source / "checkpoints" / "best.safetensors").read_bytes())
    never_stopped = train("init_from=start.safetensors")
    path = train_stopped(10, "init_from=start.safetensors")
    with pytest.raises(ConfigError, match=r"init_from was 'start\.safetensors' and is now null"):
        rootflow.resume(path, overrides=["init_from=null"])
    weights.unlink()
    rootflow.resume(path)
    assert_same(path, never_stopped)


@pytest.fixture
def cli(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "rootflow", *words],
            cwd=folder,
            env=os.environ | {"WANDB_MODE": "disabled", "PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1", **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    assert any(text in line for line in process.stdout), "it ended before"


NOISY = (
    "model=net", "dataset=pairs", "scheduler.total_steps=24", "trainer.max_epochs=3", "trainer.batch_size=8",
    "trainer.log_every=3",
)  # fmt: skip


@pytest.fixture
def in_project(folder: Path) -> None:
    for group, option, name in (("model", "net", "Net"), ("dataset", "pairs", "pairs")):
        (folder / "conf" / group).mkdir(parents=True)
        (folder / "conf" / group / f"{option}.yaml").write_text(f"_target_: tests.stoppable.{name}\n")


@pytest.mark.slow
@pytest.mark.usefixtures("in_project")
@pytest.mark.parametrize(
    ("to_group", "num_workers", "at", "number"),
    [
        (False, 0, "11", signal.SIGTERM),
        (True, 2, "16:evaluation", signal.SIGTERM),
        (True, 2, "11", signal.SIGUSR1),
    ],
)
def test_a_signal_to_a_command_is_a_pause(
    cli: Callable[..., subprocess.Popen[str]], to_group: bool, num_workers: int, at: str, number: int
) -> None:
    process = cli("train", *NOISY, f"loader.num_workers={num_workers}", **{STOP_AT: at, STOP_BY: "wait"})
    wait_for(process, "waiting")
    (os.killpg if to_group else os.kill)(process.pid, number)
    told = process.communicate(timeout=60)[0]
    assert process.returncode == 143, told
    (path,) = Path("runs").glob("*/*")
    assert f"to go on: rootflow resume {path}" in told
    assert record(path)["status"] == "interrupted"
    rootflow.resume(path)
    assert last_resume(path)["step"] == int(at.partition(":")[0])
    assert last_resume(path)["exact"]
    assert_same(path, rootflow.run(overrides=[*NOISY, "loader.num_workers=0"]).folder)


@pytest.mark.slow
@pytest.mark.usefixtures("in_project")
def test_a_second_signal_leaves_at_once_and_a_doubled_one_does_not(
    cli: Callable[..., subprocess.Popen[str]],
) -> None:
    process = cli("train", *NOISY, "loader.num_workers=0", **{STOP_AT: "11", STOP_BY: "wait"})
    wait_for(process, "waiting")
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=60) == 143
    (path,) = Path("runs").glob("*/*")
    assert record(path)["status"] == "interrupted"
    process = cli("resume", path.name[-4:], **{STOP_AT: "13", STOP_BY: "wait"})
    wait_for(process, "resumes at step 11, exactly")
    wait_for(process, "waiting")
    process.send_signal(signal.SIGINT)
    time.sleep(0.35)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert read_run(path).status == "crashed"
    rootflow.resume(path)
    assert record(path)["status"] == "finished"
    assert last_resume(path)["step"] == 11  # the second signal left no time to save


@pytest.mark.slow
def test_the_command_tells_what_is_wrong_and_exits_with_2(cli: Callable[..., subprocess.Popen[str]]) -> None:
    path = train("trainer.max_epochs=1")
    process = cli("resume", str(path), "trainer.max_epochs=1")
    told = process.communicate(timeout=60)[0]
    assert process.returncode == 2
    assert told.endswith(
        "trainer.max_epochs is 1, and 1 epochs are done; raise it, e.g. trainer.max_epochs=2.\n"
    )
