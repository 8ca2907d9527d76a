"""Signals that ask a process to end: by an exception at once, or, while a training runs, between two updates.

State saved inside a signal handler is torn: the optimizer is a step ahead of the schedule, say. So while a
training runs the handler only takes note.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from rootflow.data.loaders import Loader  # brings torch, and every verb imports this file

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM") if hasattr(signal, name))
"""Signals that end a process which does nothing about them."""

WHILE_TRAINING = (*ENDING, *(getattr(signal, name) for name in ("SIGUSR1",) if hasattr(signal, name)))
"""Those that end a training; schedulers send SIGUSR1 some time before they kill."""

_SAME_S = 0.3
"""`timeout` and terminals send a signal to the process and to its group: that is one, delivered twice."""


class Interrupts:
    """The signals that came while `listening`; none do, outside of the main thread.

    Args:
        at_once: end by an exception when the first one comes, rather than when `leave` is called.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self.pending: int | None = None
        """Number of the first signal that came."""
        self._at_once = at_once
        self._process = os.getpid()
        self._came_s = 0.0

    @contextmanager
    def listening(self, signals: Iterable[int] = WHILE_TRAINING) -> Iterator[None]:
        """Take note of the first signal in the block; a second one leaves the process at once.

        Around this one may be another listening: it then knows of the signal that ended this one.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._take_note) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                outer = getattr(handler, "__self__", None)
                if isinstance(outer, Interrupts) and outer.pending is None:
                    outer.pending, outer._came_s = self.pending, self._came_s
                signal.signal(number, handler)

    def watch(self, batches: Loader) -> Watched:
        """Return the same batches, of which a signal ends the pass."""
        return Watched(batches, self)

    def leave(self) -> NoReturn:
        """Raise what the pending signal means: 130 for SIGINT, 143 for the others."""
        if self.pending == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(143)

    def _take_note(self, number: int, _frame: object) -> None:
        now_s = time.monotonic()
        if os.getpid() != self._process:  # a forked worker, which its parent ends
            return
        if self.pending is None:
            self.pending, self._came_s = number, now_s
            when = "stopping" if self._at_once else "stopping after this update"
            os.write(2, f"{when}; once more leaves at once\n".encode())
            if self._at_once:
                self.leave()
        elif now_s - self._came_s > _SAME_S:
            os._exit(130 if number == signal.SIGINT else 143)


class Watched:
    """Batches that end by an exception when a signal came; see `Interrupts.leave`."""

    def __init__(self, batches: Loader, interrupts: Interrupts) -> None:
        self._batches = batches
        self._interrupts = interrupts

    def __len__(self) -> int:
        if self._batches.num_batches is None:
            raise TypeError("nobody knows how many batches there are")
        return self._batches.num_batches

    def __iter__(self) -> Iterator[Any]:
        for batch in self._batches:
            if self._interrupts.pending is not None:
                self._interrupts.leave()
            yield batch
