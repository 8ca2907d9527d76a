"""run.json: what is in it, and reading it whatever state it is in.

run.json is replaced whole, so a reader finds the summary of some moment, never a part of one.
"crashed" is never written: a run that says it is running while no process holds its lock has
crashed, and so SIGKILL, a power cut and a lost node are told apart from a run that is alive.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from rootflow.runs.paths import RunPaths

SCHEMA = 1
"""The version of run.json that this rootflow writes, and the highest that it reads."""


class RunFields(TypedDict, total=False):
    """The fields of run.json. Times are ISO 8601 in UTC, durations seconds.

    Numbers that JSON lacks are the strings "nan", "inf" and "-inf", which `float` reads back.
    """

    schema: int  # of this file; see SCHEMA
    id: str  # the folder's name
    name: str  # for people and W&B; the slug unless the user gave one
    status: str  # running, finished, failed or interrupted
    created_at: str
    ended_at: str | None
    elapsed_s: float  # over all its sessions, were it resumed
    pid: int
    host: str
    argv: list[str]  # secrets left out, as everywhere here
    overrides: list[str]  # what the command line changed, in Hydra's form
    config: dict[str, Any]  # resolved and nested, as the run began; `resumes` has what changed
    identity: str  # of the experiment: equal for two runs of the same config, however it was written
    seed: int | None
    discovered: dict[str, dict[str, Any]]  # dotted key -> {"value": ..., "reason": ...}
    measured: dict[str, dict[str, Any]]  # by which search -> all that it measured, its curves too
    dataset: dict[str, Any]
    progress: dict[str, Any]  # {"epoch": ..., "step": ...}
    last: dict[str, Any]  # metrics of the newest evaluation
    best: dict[str, Any]  # metrics of ONE step, with its step, epoch and "monitor": the name
    test: dict[str, Any]  # metrics of the best weights on the test split
    stop_reason: str | None
    error: dict[str, str] | None  # {"type": ..., "message": ...}
    exit_code: int | None
    timing: dict[str, float]  # part of the run -> seconds
    versions: dict[str, str]
    hardware: dict[str, Any]
    git: dict[str, Any] | None  # commit, branch, dirty, untracked, remote
    wandb: dict[str, Any] | None  # id, mode, url, dir
    init_from: dict[str, str] | None  # the weights that it began with: path, sha256
    resumes: list[dict[str, Any]]  # one for each time that it went on, see ResumeFields
    adjustments: list[dict[str, Any]]  # settings that it changed by itself: step, key, old, new, reason


class ResumeFields(TypedDict):
    """How a run went on from a checkpoint."""

    at: str  # the time
    host: str
    step: int  # of the checkpoint: updates that were not lost
    label: str | None  # of the checkpoint
    exact: bool  # whether all is, to the bit, as if the run had never stopped
    reasons: list[str]  # why not
    changes: dict[str, dict[str, Any]]  # dotted key -> {"old": ..., "new": ...}
    rejected: list[str]  # newer checkpoints that were damaged, a sentence each


# fmt: off
_OBJECTS = (
    "config", "discovered", "measured", "dataset", "progress", "last", "best", "test", "error", "timing",
    "versions", "hardware", "git", "wandb", "init_from",
)
# fmt: on
_LISTS = ("argv", "overrides", "resumes", "adjustments")


@dataclass(frozen=True)
class RunRecord:
    """One run as its folder tells it."""

    paths: RunPaths
    status: str
    """running, finished, failed, interrupted, crashed, or `corrupt: ` and the reason."""
    summary: RunFields
    """What run.json holds, its objects and lists never None; empty when corrupt."""

    @property
    def id(self) -> str:
        """The run's id, which is its folder's name."""
        return self.paths.id

    @property
    def is_corrupt(self) -> bool:
        """Whether run.json could not be read."""
        return self.status.startswith("corrupt")


def read_run(path: Path) -> RunRecord:
    """Read the record of the run in folder ``path``; never raises, `status` tells what is wrong."""
    paths = RunPaths(path)
    try:
        summary = _load_summary(paths.run_json)
    except (OSError, ValueError, RecursionError) as error:
        return RunRecord(paths, f"corrupt: {error}", {})
    status = str(summary.get("status"))
    if status == "running" and not is_alive(paths):
        status = "crashed"
    return RunRecord(paths, status, summary)


def is_alive(paths: RunPaths) -> bool:
    """Whether a process holds the run's lock.

    The lock is tried, shared and without waiting, and let go at once; flock offers no way to ask.
    """
    try:
        fd = os.open(paths.lock, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _load_summary(run_json: Path) -> RunFields:
    summary: Any = json.loads(run_json.read_bytes(), parse_float=_finite, parse_constant=_finite)
    if not isinstance(summary, dict):
        raise ValueError(f"run.json holds {type(summary).__name__}, not an object")
    schema = summary.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise ValueError(f"run.json has schema {schema!r}; this rootflow reads up to {SCHEMA}")
    for keys, kind in ((_OBJECTS, dict), (_LISTS, list)):
        for key in keys:
            summary[key] = value = summary.get(key) or kind()
            if not isinstance(value, kind):
                raise ValueError(f"{key} in run.json is not {kind.__name__}")
    return summary  # type: ignore[return-value]  # the outer shape was checked just above


def _finite(literal: str) -> float:
    """Refuse NaN, Infinity and 1e999, which could not be written out as JSON again."""
    if not math.isfinite(number := float(literal)):
        raise ValueError(f"run.json holds {literal}, which is not JSON")
    return number
