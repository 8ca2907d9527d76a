"""The lock that tells a living run from a crashed one.

The kernel lets go of it when the process is gone, however it went. Programs started by the run don't
inherit it (close-on-exec), and forked children close it at once: a loader's worker that outlives the
run would otherwise keep it "running".
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import weakref

from rootflow.errors import RunError
from rootflow.runs.paths import RunPaths
from rootflow.runs.text import escape

_WAITS_S = (0.0, 0.01, 0.05, 0.2)
"""A reader that looks whether the run lives holds the lock too, for microseconds."""


class RunLock:
    """The lock of one run folder, held from construction to `release`.

    Raises:
        RunError: another process holds it.
    """

    def __init__(self, paths: RunPaths) -> None:
        self._fd = os.open(paths.lock, os.O_RDWR | os.O_CREAT, 0o666)
        if not self._taken():
            self.release()
            raise RunError(
                f"The run {escape(str(paths.path))} is being run by another process. Stop that one first."
            )
        _held.add(self)

    def _taken(self) -> bool:
        for wait_s in _WAITS_S:
            time.sleep(wait_s)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
        return False

    @property
    def is_held(self) -> bool:
        """Whether this process holds it; False in a forked child."""
        return self._fd >= 0

    def release(self) -> None:
        """Let go of the lock; in a forked child this closes the copy and leaves the lock as it is."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _release_in_child() -> None:
    for lock in _held:
        lock.release()


os.register_at_fork(after_in_child=_release_in_child)
