"""output.log: a copy of what Python prints, taken while the run lives.

Works at the level of `sys.stdout` and `sys.stderr`: prints, warnings, log records and
tracebacks of this process are copied; what C libraries and child programs write to the terminal is not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO


class OutputLog:
    """An append-only text file that whole lines go to, each with one write."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self._mutex = threading.Lock()

    def write(self, text: str) -> None:
        """Append ``text``; what UTF-8 can't hold becomes `?`."""
        with self._mutex:
            if self._fd >= 0:
                os.write(self._fd, text.encode("utf-8", errors="replace"))

    def close(self) -> None:
        """Close the file; later writes are dropped, for the sake of threads that print to the end."""
        with self._mutex:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1

    @contextlib.contextmanager
    def capturing(self) -> Iterator[None]:
        """Copy what is printed to this log until the block ends."""
        before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
        copies = {name: CopyingStream(stream, self) for name, stream in before.items()}
        for name, copy in copies.items():
            setattr(sys, name, copy)
        moved = _move_logging({id(stream): copies[name] for name, stream in before.items()})
        try:
            yield
        finally:
            for handler, stream in moved:
                handler.setStream(stream)
            for name, copy in copies.items():
                copy.finish_line()
                if getattr(sys, name) is copy:
                    setattr(sys, name, before[name])


class CopyingStream:
    """Stands in for `sys.stdout`: passes everything on, and copies whole lines to a log.

    Of a line that was overwritten with carriage returns, as progress bars do, the log gets the last
    state only. Everything but writing is the original stream's (`isatty`, `fileno`, `encoding`, ...).
    """

    def __init__(self, stream: TextIO, log: OutputLog) -> None:
        self.stream = stream
        """Where the text goes on to; the console puts a live display's own stream here for a while."""
        self.original = stream
        self._log = log
        self._line = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)

    def write(self, text: str) -> int:
        """Write to the stream and, once the line is whole, to the log."""
        write_encodable(self.stream, text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._log.write(_last_state(line) + "\n")
        if "\r" in self._line[:-1]:
            self._line = _last_state(self._line)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each of ``lines``."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the stream; the log has no buffer but the line that isn't whole yet."""
        self.stream.flush()

    def finish_line(self) -> None:
        """Copy what there is of an unfinished line."""
        if self._line:
            self._log.write(_last_state(self._line) + "\n")
            self._line = ""


def write_encodable(stream: TextIO, text: str) -> None:
    r"""Write ``text``, with `\xe9` for what the stream's encoding lacks instead of an exception."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, errors="backslashreplace").decode(encoding))


def _last_state(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]


def _move_logging(copies: dict[int, CopyingStream]) -> list[tuple[Any, Any]]:
    """Let the root logger's handlers, which keep the stream they were made with, write to the copies."""
    moved = []
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and id(handler.stream) in copies:
            moved.append((handler, handler.setStream(copies[id(handler.stream)])))
    return moved
