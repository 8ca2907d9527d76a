"""`rootflow config`: the whole config of an experiment, each key with what it means."""

from __future__ import annotations

from pathlib import Path

from rootflow.cli.train import parser

USAGE = """usage: rootflow config [group=option ...] [key=value ...]

Shows the config that `rootflow train` with these would run, each key with what it means."""


def run(argv: list[str]) -> int:
    """Print the checked config as YAML."""
    made = parser("rootflow config")
    args = made.parse_intermixed_args(argv)
    if args.help:
        print(USAGE)
        return 0
    from rootflow.config.compose import open_composer
    from rootflow.config.show import commented_yaml
    from rootflow.registry import open_project

    open_project(Path.cwd())
    with open_composer(primary=args.config_name, extra=args.config_dir) as composer:
        print(commented_yaml(composer.compose(args.overrides)), end="")
    return 0
