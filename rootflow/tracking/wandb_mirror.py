"""The mirror of a run on W&B; the only module that imports wandb, and only when a run wants it.

Guarantees: nothing that W&B does stops, or holds up, the training for longer than the two timeouts
below; nobody is ever asked for a key; no secret of the command line, the config or the working
tree is sent. The first failure is said in one line; then the run goes on offline, or without the mirror.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from rootflow.errors import RunError
from rootflow.tracking.redaction import redact_argv, redact_values
from rootflow.tracking.settings import WandbSettings

_INIT_TIMEOUT_S = 15.0
_FINISH_TIMEOUT_S = 10.0
_OFFLINE_HINT = "logging offline; `wandb sync` uploads it later"


class WandbMirror:
    """One run on W&B, or nothing that answers the same calls; made by `open`."""

    def __init__(self, settings: WandbSettings, folder: Path, *, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._folder = folder
        self._say = say
        self._run: Any = None
        self._mark = folder / "wandb" / "sent.json"
        self._before = _read_mark(self._mark)
        self._sent = self._before
        self.record: dict[str, Any] = {"id": None, "mode": "disabled", "url": None, "dir": None}
        """What it became, for run.json: id, mode (online, offline, disabled), url and dir."""

    @classmethod
    def open(
        cls,
        settings: WandbSettings,
        folder: Path,
        *,
        name: str,
        config: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> WandbMirror:
        """Start the W&B run with the id of the run folder ``folder``, whose `wandb/` gets its files.

        Args:
            settings: the mode decides what a failure means, see Raises.
            folder: the run folder.
            name: what W&B shows.
            config: resolved and nested.
            say: gets the one line about where the run is logged, or why not.

        Raises:
            RunError: the settings, not the environment, ask for `online`, and that can't be had.
        """
        mirror = cls(settings, folder, say=say)
        mode = _wanted_mode(settings)
        if mode != "disabled":
            mirror._start(mode, {"name": name, "config": redact_values(config)})
        return mirror

    def log(self, row: Mapping[str, float | int | str]) -> None:
        """Send one row of metrics, with its own "step" and "epoch": W&B's own step is never used.

        Of a run that goes on from a checkpoint the rows come again that W&B has already. Left out are those
        of the steps before the last one sent, and at that step the metrics that were sent: so no row is there
        twice, and no step comes after a later one.
        """
        if self._before is not None and self._before.covers(row):
            return
        with self._surviving():
            if self._run:
                self._run.log(dict(row))
                self._note(row)

    def summary(self, values: Mapping[str, float | int | str]) -> None:
        """Set values that stand for the whole run, e.g. `best/val/accuracy`."""
        with self._surviving():
            if self._run:
                self._run.summary.update(dict(values))

    def picture(self, name: str, path: Path) -> None:
        """Send a picture."""
        with self._surviving():
            if self._run:
                import wandb

                self._run.log({name: wandb.Image(str(path))})

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send a table; the first row has its columns."""
        with self._surviving():
            if self._run and rows:
                import wandb

                cells = [list(row.values()) for row in rows]
                self._run.log({name: wandb.Table(columns=list(rows[0]), data=cells)})

    def finish(self, exit_code: int = 0) -> None:
        """End the W&B run; its file is complete when this returns."""
        run, self._run = self._run, None
        if run is None:
            return
        try:
            run.finish(exit_code=exit_code)
        except Exception as error:  # noqa: BLE001  # whatever the client raises, the run has its own record
            self._say(
                f"W&B did not get everything ({_first_line(error)}); `wandb sync {run.settings.sync_dir}`"
            )
        _stop_service()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish with the exit code of how the block ended, which W&B shows as finished or failed."""
        self.finish(exit_code=0 if error is None else 1)

    def _note(self, row: Mapping[str, Any]) -> None:
        """Keep on the disk what was sent last; for W&B gets fewer rows than metrics.jsonl."""
        step, names = row.get("step"), frozenset(row)
        if not isinstance(step, int):
            return
        if self._sent is not None and self._sent.step == step:
            names |= self._sent.names
        self._sent = _Sent(step, names)
        self._mark.parent.mkdir(exist_ok=True)
        scratch = self._mark.with_suffix(".partial")
        scratch.write_text(json.dumps({"step": step, "names": sorted(names)}))
        scratch.replace(self._mark)  # not synced: what a power cut takes, it takes of the client's file, too

    def _start(self, mode: str, identity: dict[str, Any]) -> None:
        try:
            wandb = _import_wandb(mode)
            if mode == "online" and not wandb.login(prompt=False, verify=False):
                mode = self._without_key()
            self._run = self._init(wandb, mode, identity)
        except Exception as error:  # noqa: BLE001  # the client raises a dozen kinds, others in each version
            _stop_service()
            self._fall_back(mode, identity, error)
            return
        directory = os.path.relpath(self._run.settings.sync_dir, self._folder)
        url = self._run.url if mode == "online" else None
        self.record = {"id": self._run.id, "mode": mode, "url": url, "dir": directory}
        if url:
            self._say(f"W&B: {url}")

    def _without_key(self) -> str:
        if self._settings.mode == "online":
            raise RunError("no API key was found")
        self._say(f"W&B: no API key was found, {_OFFLINE_HINT}")
        return "offline"

    def _fall_back(self, failed_mode: str, identity: dict[str, Any], error: Exception) -> None:
        if self._settings.mode == "online":
            raise RunError(
                f"tracking.wandb.mode is online, but W&B can't be used: {_first_line(error)}. "
                "Run `wandb login`, or use tracking.wandb.mode=auto or offline."
            ) from error
        if failed_mode == "online":
            self._say(f"W&B: {_first_line(error)}, {_OFFLINE_HINT}")
            self._start("offline", identity)
        else:
            self._say(f"W&B is off for this run: {_first_line(error)}")

    def _init(self, wandb: Any, mode: str, identity: dict[str, Any]) -> Any:
        settings = self._settings
        with _argv_without_secrets():
            run = wandb.init(
                **identity,
                id=self._folder.name,
                dir=str(self._folder),
                mode=mode,
                project=settings.project,
                entity=settings.entity,
                group=settings.group,
                tags=list(settings.tags) or None,
                notes=settings.notes,
                resume="allow",  # without it a resumed run would start again at its first row
                settings=_client_settings(wandb),
            )
        run.define_metric("step")
        run.define_metric("epoch")
        run.define_metric("*", step_metric="step")
        return run

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        """Turn the mirror off, with one line, when the client fails in the block."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # whatever the client raises, the run goes on
            self._run = None
            self._say(f"W&B is off from here on: {_first_line(error)}")
            _stop_service()


@dataclass(frozen=True)
class _Sent:
    """The last step of which W&B got a row, and the names of what it got of it."""

    step: int
    names: frozenset[str]

    def covers(self, row: Mapping[str, Any]) -> bool:
        step = row.get("step", math.inf)
        return bool(step < self.step or (step == self.step and row.keys() <= self.names))


def _read_mark(path: Path) -> _Sent | None:
    """Return what an earlier session of the run sent last; None if there was none, or nobody knows."""
    try:
        found = json.loads(path.read_bytes())
        return _Sent(found["step"], frozenset(found["names"]))
    except (OSError, ValueError):
        return None


def _wanted_mode(settings: WandbSettings) -> str:
    if settings.mode != "auto":
        return settings.mode
    mode = os.environ.get("WANDB_MODE") or "online"
    return {"online": "online", "run": "online", "shared": "online", "disabled": "disabled"}.get(
        mode, "offline"
    )


def _import_wandb(mode: str) -> Any:
    import wandb

    # what an earlier run of this process left open would be handed out again by `wandb.init`
    with contextlib.suppress(Exception):
        wandb.finish()
    _stop_service()
    # quiet from the first line on; and this mode, for WANDB_MODE=offline would make `login` say no
    wandb.setup(wandb.Settings(silent=True, mode=cast("Any", mode)))
    return wandb


def _client_settings(wandb: Any) -> Any:
    """Return the settings of the W&B client, as far as this version of it has them."""
    wanted = {
        "init_timeout": _INIT_TIMEOUT_S,
        "finish_timeout": _FINISH_TIMEOUT_S,
        "finish_timeout_raises": True,
        "console": "off",  # output.log has it, without the live bars
        "disable_git": True,  # its patch would hold .env files; git.patch doesn't
        "disable_code": True,
        "x_transaction_log_flush_interval": 1.0,  # a killed run loses a second of rows, not 15
    }
    return wandb.Settings(
        **{name: value for name, value in wanted.items() if name in wandb.Settings.model_fields}
    )


@contextlib.contextmanager
def _argv_without_secrets() -> Iterator[None]:
    """Hide secrets from the client, which sends `sys.argv` as it finds it."""
    argv = sys.argv
    sys.argv = redact_argv(argv)
    try:
        yield
    finally:
        sys.argv = argv


def _stop_service() -> None:
    """End the client's service process, if there is one.

    Only then is an offline file complete: `finish` returns some milliseconds before. And a run whose
    start failed has its id in use for as long as the service lives.
    """
    with contextlib.suppress(Exception):
        wandb: Any = sys.modules["wandb"]
        wandb.run = None  # a run that could not be finished stays there, and `login` then says no
        wandb.teardown()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
