"""Hydra, driven by rootflow: from overrides to checked configs, one or many.

Hydra composes, expands `-m`, launches and sweeps. rootflow keeps what Hydra would do less well for an
experiment: the run folder, the log, the check and the exit code. It enters by
`GlobalHydra.instance().hydra`, so that launchers, sweepers and callbacks stay usable.
"""

from __future__ import annotations

import re
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
    SearchPathException,
)
from hydra.plugins.config_source import ConfigLoadError
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from rootflow.config.check import check
from rootflow.config.folders import config_folders, group_names, option_files, shipped_folder
from rootflow.config.origin import COMMAND_LINE, Origins, display_path
from rootflow.config.schema import Config
from rootflow.config.search_path import RootflowSearchPath, register_plugins
from rootflow.errors import ConfigError, did_you_mean

_OURS = ["hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none"]
"""The run folder, its config file and its log are rootflow's own."""


_NOT_YOURS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.job.chdir")
_NOTHING = object()


class Composer:
    """Hydra with rootflow's search path; open it by `open_composer`."""

    def __init__(self, hydra: Hydra, *, primary: str, extra: Path | None) -> None:
        self.hydra = hydra
        self.primary = primary
        self.extra = extra
        self._groups = set(group_names(extra)) | {"sweeps"}

    def compose(self, overrides: list[str]) -> Config:
        """Return the checked config of one job.

        Raises:
            ConfigError: the overrides or the files are wrong; lists every mistake it could find.
        """
        cfg = self._compose_cfg(overrides)
        return check(cfg, self.origins(cfg, overrides))

    def run(self, task: Callable[[DictConfig], Any], overrides: list[str]) -> Any:
        """Let Hydra run one job in this process; return what the task returned."""
        arguments = [*_OURS, "hydra.mode=RUN", "hydra.run.dir=.", *self._in_full(overrides)]
        with _as_config_errors(self):
            return self.hydra.run(self.primary, task, arguments).return_value

    def multirun(self, task: Callable[[DictConfig], Any], overrides: list[str], folder: Path) -> list[Any]:
        """Let Hydra's sweeper and launcher run many jobs; return what each task returned."""
        arguments = [*_OURS, "hydra.mode=MULTIRUN", f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=."]
        with _as_config_errors(self):
            batches = self.hydra.multirun(self.primary, task, [*arguments, *self._in_full(overrides)])
        return [job.return_value for batch in batches or [] for job in batch]

    def check_jobs(self, overrides: list[str]) -> list[Config]:
        """Return the checked config of every job that `-m` will make, before the first is started.

        A sweeper other than Hydra's own decides on its jobs as it goes: then only what doesn't vary
        can be checked, as one job.
        """
        with _as_config_errors(self):
            cfg = self.hydra.compose_config(
                self.primary,
                [*_OURS, *self._in_full(overrides)],
                RunMode.MULTIRUN,
                with_log_configuration=False,
            )
            parser = OverridesParser.create(config_loader=self.hydra.config_loader)
            is_basic = cfg.hydra.sweeper._target_.endswith("BasicSweeper")
            swept = (
                [f"{k}={v}" for k, v in (cfg.hydra.sweeper.get("params") or {}).items()] if is_basic else []
            )
            parsed = parser.parse_overrides([*self._in_full(swept), *_task_overrides(cfg.hydra)])
            if is_basic:
                jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
            else:
                jobs = [[str(o.input_line) for o in parsed if not o.is_sweep_override()]]
        return [self.compose(list(job)) for job in jobs]

    def job_yaml(self, overrides: list[str], *, package: str | None = None, resolve: bool = False) -> str:
        """Return the composed and checked config of one job as YAML, or a part of it."""
        cfg = self._compose_cfg(overrides)
        check(cfg, self.origins(cfg, overrides))
        with open_dict(cfg):
            cfg.pop("hydra")
        part = OmegaConf.select(cfg, package, default=_NOTHING) if package else cfg
        if part is _NOTHING:
            raise ConfigError(
                f"--package {package}: the config has no such part.{did_you_mean(str(package), cfg)}"
            )
        if not OmegaConf.is_config(part):
            return f"{part}\n"
        return OmegaConf.to_yaml(part, resolve=resolve)

    def show(self, parser: ArgumentParser, args: Namespace) -> None:
        """Print what Hydra's own `--info`, `--hydra-help` and `--cfg hydra|all` print."""
        overrides = self._in_full(args.overrides)
        with _as_config_errors(self):
            if args.hydra_help:
                self.hydra.hydra_help(self.primary, args_parser=parser, args=args)
            elif args.info:
                self.hydra.show_info(args.info, self.primary, overrides)
            else:
                self.hydra.show_cfg(self.primary, overrides, args.cfg, args.package, args.resolve)

    def origins(self, cfg: DictConfig, overrides: list[str]) -> Origins:
        """Return where the values of a composed config came from."""
        plain = tuple(o.removeprefix("++") for o in overrides)
        return Origins(plain, dict(cfg.hydra.runtime.choices), self.primary, self.extra)

    def _compose_cfg(self, overrides: list[str]) -> DictConfig:
        with _as_config_errors(self):
            return self.hydra.compose_config(
                self.primary, self._in_full(overrides), RunMode.RUN, with_log_configuration=False
            )

    def _in_full(self, overrides: list[str]) -> list[str]:
        """Write `key=value` as `++key=value`, so that the check names every unknown key at once.

        Hydra would stop at the first, without saying where the right ones are.
        """
        for override in overrides:
            key = override.partition("=")[0].lstrip("+~")
            if key in _NOT_YOURS:
                told = "can't be set: rootflow makes run folders itself. Set tracking.root."
                raise ConfigError(f"{key} ({COMMAND_LINE}) {told}")
        return [_forced(o, self._groups) for o in overrides]


def _forced(override: str, groups: set[str]) -> str:
    key = re.match(r"[\w.]+(?==)", override)
    if key is None or key[0] in groups or key[0].partition(".")[0] == "hydra":
        return override
    return f"++{override}"


def check_job(cfg: DictConfig) -> tuple[Config, list[str], Path | None]:
    """Return the checked config, the overrides and the sweep folder of the job that Hydra runs now.

    The folder is None for a job that isn't one of many.
    """
    hydra = HydraConfig.get()
    overrides = [o.removeprefix("++") for o in _task_overrides(hydra)]
    extra = RootflowSearchPath.extra
    origins = Origins(tuple(overrides), dict(hydra.runtime.choices), hydra.job.config_name or "config", extra)
    sweep = Path(hydra.sweep.dir) if hydra.mode == RunMode.MULTIRUN else None
    return check(cfg, origins), overrides, sweep


def _task_overrides(hydra: Any) -> list[str]:
    """Return the overrides as given: one may refer to a key, even to one that doesn't exist."""
    task: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    return [str(override) for override in task]


@contextmanager
def open_composer(*, primary: str = "config", extra: Path | None = None) -> Iterator[Composer]:
    """Start Hydra on ./conf and the shipped conf; whatever Hydra was open before comes back after.

    Args:
        primary: the config to start from (`--config-name`).
        extra: a folder searched first (`--config-dir`).

    Raises:
        ConfigError: ``extra`` is no folder.
    """
    if extra is not None and not extra.is_dir():
        raise ConfigError(f"--config-dir {extra} is not a folder.")
    register_plugins(extra.resolve() if extra else None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Hydra 1.4 deprecates version_base, which 1.3 must have
        opened = initialize_config_dir(
            version_base="1.3", config_dir=str(shipped_folder("conf")), job_name="rootflow"
        )
    with opened:
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        yield Composer(hydra, primary=primary, extra=extra)


@contextmanager
def _as_config_errors(composer: Composer) -> Iterator[None]:
    """Turn what Hydra, OmegaConf and YAML say about a config into one ConfigError."""
    try:
        yield
    except (MissingConfigException, ConfigCompositionException, OverrideParseException) as error:
        raise ConfigError(_explain(error, composer.extra)) from error
    except (SearchPathException, ConfigLoadError, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(_one_line(error)) from error
    except HydraException as error:
        raise ConfigError(_one_line(error)) from error
    except ValueError as error:
        if "Config group override" not in str(error):
            raise
        raise ConfigError(f"{_one_line(error)}: write the option in quotes, e.g. model='\"1\"'.") from error
    except RecursionError as error:
        raise ConfigError("an override or a config file is nested too deeply to be read.") from error


def _explain(error: HydraException, extra: Path | None) -> str:
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        options = list(error.options or option_files(group, extra))
        if group and options:
            listed = ", ".join(options)
            return f"{group} has no option {option!r}.{did_you_mean(option, options)} Options: {listed}."
        return f"there is no config {error.missing_cfg_file!r} in {_searched(extra)}."
    if isinstance(error, OverrideParseException):
        given = str(error.override).removeprefix("++")
        return f"{given!r} ({COMMAND_LINE}) can't be read: {_one_line(error)}"
    cause = error.__cause__
    return _one_line(error) + (f" {_one_line(cause)}" if cause else "")


def _searched(extra: Path | None) -> str:
    return ", ".join(display_path(folder) for _, folder in config_folders("conf", extra))


def _one_line(error: BaseException) -> str:
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{display_path(Path(mark.name))}:{mark.line + 1}: {error.problem}."
    return " ".join(str(error).replace("++", "").split())
