from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rootflow.errors import RunError
from rootflow.tracking import wandb_mirror
from rootflow.tracking.settings import WandbSettings
from rootflow.tracking.wandb_mirror import WandbMirror
from tests.tracking.wandb_server import API_KEY, WandbServer

CONFIG = {"model": {"name": "mlp", "hub": {"api_key": "sekret"}}, "optimizer": {"lr": 0.1}}


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, no settings and no proxy of the machine's own reach the client."""
    for name in list(os.environ):
        if name.startswith("WANDB") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # should a test get online by mistake
    (tmp_path / "home").mkdir()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", API_KEY)
        yield server


@pytest.fixture
def dirty_repository(tmp_path: Path) -> Path:
    """A repository around the run folders, with a secret in a change that is not committed."""
    folder = tmp_path
    (folder / "keys.py").write_text("KEYS = []\n")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "keys.py"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], cwd=folder, check=True)
    (folder / "keys.py").write_text("KEYS = ['sekret']\n")
    return folder


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def open_mirror(tmp_path: Path, said: list[str]) -> Iterator[Callable[..., WandbMirror]]:
    opened = []

    def open_(folder: str = "20260102-120000-mlp-abcd", **settings: Any) -> WandbMirror:
        path = tmp_path / folder
        path.mkdir()
        opened.append(
            WandbMirror.open(WandbSettings(**settings), path, name="mlp", config=CONFIG, say=said.append)
        )
        return opened[-1]

    yield open_
    for mirror in opened:
        mirror.finish()


def inspect(folder: Path) -> dict[str, Any]:
    """What the client's own reader finds in the file of the folder's offline run."""
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(file)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
def test_an_offline_run_holds_the_config_the_rows_and_the_summary(open_mirror, tmp_path, said, capfd):
    mirror = open_mirror(mode="offline", project="digits", group="g", tags=("a", "b"), notes="n")
    for step in range(3):
        mirror.log({"step": step * 10, "epoch": step, "train/loss": 1.0 / (step + 1)})
    mirror.summary({"best/val/accuracy": 0.9})
    record = mirror.record
    mirror.finish()
    found = inspect(tmp_path / "20260102-120000-mlp-abcd")
    assert found["run_id"] == record["id"] == "20260102-120000-mlp-abcd"
    assert found["config"]["optimizer"] == {"lr": 0.1}
    assert found["config"]["model"]["hub"] == {"api_key": "[redacted]"}
    assert found["summary"]["train/loss"] == pytest.approx(1 / 3)
    assert found["summary"]["best/val/accuracy"] == 0.9
    assert (found["summary"]["step"], found["summary"]["epoch"]) == (20, 2)
    assert (found["project"], found["tags"], found["exit_code"]) == ("digits", ["a", "b"], 0)
    assert (record["mode"], record["url"]) == ("offline", None)
    assert list((tmp_path / found["run_id"] / record["dir"]).glob("*.wandb"))
    assert said == []
    assert capfd.readouterr() == ("", "")


def test_the_file_of_an_offline_run_is_complete_when_finish_returns(open_mirror, tmp_path):
    mirror = open_mirror(mode="offline")
    mirror.log({"step": 1, "last/row": 12345.5})
    mirror.finish(exit_code=3)
    (file,) = tmp_path.glob("*/wandb/offline-run-*/*.wandb")
    size = file.stat().st_size
    assert b"12345.5" in file.read_bytes()
    time.sleep(0.05)
    assert file.stat().st_size == size


def test_disabled_neither_loads_the_client_nor_writes_anything(tmp_path):
    code = """
import pathlib, sys
from rootflow.tracking.settings import WandbSettings
from rootflow.tracking.wandb_mirror import WandbMirror
mirror = WandbMirror.open(WandbSettings(mode=sys.argv[1]), pathlib.Path.cwd(), name="a", config={}, say=print)
mirror.log({"step": 1})
mirror.summary({"a": 1})
mirror.finish()
assert mirror.record == {"id": None, "mode": "disabled", "url": None, "dir": None}
assert "wandb" not in sys.modules
"""
    for mode, environment in (("disabled", {}), ("auto", {"WANDB_MODE": "disabled"})):
        done = subprocess.run(
            [sys.executable, "-c", code, mode],
            cwd=tmp_path,
            env={**os.environ, **environment, "PYTHONPATH": str(Path(wandb_mirror.__file__).parents[2])},
            capture_output=True,
            text=True,
        )
        assert (done.stdout, done.stderr) == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_without_a_key_auto_logs_offline_and_never_asks(open_mirror, said, open_terminal, monkeypatch):
    terminal = open_terminal()
    keyboard = os.fdopen(os.dup(terminal.stream.fileno()))
    monkeypatch.setattr(sys, "stdin", keyboard)
    monkeypatch.setattr(sys, "stdout", terminal.stream)
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    mirror = open_mirror()
    assert mirror.record["mode"] == "offline"
    assert said == ["W&B: no API key was found, logging offline; `wandb sync` uploads it later"]
    assert terminal.shown() == ""
    keyboard.close()


def test_without_a_key_online_is_refused(open_mirror):
    with pytest.raises(RunError, match=r"mode is online.*no API key.*wandb login"):
        open_mirror(mode="online")


@pytest.mark.parametrize(
    ("variable", "mode"), [("offline", "offline"), ("dryrun", "offline"), ("online", "online")]
)
def test_auto_obeys_the_environment(server, open_mirror, monkeypatch, variable, mode):
    monkeypatch.setenv("WANDB_MODE", variable)
    assert open_mirror().record["mode"] == mode


def test_the_settings_override_the_environment(server, open_mirror, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert open_mirror(mode="online").record["mode"] == "online"


def test_with_a_key_the_run_arrives_at_the_server_without_secrets(
    server, open_mirror, said, monkeypatch, tmp_path, dirty_repository
):
    monkeypatch.chdir(dirty_repository)
    argv = ["rootflow", "train", "model.hub.api_key=sekret", "lr=1"]
    monkeypatch.setattr(sys, "argv", argv)
    mirror = open_mirror(group="seeds", tags=("a",))
    for step in range(3):
        mirror.log({"step": step * 10, "epoch": 1, "train/loss": float("nan") if step == 2 else 0.5})
    mirror.summary({"best/val/accuracy": 0.9})
    record = mirror.record
    mirror.finish(exit_code=1)
    run = server.runs["20260102-120000-mlp-abcd"]
    assert [row["step"] for row in run.history] == [0, 10, 20]
    step, _, everything = json.loads(run.about["config"])["_wandb"]["value"]["m"]
    assert (step["1"], everything["2"], everything["5"]) == (
        "step",
        "*",
        1,
    )  # all over the first metric, step
    assert run.summary["best/val/accuracy"] == 0.9
    assert run.config["optimizer"] == {"lr": 0.1}
    assert (run.about["groupName"], run.about["tags"], run.about["displayName"]) == ("seeds", ["a"], "mlp")
    assert run.exit_code == 1
    assert said == [f"W&B: {record['url']}"]
    assert record["url"].startswith(server.url)
    metadata = json.loads(run.files["wandb-metadata.json"])
    assert "git" not in metadata
    assert metadata["args"] == [
        "train",
        "model.hub.api_key=[redacted]",
        "lr=1",
    ]
    assert sys.argv is argv
    sent = [json.dumps(run.about).encode(), *run.files.values()]
    sent += [path.read_bytes() for path in tmp_path.rglob("*.wandb")]
    assert not [part for part in sent if b"sekret" in part]
    assert server.unknown == []


@pytest.mark.slow
def test_runs_of_one_process_do_not_mix(server, open_mirror):
    first = open_mirror("first-run")
    first.log({"step": 1, "a": 1})
    second = open_mirror("second-run")
    second.log({"step": 1, "b": 1})
    second.finish()
    assert [set(run.history[0]) & {"a", "b"} for run in server.runs.values()] == [{"a"}, {"b"}]


def test_a_key_that_is_refused_leads_offline_with_the_same_id(server, open_mirror, said, tmp_path):
    server.refuse = True
    mirror = open_mirror()
    mirror.log({"step": 1})
    assert (mirror.record["mode"], mirror.record["id"]) == ("offline", "20260102-120000-mlp-abcd")
    assert len(said) == 1
    assert "401" in said[0]
    assert "wandb sync" in said[0]


def test_a_key_that_is_refused_is_an_error_if_online_was_asked_for(server, open_mirror):
    server.refuse = True
    with pytest.raises(RunError, match=r"mode is online.*401"):
        open_mirror(mode="online")


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_waited_for_no_longer_than_the_timeout(
    server, open_mirror, monkeypatch, said
):
    server.close()
    monkeypatch.setattr(wandb_mirror, "_INIT_TIMEOUT_S", 0.5)
    started = time.perf_counter()
    assert open_mirror().record["mode"] == "offline"
    assert time.perf_counter() - started < 5
    assert len(said) == 1


@pytest.mark.slow
def test_a_server_that_dies_in_the_middle_stops_and_delays_nothing(server, open_mirror, monkeypatch, said):
    monkeypatch.setattr(wandb_mirror, "_FINISH_TIMEOUT_S", 0.5)
    mirror = open_mirror()
    mirror.log({"step": 1})
    server.close()
    started = time.perf_counter()
    for step in range(100):
        mirror.log({"step": step})
    mirror.summary({"a": 1})
    assert time.perf_counter() - started < 1
    mirror.finish()
    assert time.perf_counter() - started < 5
    assert len(said) == 2
    assert "wandb sync" in said[1]


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # the client's own threads
def test_a_client_that_fails_is_switched_off_with_one_line_until_the_next_run(server, open_mirror, said):
    import wandb

    mirror = open_mirror(mode="offline")
    wandb.teardown()  # its service is gone under the run, as when it was killed
    for step in range(3):
        mirror.log({"step": step})
    mirror.summary({"a": 1})
    mirror.finish()
    assert len(said) == 1
    assert said[0].startswith("W&B is off from here on: ")
    assert mirror.record["id"] == "20260102-120000-mlp-abcd"
    assert open_mirror("next-run").record["mode"] == "online"


def test_a_folder_that_the_client_can_not_use_switches_the_mirror_off(said, tmp_path):
    (tmp_path / "wandb").write_text("a file where the client wants its folder")
    mirror = WandbMirror.open(WandbSettings(mode="offline"), tmp_path, name="a", config={}, say=said.append)
    mirror.log({"step": 1})
    assert mirror.record["mode"] == "disabled"
    assert len(said) == 1
    assert "Not a directory" in said[0]


def row_of(step: int, **metrics: float) -> dict[str, float]:
    return {"step": step, "epoch": 1, **metrics}


TRAIN, VAL = {"train/loss": 0.7}, {"val/loss": 0.5}
ROWS = [row_of(1, **TRAIN), row_of(2, **TRAIN), row_of(2, **VAL), row_of(3, **TRAIN), row_of(4, **VAL)]
"""Of some steps two rows: of the training, and of an evaluation."""


@pytest.mark.parametrize("num_sent", range(len(ROWS) + 1))
def test_rows_that_were_sent_before_a_stop_are_not_sent_again(tmp_path, num_sent):
    client = Client()
    mirror = mirror_to(client, tmp_path)
    for row in ROWS[:num_sent]:
        mirror.log(row)
    again = mirror_to(client, tmp_path)
    for row in [*ROWS, row_of(5, **TRAIN)]:
        again.log(row)
    assert client.rows == [*ROWS, row_of(5, **TRAIN)]


def test_a_run_may_be_resumed_twice_from_the_same_place(tmp_path):
    client = Client()
    for _ in range(3):
        mirror = mirror_to(client, tmp_path)
        for row in ROWS[2:]:
            mirror.log(row)
    assert client.rows == ROWS[2:]


def test_rows_that_w_and_b_never_had_are_sent_after_a_stop(tmp_path):
    """It gets two training rows a second, so metrics.jsonl is ahead of it when a run is killed."""
    client = Client()
    mirror = mirror_to(client, tmp_path)
    mirror.log(row_of(10, **TRAIN))
    mirror.log(row_of(20, **VAL))
    again = mirror_to(client, tmp_path)
    for step in (10, 20, 30, 40):
        again.log(row_of(step, **TRAIN))
    again.log(row_of(20, **VAL))
    assert client.rows == [
        row_of(10, **TRAIN), row_of(20, **VAL), *(row_of(step, **TRAIN) for step in (20, 30, 40)),
    ]  # fmt: skip


def test_what_a_power_cut_left_of_the_mark_is_no_mark(tmp_path):
    mirror_to(Client(), tmp_path).log(row_of(10, **TRAIN))
    (tmp_path / "wandb" / "sent.json").write_text("")
    client = Client()
    mirror_to(client, tmp_path).log(row_of(5, **TRAIN))
    assert client.rows == [row_of(5, **TRAIN)]


def test_rows_at_other_steps_never_take_a_step_back(tmp_path):
    client = Client()
    mirror_to(client, tmp_path).log(row_of(30, **TRAIN))
    again = mirror_to(client, tmp_path)
    for step in (12, 24, 36, 48):
        again.log(row_of(step, **TRAIN))
    assert [row["step"] for row in client.rows] == [30, 36, 48]


class Client:
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.log = self.rows.append


def mirror_to(client: Client, folder: Path) -> WandbMirror:
    mirror = WandbMirror(WandbSettings(mode="disabled"), folder, say=print)
    mirror._run = client
    return mirror


def go_on(mirror: WandbMirror, folder: Path, said: list[str]) -> None:
    mirror.finish()
    again = WandbMirror.open(mirror._settings, folder, name="mlp", config=CONFIG, say=said.append)
    for step in (20, 30, 40):
        again.log({"step": step, "epoch": 1, "train/loss": 0.5})
    again.finish()


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_the_same_run_online(server, open_mirror, said, tmp_path):
    mirror = open_mirror()
    for step in (0, 10, 20):
        mirror.log({"step": step, "epoch": 1, "train/loss": 0.5})
    go_on(mirror, tmp_path / "20260102-120000-mlp-abcd", said)
    assert [*server.runs] == ["20260102-120000-mlp-abcd"]
    (run,) = server.runs.values()
    assert [row["step"] for row in run.history] == [0, 10, 20, 30, 40]
    assert [row["_step"] for row in run.history] == [0, 1, 2, 3, 4]
    assert run.exit_code == 0
    assert server.unknown == []


@pytest.mark.slow
def test_a_resumed_run_offline_is_two_folders_that_sync_to_one_run(server, open_mirror, said, tmp_path):
    folder = tmp_path / "20260102-120000-mlp-abcd"
    mirror = open_mirror(mode="offline")
    for step in (0, 10, 20):
        mirror.log({"step": step, "epoch": 1, "train/loss": 0.5})
    go_on(mirror, folder, said)
    folders = sorted(folder.glob("wandb/offline-run-*"))
    assert len(folders) == 2
    command = [sys.executable, "-m", "wandb", "sync", *map(str, folders)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    (run,) = server.runs.values()
    assert [row["step"] for row in run.history] == [0, 10, 20, 30, 40]
