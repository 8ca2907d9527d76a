"""What every verb takes that composes an experiment: overrides, and the config to start from."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rootflow.errors import ConfigError

if TYPE_CHECKING:
    from rootflow.config.compose import Composer


def parser(prog: str) -> argparse.ArgumentParser:
    """Return a parser of overrides and flags in any order, to which a verb adds its own flags."""
    made = argparse.ArgumentParser(
        prog, add_help=False, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("overrides", nargs="*")
    flag = made.add_argument
    flag("-h", "--help", action="store_true", help="show this")
    flag(
        "--config",
        metavar="FILE",
        help="start from this config; the folder of a run: with what it found for auto; - reads stdin",
    )
    flag("--overrides-json", metavar="JSON", help="overrides as a JSON object, or the file that holds one")
    flag("-cd", "--config-dir", metavar="DIR", type=Path, help="a folder of config files, searched first")
    flag("-cn", "--config-name", metavar="NAME", help="the config in conf/ to start from (default: config)")
    return made


def flags_of(made: argparse.ArgumentParser) -> str:
    """Return the lines of its help that are about flags."""
    return made.format_help().partition("options:\n")[2].rstrip()


def parse(made: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Return the arguments; `overrides` are then in Hydra's grammar, from wherever they came.

    Raises:
        ConfigError: an override can't be read.
    """
    from rootflow.config.overrides import read_overrides, split_arguments

    args = made.parse_intermixed_args(split_arguments(argv, made._option_string_actions))
    if not args.help:
        args.overrides = read_overrides(args.overrides, json=args.overrides_json, environ=os.environ)
    return args


@contextmanager
def composer(args: argparse.Namespace) -> Iterator[Composer]:
    """Open the project in the current folder, and Hydra on what the arguments say.

    Raises:
        ConfigError: a file or folder that they name can't be read.
    """
    from rootflow.config.compose import open_composer
    from rootflow.config.layers import read_layer
    from rootflow.registry import open_project
    from rootflow.runs.reproduce import load_config

    open_project(Path.cwd())
    if args.config is not None and args.config_name:
        raise ConfigError("--config and --config-name (command line) both say what to start from: keep one.")
    layers = []
    if args.config is not None:
        is_piped = args.config == "-" and sys.stdin is not None
        layers = [
            read_layer("standard input", sys.stdin.read())
            if is_piped
            else load_config(args.config, args.overrides)
        ]
    primary = args.config_name or "config"
    with open_composer(primary=primary, extra=args.config_dir, layers=layers) as opened:
        args.overrides = opened.reader.expanded(args.overrides)
        yield opened
