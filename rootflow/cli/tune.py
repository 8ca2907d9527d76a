"""`rootflow tune`: find batch size, learning rate and workers, and train nothing."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rootflow.cli import arguments

if TYPE_CHECKING:
    from rootflow.discover.pins import Pins

USAGE = """usage: rootflow tune [lr] [batch_size] [workers] [group=option ...] [key=value ...] [flags]

Finds what is named, or else all that is `auto`, for what `rootflow train` with these would train. Nothing is
trained, and no run folder is left. What an earlier search found is not asked.

  rootflow tune model=resnet dataset=cifar
  rootflow tune lr optimizer=sgd trainer.batch_size=128
  rootflow tune batch_size --json

flags:
{flags}"""
_KEYS = {
    "lr": ("optimizer.lr",),
    "batch_size": ("trainer.batch_size", "trainer.micro_batch_size"),
    "workers": ("loader.num_workers",),
}
"""What can be searched, and the keys that are found by it."""


def run(argv: list[str]) -> int:
    """Run `rootflow tune ARGV` and return the exit code.

    Raises:
        RootflowError: the config is wrong, or the experiment can't be run.
    """
    made = parser()
    asked = list(itertools.takewhile(_KEYS.__contains__, argv))
    args = arguments.parse(made, argv[len(asked) :])
    if args.help:
        print(USAGE.format(flags=arguments.flags_of(made)))
        return 0
    with arguments.composer(args) as composer:
        searched = [f"{key}=auto" for name in asked for key in _KEYS[name]]
        overrides = [word for word in args.overrides if f"{word.partition('=')[0]}=auto" not in searched]
        config = composer.compose([*overrides, *searched])
    if asked and "lr" not in asked:
        config.discover["lr"]["method"] = "rule"  # no override: where lr is given it would have no effect
    from rootflow.tuning import tune  # torch is imported here at the earliest

    with contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext():
        pins = tune(config, plots=args.plots)
    if args.json:
        found = {key: dataclasses.asdict(item) for key, item in pins.found.items()}
        measured = {name: report.record() for name, report in pins.reports.items()}
        print(json.dumps({"discovered": found, "measured": measured}, indent=2))
    else:
        start = {"--config": args.config, "-cd": args.config_dir, "-cn": args.config_name}
        given = [word for flag, value in start.items() if value for word in (flag, str(value))]
        print(_command([*given, *overrides], asked, pins))
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the verb's flags."""
    made = arguments.parser("rootflow tune")
    made.add_argument("--json", action="store_true", help="print what was found and measured as JSON")
    made.add_argument("--plots", type=Path, metavar="FOLDER", help="draw what was measured into this folder")
    return made


def _command(given: list[str], asked: list[str], pins: Pins) -> str:
    """Return the command that trains with what was found."""
    keys = [key for name in asked or _KEYS for key in _KEYS[name] if key in pins.found]
    found = [f"{key}={pins.found[key].value}" for key in keys]
    return shlex.join(["rootflow", "train", *given, *found])
