"""The `rootflow` command: one module per verb, imported when the verb is known."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from pathlib import Path

import rootflow
from rootflow.errors import ConfigError, RootflowError, did_you_mean

VERBS = {
    "train": "train an experiment; many with -m",
    "resume": "go on with a run that was stopped, or make one longer",
    "tune": "find batch size, learning rate and workers, and train nothing",
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
        print("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
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
    from rootflow.interrupts import ENDING, Interrupts

    with Interrupts(at_once=True).listening(ENDING):  # so that a run records how it ended
        code: int = importlib.import_module(f"rootflow.cli.{verb}").run(rest)
        return code
