"""`rootflow check`: every mistake of an experiment or of all jobs of a sweep, without running anything."""

from __future__ import annotations

import argparse

from rootflow.cli import arguments
from rootflow.config.folders import option_files

USAGE = """usage: rootflow check [SWEEP] [group=option ...] [key=value ...] [flags]

Composes what `rootflow train` with these would run, and tells every mistake in it. No run is made, torch is
not imported. Exit code 0: none found; 2: mistakes.

  rootflow check model=resnet optimizer.lr=0.1
  rootflow check seeds                            all jobs of sweeps/seeds.yaml
  rootflow check -m optimizer=adamw,sgd seed=0,1  all jobs of a multirun

flags:
{flags}"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the verb."""
    made = arguments.parser("rootflow check")
    made.add_argument("-m", "--multirun", action="store_true", help="check every combination of values")
    return made


def run(argv: list[str]) -> int:
    """Check; return 0. A mistake is raised."""
    made = parser()
    args = arguments.parse(made, argv)
    if args.help:
        print(USAGE.format(flags=arguments.flags_of(made)))
        return 0
    sweeps = option_files("sweeps", args.config_dir)
    args.overrides = [f"+sweeps={o}" if o in sweeps else o for o in args.overrides]
    is_many = args.multirun or any(o.startswith("+sweeps=") for o in args.overrides)
    with arguments.composer(args) as composer:
        configs = composer.compose_jobs(args.overrides) if is_many else [composer.compose(args.overrides)]
    from rootflow.config.canonical import identity

    if is_many:
        print(f"ok: {len(configs)} experiments, no two the same")
    else:
        print(f"ok: experiment {identity(configs[0])}")
    return 0
