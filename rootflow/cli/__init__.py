"""The `rootflow` command: one module per verb, imported when the verb is known."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import rootflow
from rootflow.errors import ConfigError, RootflowError, did_you_mean

VERBS = {
    "train": "train an experiment; many with -m",
    "check": "tell every mistake of an experiment or a sweep, without running it",
    "config": "show the config that an experiment would run with, and who set what",
    "list": "show the options of a group, or the keys of an option",
    "runs": "list and show finished and running runs",
    "new": "make a project, or add a model, data set, ... to one",
    "completion": "print the completion script of a shell",
}

HELP = """usage: rootflow <verb> [arguments]

{verbs}

  rootflow train                                 the default: an MLP on handwritten digits
  rootflow train model=resnet dataset=cifar      other options
  rootflow train optimizer.lr=0.01 seed=1        other values
  rootflow train -m optimizer=adamw,sgd seed=0,1,2   six runs

rootflow <verb> --help says more."""


def main(argv: list[str] | None = None) -> int:
    """Run one verb; return the exit code.

    0 done, 1 an error, 2 a wrong config, 130 and 143 stopped by SIGINT and SIGTERM.
    """
    verb, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="replace", line_buffering=True)  # type: ignore[union-attr]
    try:
        return _run_verb(verb, rest)
    except RootflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe went away (`| head`): not an error, but flushing at exit would be one.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run_verb(verb: str, rest: list[str]) -> int:
    if verb in ("-h", "--help"):
        print(HELP.format(verbs="\n".join(f"  {name:12}{text}" for name, text in VERBS.items())))
        return 0
    if verb == "--version":
        print(f"rootflow {rootflow.__version__}")
        return 0
    if verb == "__complete":  # what the scripts of `rootflow completion` call
        from rootflow.cli.completion import complete

        return complete(rest)
    try:
        Path.cwd()
    except FileNotFoundError:
        raise RootflowError("the current folder is no longer there; change to one that is.") from None
    if verb not in VERBS:
        raise ConfigError(f"there is no verb {verb!r}.{did_you_mean(verb, VERBS)} Verbs: {', '.join(VERBS)}.")
    with _stopping_once():
        code: int = importlib.import_module(f"rootflow.cli.{verb}").run(rest)
        return code


@contextlib.contextmanager
def _stopping_once() -> Iterator[None]:
    """Let the first SIGINT or SIGTERM end the verb by an exception, so that a run records how it ended.

    A second one at once is the same one, delivered twice (`timeout` and terminals do that), and must not
    stop the weights from being written; one that comes later is meant, and ends the process.
    """
    first_s: list[float] = []

    def stop(number: int, _frame: object) -> None:
        if not first_s:
            first_s.append(time.monotonic())
            os.write(2, b"stopping; once more in a second or later leaves at once\n")
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(143)
        if time.monotonic() - first_s[0] > 1:
            os._exit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
