"""`rootflow list`: groups, the options of one, the keys of one option."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rootflow.config.folders import group_names
from rootflow.errors import ConfigError, did_you_mean


def parser() -> argparse.ArgumentParser:
    """Return the parser of the verb."""
    made = argparse.ArgumentParser("rootflow list", description=__doc__)
    made.add_argument("group", nargs="?", help="e.g. model; left out: all groups")
    made.add_argument("option", nargs="?", help="e.g. resnet: its keys, with defaults and meaning")
    made.add_argument("--json", action="store_true", help="print JSON")
    made.add_argument("-cd", "--config-dir", type=Path, help="a folder of config files, searched first")
    return made


def run(argv: list[str]) -> int:
    """Print what there is to choose from, as text or JSON."""
    args = parser().parse_args(argv)
    from rootflow.config import show
    from rootflow.registry import open_project

    open_project(Path.cwd())
    groups = group_names(args.config_dir)
    if args.group is not None and args.group not in groups:
        raise ConfigError(
            f"there is no group {args.group!r}.{did_you_mean(args.group, groups)} "
            f"Groups: {', '.join(groups)}."
        )
    if args.option is not None:
        rows = show.keys_of(args.group, args.option, args.config_dir)
    elif args.group is not None:
        rows = show.options_of(args.group, args.config_dir)
    else:
        rows = [
            {"group": g, "options": ", ".join(o["option"] for o in show.options_of(g, args.config_dir))}
            for g in groups
        ]
    print(json.dumps(rows, indent=1) if args.json else _aligned(rows))
    return 0


def _aligned(rows: list[dict[str, Any]]) -> str:
    """Return rows as columns; the last one is as wide as it needs to be."""
    columns = list(rows[0]) if rows else []
    cells = [[_cell(row[c]) for c in columns] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
