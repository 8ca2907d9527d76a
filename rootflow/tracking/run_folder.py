"""The run folder while its run lives: the writer, and the truth about the run.

Guarantees: run.json is replaced whole; a row of metrics.jsonl is one write, so that a kill leaves no
torn line; the lock is held for as long as the process lives and no longer, by no child of
it; a run that ends by an exception is recorded as such, and the exception goes on. The fields of
run.json are described at `rootflow.runs.record.RunFields`.
"""

from __future__ import annotations

import contextlib
import numbers
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, Unpack

from rootflow.errors import RootflowError, RunError
from rootflow.files import write_json, write_text
from rootflow.runs.paths import RunPaths
from rootflow.runs.record import SCHEMA, RunFields, read_run
from rootflow.runs.text import escape
from rootflow.tracking.metrics_log import CutRows, MetricsLog, cut_rows, is_nonfinite, plain_number
from rootflow.tracking.output_log import OutputLog
from rootflow.tracking.provenance import Provenance, collect_provenance
from rootflow.tracking.redaction import redact_argv, redact_text, redact_values
from rootflow.tracking.run_lock import RunLock

EndStatus = Literal["finished", "failed", "interrupted"]

_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_INTERRUPTED = (130, 143)
"""Exit codes of a process that SIGINT or SIGTERM ended."""
_ERROR_CHARACTERS = 4_000
"""An error message in run.json is cut here; output.log has all of it."""


def create_run_folder(parent: Path, slug: str) -> Path:
    """Make a new folder `<UTC time>-<slug>-<4 random characters>` under ``parent`` and return it.

    Any number of processes may do so at once, on one machine or on a shared disk; each gets its own.
    """
    cleaned = re.sub(r"[^a-z0-9._-]+", "-", slug.lower())[:40].strip("-.") or "run"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
            # not `random`, which the run seeds: equal seeds would draw equal names
            tail = "".join(_BASE32[byte % 32] for byte in os.urandom(4))
            path = parent / f"{stamp}-{cleaned}-{tail}"
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                return path
    except OSError as error:
        where = escape(str(parent))
        raise RunError(
            f"no folder can be made in {where}: {error.strerror}. Set tracking.root=..."
        ) from error


class RunFolder(RunPaths):
    """The folder of a live run; made by `create` or `resume`, used in a `with` block.

    The block copies what is printed to output.log and records how the run ended: "finished" if
    nothing else was said, "interrupted" for KeyboardInterrupt and `SystemExit(143)`, "failed" for any other
    exception. Whatever was raised goes on.
    """

    def __init__(self, path: Path, summary: RunFields, *, lock: RunLock) -> None:
        super().__init__(path)
        self.summary = summary
        """What run.json holds; changed by `update`, not directly."""
        self.cut = CutRows()
        """What `resume` cut off metrics.jsonl."""
        self._lock = lock
        self._zero = time.monotonic() - summary.get("elapsed_s", 0.0)
        self._mutex = threading.Lock()
        self._metrics = MetricsLog(self.metrics_jsonl)
        self._timing = MetricsLog(self.timing_jsonl)
        self._output = OutputLog(self.output_log)
        self._capture = contextlib.ExitStack()
        self.update()

    @classmethod
    def create(
        cls,
        parent: Path,
        slug: str,
        *,
        config: Mapping[str, Any],
        config_yaml: str,
        overrides: Sequence[str] = (),
        provenance: Provenance | None = None,
    ) -> Self:
        """Make a run folder and record how its run starts.

        Args:
            parent: where, e.g. runs/manual; made if missing.
            slug: a few words about the run, for the id and the name.
            config: resolved and nested; secrets are left out of all that is written.
            config_yaml: the text of config.yaml.
            overrides: what the command line changed.
            provenance: code and machine; None to look now, which takes some 50 ms.
        """
        provenance = provenance or collect_provenance()
        path = create_run_folder(parent, slug)
        paths = RunPaths(path)
        lock = RunLock(paths)
        write_text(paths.config_yaml, redact_text(config_yaml))
        if provenance.git_patch:
            write_text(paths.git_patch, provenance.git_patch)
        summary: RunFields = {
            "schema": SCHEMA,
            "id": path.name,
            "name": slug,
            "created_at": _now(),
            "argv": redact_argv(sys.argv),
            "overrides": redact_argv(overrides),
            "config": redact_values(config),
            "versions": provenance.versions,
            "hardware": provenance.hardware,
            "git": provenance.git,
        }
        return cls(path, summary | _session(), lock=lock)

    @classmethod
    def resume(cls, path: Path, *, metrics_bytes: int, lock: RunLock | None = None) -> Self:
        """Go on with the run in ``path`` from a checkpoint.

        Rows of metrics.jsonl that came after the checkpoint are moved to `metrics.cut-<n>.jsonl`, for they
        will be written again. The other files are appended to.

        Args:
            path: the folder.
            metrics_bytes: the size that metrics.jsonl had at the checkpoint.
            lock: of this folder, where the caller holds it already.

        Raises:
            RunError: another process is running it, or its run.json can't be read; nothing is changed.
        """
        record = read_run(path)
        if record.is_corrupt:
            raise RunError(f"The run {escape(str(path))} can't be resumed, it is {escape(record.status)}.")
        lock = lock or RunLock(record.paths)
        cut = cut_rows(record.paths.metrics_jsonl, metrics_bytes)
        folder = cls(path, record.summary | _session(), lock=lock)
        folder.cut = cut
        return folder

    def update(self, **fields: Unpack[RunFields]) -> None:
        """Replace fields of the summary, and run.json with it. A field is replaced whole."""
        with self._mutex:
            self.summary.update(fields)
            self.summary["elapsed_s"] = round(time.monotonic() - self._zero, 3)
            write_json(self.run_json, as_json(self.summary))

    def log(self, row: Mapping[str, float | int | str], *, timing: Mapping[str, float] | None = None) -> None:
        """Append one row to metrics.jsonl: flat, with its "step" and "epoch".

        A number that isn't finite is written as null, and its name and value under "nonfinite".

        Args:
            row: what equal trainings have equal.
            timing: how fast it went; to timing.jsonl, with the row's step.
        """
        self._metrics.write(row)
        if timing:
            self._timing.write({"step": row["step"], **timing})

    def metrics_bytes(self) -> int:
        """Return the size of metrics.jsonl in bytes."""
        return self.metrics_jsonl.stat().st_size

    def sync_metrics(self) -> int:
        """Make sure that metrics.jsonl is on the disk; return its size in bytes."""
        return self._metrics.sync()

    def cut_metrics(self, num_bytes: int) -> None:
        """Move what metrics.jsonl has after its first ``num_bytes`` bytes to `metrics.cut-<n>.jsonl`."""
        cut_rows(self.metrics_jsonl, num_bytes)

    def finish(
        self, status: EndStatus = "finished", *, stop_reason: str | None = None, exit_code: int = 0
    ) -> None:
        """Record that the run ended, and how; the folder stays open until the block ends."""
        fields: RunFields = {"status": status, "ended_at": _now(), "exit_code": exit_code}
        if stop_reason is not None:
            fields["stop_reason"] = stop_reason
        self.update(**fields)

    def fail(self, error: BaseException, traceback_text: str = "") -> None:
        """Record that ``error`` ended the run; the traceback goes to output.log."""
        self._output.write(redact_text(traceback_text))
        message = redact_text(str(error))[:_ERROR_CHARACTERS]
        self.update(error={"type": type(error).__name__, "message": message})
        self.finish("failed", exit_code=error.exit_code if isinstance(error, RootflowError) else 1)

    def close(self) -> None:
        """Let go of the files and of the lock; a run that was not finished counts as crashed."""
        self._capture.close()
        self._output.close()
        if self._lock.is_held:
            self._metrics.close()
            self._timing.close()
            self._lock.release()

    def __enter__(self) -> Self:
        self._capture.enter_context(self._output.capturing())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._lock.is_held:  # closed, or inherited by a forked child whose run it is not
            return
        try:
            # a full disk here must not hide the error that ended the run
            with contextlib.suppress(OSError) if error else contextlib.nullcontext():
                self._record_end(error)
        finally:
            self.close()

    def _record_end(self, error: BaseException | None) -> None:
        code = 130 if isinstance(error, KeyboardInterrupt) else _exit_code(error)
        if code in _INTERRUPTED:
            self.finish("interrupted", exit_code=code)
        elif error is not None and code != 0:
            self.fail(error, "".join(traceback.format_exception(error)))
        elif self.summary["status"] == "running":
            self.finish()


def _session() -> RunFields:
    """The fields that each session of a run sets anew."""
    return {
        "status": "running",
        "ended_at": None,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "stop_reason": None,
        "error": None,
        "exit_code": None,
    }


def _exit_code(error: BaseException | None) -> object:
    return (error.code or 0) if isinstance(error, SystemExit) else None


def as_json(value: Any) -> Any:
    """Return nested data as run.json holds it."""
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if is_nonfinite(value):
        return str(float(value))
    if value is None or isinstance(value, str | int | float):
        return value
    return plain_number(value) if isinstance(value, numbers.Real) else str(value)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
