"""What a run says while it runs. One console, two faces.

On a terminal: live bars with permanent lines above them. Anywhere else (a file, a pipe, CI, Slurm):
plain ASCII lines, one an epoch and a sign of life every 30 s within long ones; no colour, no
wrapping, nothing overwritten, so that grep and tail -f work. Lines are ordinary writes to the
stream, so output.log gets exactly them; bars go to the terminal itself and to no log.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO, cast

from rootflow.runs.text import escape, format_duration, format_number
from rootflow.tracking.output_log import CopyingStream

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

_BARS_EVERY_S = 0.125
_HEARTBEAT_EVERY_S = 30.0
_PAUSE_PER_DRAWING = 100
"""A drawing that took 4 ms is followed by 0.4 s of peace, so the bars cost at most 1 % of the training."""


class _Display(Protocol):
    """What is shown within an epoch."""

    every_s: float

    def show(self, state: _State) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class _State:
    """Where the run is, and how fast."""

    epoch: int
    max_epochs: int | None
    step: int
    steps: int
    loss: float
    rate: str

    def figures(self) -> str:
        loss = "" if math.isnan(self.loss) else f"loss {format_number(self.loss)}"
        return f"{loss}  {self.rate}".strip()


class Console:
    """The one place a run prints through, to what `sys.stdout` is at the time; made by `open`."""

    def __init__(self, *, live: bool) -> None:
        terminal = _terminal_of(sys.stdout)
        self._encoding = (live and terminal.encoding) or "ascii"
        self._display: _Display = _Bars(terminal) if live else _Heartbeat(self.line)
        self._next_s = time.monotonic() + self._display.every_s
        self._shown = (0, 0, 0.0)

    @classmethod
    def open(cls) -> Self:
        """Return a console, to be closed or used in a `with` block.

        It has bars if stdout is a terminal and neither CI nor NO_COLOR nor TERM=dumb is set.
        """
        return cls(live=_is_live(sys.stdout))

    def line(self, text: str) -> None:
        """Write one permanent line at once; characters that a terminal would obey are escaped."""
        shown = escape(text).encode(self._encoding, errors="backslashreplace").decode(self._encoding)
        try:
            sys.stdout.write(shown + "\n")
            sys.stdout.flush()
        except OSError:
            _silence_stdout()
        self._next_s = time.monotonic() + self._display.every_s

    def setting(self, key: str, value: object, reason: str) -> None:
        """Say what an `auto` became, by the key that would set it: `trainer.batch_size=32  <reason>`."""
        self.line(f"{key}={format_number(value)}  {reason}")

    def progress(
        self,
        epoch: int,
        max_epochs: int | None,
        *,
        step: int,
        steps_per_epoch: int,
        loss: float,
        batch_size: int | None = None,
    ) -> None:
        """Show where the run is; to be called at each update, costs nothing between two displays.

        Args:
            epoch: counted from 1.
            max_epochs: None where nobody knows.
            step: updates done in this epoch, from 1 to ``steps_per_epoch``.
            steps_per_epoch: updates of a whole epoch.
            loss: the newest one that was read; NaN before the first.
            batch_size: samples of an update, to give the speed in samples; None gives it in updates.
        """
        now = time.monotonic()
        if epoch != self._shown[0]:
            self._shown = (epoch, step, now)
        if now >= self._next_s:
            rate = self._rate(step, now, batch_size)
            self._display.show(_State(epoch, max_epochs, step, steps_per_epoch, loss, rate))
            self._shown = (epoch, step, now)
            cost_s = time.monotonic() - now
            self._next_s = now + max(self._display.every_s, cost_s * _PAUSE_PER_DRAWING)

    def epoch(
        self, epoch: int, max_epochs: int | None, *, metrics: Mapping[str, object], seconds: float
    ) -> None:
        """Write the permanent line of an epoch that is over, its metrics in the order given."""
        figures = (f"{name} {format_number(value)}" for name, value in metrics.items())
        self.line("  ".join((_epoch_of(epoch, max_epochs), *figures, format_duration(seconds))))

    def close(self) -> None:
        """Take the bars away and give the cursor back."""
        self._display.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rate(self, step: int, now: float, batch_size: int | None) -> str:
        _, last_step, last_s = self._shown
        if step <= last_step:
            return ""
        per_s = (step - last_step) / (now - last_s)
        return f"{per_s:.1f} steps/s" if batch_size is None else f"{per_s * batch_size:,.0f} samples/s"


class _Heartbeat:
    """The plain face: a line now and then."""

    every_s = _HEARTBEAT_EVERY_S

    def __init__(self, write_line: Callable[[str], None]) -> None:
        self._write_line = write_line

    def show(self, state: _State) -> None:
        where = _epoch_of(state.epoch, state.max_epochs)
        self._write_line(f"{where}  step {state.step}/{state.steps}  {state.figures()}")

    def close(self) -> None:
        pass


class _Bars:
    """The terminal's face: a bar of epochs over a bar of steps; started when first shown."""

    every_s = _BARS_EVERY_S

    def __init__(self, terminal: TextIO) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._rich = RichConsole(file=terminal)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}{task.fields[of]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._rich,
            auto_refresh=False,  # a thread would fight the training loop for the interpreter
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._epochs = self._progress.add_task("epoch", total=None, of="", note="")
        self._steps = self._progress.add_task("step", total=None, of="", note="")
        self._redirection = contextlib.ExitStack()

    def show(self, state: _State) -> None:
        if not self._progress.live.is_started:
            self._redirection.enter_context(_printing_above(self._rich))
            self._progress.start()
        done = state.epoch - 1 + state.step / state.steps
        of_epochs = "" if state.max_epochs is None else f"/{state.max_epochs}"
        self._progress.update(self._epochs, completed=done, total=state.max_epochs, of=of_epochs)
        self._progress.update(
            self._steps, completed=state.step, total=state.steps, of=f"/{state.steps}", note=state.figures()
        )
        self._progress.refresh()

    def close(self) -> None:
        self._progress.stop()
        self._redirection.close()


@contextlib.contextmanager
def _printing_above(rich_console: RichConsole) -> Iterator[None]:
    """Let everything that is printed to the terminal appear above the live bars.

    A stream that is copied to output.log keeps its place and only its far end is exchanged, so that
    the log goes on getting what is printed, and never a bar.
    """
    from rich.file_proxy import FileProxy

    undo = contextlib.ExitStack()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not stream.isatty():
            continue
        proxy = cast("TextIO", FileProxy(rich_console, _terminal_of(stream)))
        if isinstance(stream, CopyingStream):
            undo.callback(setattr, stream, "stream", stream.stream)
            stream.stream = proxy
        else:
            undo.callback(setattr, sys, name, stream)
            setattr(sys, name, proxy)
    with undo:
        yield


def _silence_stdout() -> None:
    """Print to nowhere from here on: a reader that went away (`| head`) must not end a training."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _terminal_of(stream: TextIO) -> TextIO:
    return stream.original if isinstance(stream, CopyingStream) else stream


def _is_live(stream: TextIO) -> bool:
    environment = os.environ
    quiet = environment.get("CI") or environment.get("NO_COLOR") or environment.get("TERM") == "dumb"
    return not quiet and stream.isatty()


def _epoch_of(epoch: int, max_epochs: int | None) -> str:
    return f"epoch {epoch}" if max_epochs is None else f"epoch {epoch}/{max_epochs}"
