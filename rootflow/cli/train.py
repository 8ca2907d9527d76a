"""`rootflow train`: Hydra's overrides and flags; one run, or many with -m."""

from __future__ import annotations

import argparse
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rootflow.cli import arguments
from rootflow.errors import RootflowError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from rootflow.config.compose import Composer

USAGE = """usage: rootflow train [group=option ...] [key=value ...] [flags]

groups and their options (`rootflow list GROUP OPTION` shows an option's keys):
{groups}

overrides, in Hydra's grammar:
  model=resnet                  choose an option
  optimizer.lr=0.01             set a value; `auto` where the machine can find it
  seed=0,1,2                    several values, with -m
{aliases}

flags:
{flags}"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of Hydra's flags; flags and overrides may stand in any order."""
    made = arguments.parser("rootflow train")
    flag = made.add_argument
    flag("-m", "--multirun", action="store_true", help="run every combination of the values given")
    flag("-c", "--cfg", choices=["job", "hydra", "all"], help="show the config and stop")
    flag("-p", "--package", metavar="KEY", help="show only this part of it, e.g. optimizer")
    flag("--resolve", action="store_true", help="show it with interpolations resolved")
    infos = ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]
    flag("-i", "--info", nargs="?", const="all", choices=infos, help="show how Hydra composed it and stop")
    flag("--hydra-help", action="store_true", help="show Hydra's own help")
    return made


def run(argv: list[str]) -> int:
    """Compose, check and train; return the exit code."""
    flags = parser()
    args = arguments.parse(flags, argv)
    if args.help:
        print(_usage(args.config_dir))
        return 0
    with arguments.composer(args) as composer:
        if args.hydra_help or args.info or args.cfg:
            return _show(composer, flags, args)
        return (
            _train_many(composer, args.overrides) if args.multirun else _train_one(composer, args.overrides)
        )


def _usage(extra: Path | None) -> str:
    from rootflow.config.folders import group_names, option_files
    from rootflow.config.schema import ALIASES

    groups = [f"  {group:11}{', '.join(option_files(group, extra))}" for group in group_names(extra)]
    shown = arguments.flags_of(parser())
    aliases = [f"  {f'{short}=...':30}{key}=..." for short, key in ALIASES.items()]
    return USAGE.format(groups="\n".join(groups), aliases="\n".join(aliases), flags=shown)


def _show(composer: Composer, flags: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    if args.cfg == "job":
        print(composer.job_yaml(args.overrides, package=args.package, resolve=args.resolve), end="")
    else:
        composer.show(flags, args, args.overrides)
    return 0


@dataclass
class Outcome:
    """How a job ended. Returned, not raised: one failed job must not end a sweep."""

    overrides: list[str]
    folder: str | None = None
    error: BaseException | None = None


def job(_cfg: DictConfig) -> Outcome:
    """Train what Hydra composed: the task function, also in a launcher's own process."""
    from rootflow.config.compose import compose_job
    from rootflow.registry import open_project

    open_project(Path.cwd())
    overrides: list[str] = []
    try:
        config, overrides, sweep = compose_job()
        from rootflow.experiment import run_config  # torch is imported here at the earliest

        return Outcome(overrides, str(run_config(config, overrides=overrides, sweep=sweep).folder))
    except Exception as error:  # noqa: BLE001  # judged by the caller, who knows what else is running
        return Outcome(overrides, error=error)


def _train_one(composer: Composer, overrides: list[str]) -> int:
    outcome: Outcome = composer.run(job, overrides)
    if outcome.error is not None:
        raise outcome.error
    print(f"run: {outcome.folder}", flush=True)
    return 0


def _train_many(composer: Composer, overrides: list[str]) -> int:
    configs = composer.compose_jobs(overrides)
    from rootflow.tracking.run_folder import create_run_folder

    folder = create_run_folder(Path(configs[0].tracking.get("root", "runs")) / "sweeps", "sweep")
    print(f"runs go to {folder}", flush=True)
    try:
        outcomes: list[Outcome] = composer.multirun(job, overrides, folder)
    finally:
        # Hydra's own record of the sweep: the overrides as typed, secrets included
        (folder / "multirun.yaml").unlink(missing_ok=True)
    failed = [o for o in outcomes if o.error is not None]
    for outcome in failed:
        _print_failure(outcome)
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} runs finished")
    print(f"sweep: {folder}", flush=True)
    return 1 if failed else 0


def _print_failure(outcome: Outcome) -> None:
    """Say which job failed and why; a bug keeps its traceback."""
    if not isinstance(outcome.error, RootflowError):
        traceback.print_exception(outcome.error)
    print(f"error: {' '.join(outcome.overrides)}: {outcome.error}", file=sys.stderr)
