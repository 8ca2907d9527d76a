"""What can happen to a process that writes files: killed, refused, cut short; and a record of what it did."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

CALLS = ("mkdir", "open", "write", "fsync", "rename", "replace", "unlink", "rmdir")
"""All that changes a disk, and the opening of files."""


@contextlib.contextmanager
def watched(
    before: Callable[[str, tuple[Any, ...]], None], *, instead: dict[str, Any] | None = None
) -> Iterator[None]:
    """Call ``before`` with the name and arguments of each of CALLS, in this process."""
    real = {name: getattr(os, name) for name in CALLS}

    def wrapped(name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            before(name, args)
            return (instead or {}).get(name, real[name])(*args, **options)

        return call

    for name in CALLS:
        setattr(os, name, wrapped(name))
    try:
        yield
    finally:
        for name in CALLS:
            setattr(os, name, real[name])


def count_calls(body: Callable[[], object]) -> int:
    names: list[str] = []
    with watched(lambda name, args: names.append(name)):
        body()
    return len(names)


def recorded(body: Callable[[], object]) -> list[tuple[str, tuple[Any, ...], Any]]:
    """Run ``body`` and return each of its calls with the arguments and what it returned."""
    calls: list[tuple[str, tuple[Any, ...], Any]] = []

    def recording(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            result = real(*args, **options)
            kept = (args[0], bytes(args[1])) if name == "write" else args
            calls.append((name, kept, result))
            return result

        return call

    with watched(
        lambda name, args: None, instead={name: recording(name, getattr(os, name)) for name in CALLS}
    ):
        body()
    return calls


def _half_written(name: str, args: tuple[Any, ...], real_write: Callable[[int, bytes], int]) -> None:
    if name == "write":
        real_write(args[0], bytes(args[1])[: len(args[1]) // 2])


@contextlib.contextmanager
def failing_at(call: int, number: int) -> Iterator[None]:
    """Let call ``call`` (from 0) fail with that errno, a write when half is written; ENOSPC from then on."""
    counted, write = iter(range(10**6)), os.write

    def before(name: str, args: tuple[Any, ...]) -> None:
        index = next(counted)
        if index == call or (index > call and number == errno.ENOSPC and name in ("write", "mkdir")):
            _half_written(name, args, write)
            raise OSError(number, os.strerror(number))

    with watched(before):
        yield


@contextlib.contextmanager
def short_writes() -> Iterator[None]:
    """Let every write take only some bytes of what it is given."""
    write = os.write
    with watched(
        lambda name, args: None,
        instead={"write": lambda fd, data: write(fd, bytes(data[: len(data) // 3 + 1]))},
    ):
        yield


def run_killed(body: Callable[[], object], call: int) -> bool:
    """Run ``body`` in a forked child that is killed before call ``call``, or in the middle of that write.

    Returns whether it was: False if it made no such call, and ended well.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads: they are idle here
        pid = os.fork()
    if not pid:
        _run_and_exit(body, call)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def _run_and_exit(body: Callable[[], object], call: int) -> NoReturn:
    counted, write = iter(range(10**6)), os.write

    def before(name: str, args: tuple[Any, ...]) -> None:
        if next(counted) == call:
            _half_written(name, args, write)
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        with watched(before):
            body()
        os._exit(0)
    finally:
        os._exit(1)
