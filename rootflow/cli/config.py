"""`rootflow config`: the whole config of an experiment, what each key means, and who set it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rootflow.cli import arguments
from rootflow.errors import ConfigError

if TYPE_CHECKING:
    from rootflow.config.compose import Composer
    from rootflow.config.schema import Config

USAGE = """usage: rootflow config [group=option ...] [key=value ...] [flags]
       rootflow config explain KEY [group=option ...] [key=value ...]

Shows the config that `rootflow train` with these would run, each key with what it means. `explain` shows what
a key takes and who set it: the signature, which file on which line, the command line.

  rootflow config model=resnet > mine.yaml; rootflow train --config mine.yaml
  rootflow config --diff optimizer=sgd            what differs from the defaults
  rootflow config explain optimizer.lr optimizer=sgd

flags:
{flags}"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the verb."""
    made = arguments.parser("rootflow config")
    made.add_argument("--flat", action="store_true", help="one line a key, each an override")
    made.add_argument("--json", action="store_true", help="print JSON")
    made.add_argument("--diff", action="store_true", help="only what differs from the defaults")
    return made


def run(argv: list[str]) -> int:
    """Print the checked config, or what is known about one key."""
    made = parser()
    args = arguments.parse(made, argv)
    if args.help:
        print(USAGE.format(flags=arguments.flags_of(made)))
        return 0
    explained = args.overrides[1:2] if args.overrides[:1] == ["explain"] else None
    if explained == []:
        raise ConfigError("`rootflow config explain` (command line) needs a key, e.g. optimizer.lr.")
    default = _default(args) if args.diff else None
    with arguments.composer(args) as composer:
        if explained:
            print(_explanation(composer, explained[0], args.overrides[2:], as_json=args.json))
        elif default is not None:
            print(_difference(composer, default, args.overrides, as_json=args.json))
        else:
            print(_config(composer, args.overrides, is_flat=args.flat, as_json=args.json))
    return 0


def _config(composer: Composer, overrides: list[str], *, is_flat: bool, as_json: bool) -> str:
    from rootflow.config.flat import to_flat
    from rootflow.config.overrides import quoted
    from rootflow.config.show import commented_yaml

    config = composer.compose(overrides)
    values = to_flat(config.to_dict()) if is_flat else config.to_dict()
    if as_json:
        return json.dumps(values, indent=1)
    if is_flat:
        return "\n".join(f"{key}={quoted(value)}" for key, value in values.items())
    return commented_yaml(config).rstrip("\n")


def _default(args: argparse.Namespace) -> Config:
    """Return what `rootflow train` trains in this project when nothing is said."""
    from rootflow.config.compose import open_composer
    from rootflow.registry import open_project

    open_project(Path.cwd())
    with open_composer(extra=args.config_dir) as composer:
        return composer.compose([])


def _difference(composer: Composer, default: Config, overrides: list[str], *, as_json: bool) -> str:
    from rootflow.config.explain import differences

    found = differences(default, composer.compose(overrides), composer.origins(overrides))
    if as_json:
        return json.dumps([vars(one) for one in found], indent=1)
    rows = [(one.key, f"{_text(one.default)} -> {_text(one.value)}", one.place) for one in found]
    return _columns(rows) or "nothing differs from the defaults"


def _explanation(composer: Composer, key: str, overrides: list[str], *, as_json: bool) -> str:
    from rootflow.config.explain import explain

    origins = composer.origins(overrides)
    found = explain(composer.compose(overrides), origins, key)
    if as_json:
        return json.dumps([{**vars(one), "chain": [vars(s) for s in one.chain]} for one in found], indent=1)
    if len(found) > 1:
        chosen = origins.choice(key)
        title = [f"{key}={chosen.value}, chosen by {chosen.place}"] if chosen else []
        rows = _columns([(one.key, _text(one.value), one.chain[-1].place) for one in found])
        return "\n".join([*title, rows])
    (one,) = found
    chain = [(_text(s.value), s.place + ("" if s is not one.chain[-1] else "  <- holds")) for s in one.chain]
    lines = [f"{one.key} = {_text(one.value)}", one.about, f"takes {one.takes}" if one.takes else ""]
    return "\n".join([*filter(None, lines), *(f"  {line}" for line in _columns(chain).splitlines())])


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows as columns; the last one is as wide as it needs to be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
