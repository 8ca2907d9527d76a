"""`rootflow runs`: what was run, and how it went."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rootflow.runs.find import find_runs, resolve_run
from rootflow.runs.record import RunRecord, read_run
from rootflow.runs.table import to_json, to_text, to_tsv
from rootflow.runs.text import escape, format_duration, format_number

_COLUMNS = ("id", "status", "started", "what", "epoch", "best", "test", "time")
_LISTED = (
    "name", "created_at", "ended_at", "elapsed_s", "seed", "overrides", "progress", "last", "best", "test",
    "stop_reason", "error", "exit_code", "wandb",
)  # fmt: skip
"""The fields of run.json that a listed run has in JSON; `show --json` gives all."""


_NO_METRICS = ("monitor", "step", "epoch")


def run(argv: list[str]) -> int:
    """Run `rootflow runs ARGV` and return the exit code.

    Raises:
        RootflowError: there is no such run or folder.
    """
    arguments = parser().parse_args(argv)
    text = _list(arguments) if arguments.verb == "list" else _show(arguments)
    sys.stdout.write(text)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the verb and of its own verbs."""
    made = argparse.ArgumentParser(prog="rootflow runs", description=__doc__)
    verbs = made.add_subparsers(dest="verb", required=True, metavar="list|show")
    listing = verbs.add_parser("list", help="one line a run, newest last")
    many = listing.add_mutually_exclusive_group()
    many.add_argument("-n", type=int, default=20, metavar="N", help="the newest N runs (default: 20)")
    many.add_argument("--all", action="store_true", help="all runs")
    show = verbs.add_parser("show", help="all about one run")
    show.add_argument("run", help="folder, id, beginning or end of an id, or `latest`")
    for verb in (listing, show):
        verb.add_argument("--root", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
        verb.add_argument("--json", action="store_true", help="JSON instead of text")
    return made


def _list(arguments: argparse.Namespace) -> str:
    root: Path = arguments.root
    folders = find_runs(root) if root != Path("runs") or root.is_dir() else []
    newest = folders if arguments.all else folders[len(folders) - min(max(arguments.n, 0), len(folders)) :]
    records = [read_run(folder) for folder in newest]
    if arguments.json:
        return to_json([_listed_object(record) for record in records])
    if not sys.stdout.isatty():
        return to_tsv(_COLUMNS, [_row(record) for record in records])
    if not records:
        return f"No runs under {escape(str(root))}. `rootflow train` makes one.\n"
    rows = [{**_row(record), "started": _age(record)} for record in records]
    return to_text(_COLUMNS, rows, width=os.get_terminal_size(sys.stdout.fileno()).columns, flexible="what")


def _listed_object(record: RunRecord) -> dict[str, Any]:
    summary: Mapping[str, Any] = record.summary
    fields = {name: summary.get(name) for name in _LISTED}
    return {"id": record.id, "path": str(record.paths.path), "status": record.status, **fields}


def _row(record: RunRecord) -> dict[str, str]:
    summary = record.summary
    if record.is_corrupt:
        return {"id": record.id, "status": record.status}
    best, test = summary["best"], summary["test"]
    monitor = _monitored(best)
    return {
        "id": record.id,
        "status": record.status,
        "started": str(summary.get("created_at", "")),
        "what": " ".join(map(str, summary["overrides"])) or str(summary.get("name", "")),
        "epoch": str(summary["progress"].get("epoch", "")),
        "best": _figure(best, monitor),
        "test": _figure(test, _counterpart(monitor, test)),
        "time": _elapsed(record),
    }


def _monitored(best: Mapping[str, Any]) -> str:
    """Return the name of the metric that the best weights are best in."""
    named = best.get("monitor")
    return str(named) if named else next((name for name in best if name.startswith("val/")), "")


def _counterpart(monitor: str, test: Mapping[str, Any]) -> str:
    """Return the test metric to show: the monitored one if it was measured, else the first."""
    same = monitor.replace("val/", "test/", 1)
    return same if same in test else next((name for name in test if "/" in name), "")


def _figure(metrics: Mapping[str, Any], name: str) -> str:
    return f"{name}={format_number(metrics[name])}" if name in metrics else ""


def _elapsed(record: RunRecord) -> str:
    elapsed = record.summary.get("elapsed_s")
    return format_duration(elapsed) if isinstance(elapsed, int | float) else ""


def _age(record: RunRecord) -> str:
    try:
        age = datetime.now(UTC) - datetime.fromisoformat(record.summary["created_at"])
    except (KeyError, TypeError, ValueError):
        return ""
    return f"{format_duration(max(age.total_seconds(), 0.0))} ago"


def _show(arguments: argparse.Namespace) -> str:
    record = read_run(resolve_run(arguments.run, arguments.root))
    summary: Mapping[str, Any] = record.summary
    if arguments.json:
        return to_json(
            [{**summary, "id": record.id, "path": str(record.paths.path), "status": record.status}]
        )
    heads = {"id": record.id, "status": _status_line(record), "folder": str(record.paths.path)}
    if record.is_corrupt:
        return _pairs(heads)
    sections = (_pairs({**heads, **_facts(record)}), _discovered(summary), _metrics(summary), _files(record))
    return "\n".join(section for section in sections if section)


def _status_line(record: RunRecord) -> str:
    error: Mapping[str, Any] = record.summary.get("error") or {}
    reason = ": ".join(str(part) for part in error.values()) or record.summary.get("stop_reason")
    return f"{record.status}, {reason}" if reason else record.status


def _facts(record: RunRecord) -> dict[str, str]:
    summary: Mapping[str, Any] = record.summary
    chosen = {
        group: part["name"]
        for group, part in summary["config"].items()
        if isinstance(part, dict) and "name" in part
    }
    return {
        "started": " on ".join(str(summary[name]) for name in ("created_at", "host") if name in summary),
        "time": ", ".join([_elapsed(record), *_amounts(summary["timing"], unit=" s")]),
        "progress": ", ".join(_amounts(summary["progress"])),
        "resumed": ", ".join(_resumed(item) for item in summary["resumes"]),
        "best": ", ".join(_best(summary["best"])),
        "command": " ".join(map(str, summary["argv"])),
        "overrides": " ".join(map(str, summary["overrides"])),
        "config": ", ".join(f"{group} {name}" for group, name in chosen.items()),
        "dataset": ", ".join(_amounts(summary["dataset"])),
        "seed": "" if summary.get("seed") is None else str(summary["seed"]),
        "git": ", ".join(_amounts(summary["git"])),
        "W&B": ", ".join(_amounts(summary["wandb"])),
    }


def _resumed(item: Mapping[str, Any]) -> str:
    return f"at step {item.get('step')}" + ("" if item.get("exact") else " (not exactly)")


def _best(best: Mapping[str, Any]) -> list[str]:
    figure = _figure(best, _monitored(best))
    return [figure, *_amounts({name: best.get(name) for name in ("epoch", "step")})] if figure else []


def _amounts(values: Mapping[str, Any], *, unit: str = "") -> list[str]:
    plain = {name: value for name, value in values.items() if isinstance(value, str | int | float)}
    return [
        f"{name.removesuffix('_s') if unit else name} {format_number(value)}{unit}"
        for name, value in plain.items()
    ]


def _discovered(summary: Mapping[str, Any]) -> str:
    found = {key: item for key, item in summary["discovered"].items() if isinstance(item, dict)}
    rows = [
        {"found out": key, "value": format_number(item.get("value")), "reason": str(item.get("reason", ""))}
        for key, item in found.items()
    ]
    return to_text(("found out", "value", "reason"), rows) if rows else ""


def _metrics(summary: Mapping[str, Any]) -> str:
    """Return one line a metric, what it was last, at the best step, and on the test split."""
    moments = {moment: summary[moment] for moment in ("last", "best", "test")}
    names = dict.fromkeys(name for values in moments.values() for name in values if name not in _NO_METRICS)
    rows = [
        {
            "metric": name,
            **{moment: format_number(values[name]) for moment, values in moments.items() if name in values},
        }
        for name in names
    ]
    return to_text(("metric", *moments), rows) if rows else ""


def _files(record: RunRecord) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in record.paths.path.iterdir())
    return _pairs({"files": "  ".join(names)})


def _pairs(pairs: Mapping[str, str]) -> str:
    return "".join(f"{name:<10} {escape(value)}\n" for name, value in pairs.items() if value)
