"""Hydra, driven by rootflow: from overrides to checked configs, one or many.

Hydra composes, expands `-m`, launches and sweeps. rootflow keeps what Hydra would do less well for an
experiment: the run folder, the log, the check and the exit code. It enters by
`GlobalHydra.instance().hydra`, so that launchers, sweepers and callbacks stay usable.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, cast

from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from rootflow.config.canonical import identity
from rootflow.config.check import checked
from rootflow.config.composition import Composition, Compositions, apply_value
from rootflow.config.folders import shipped_folder
from rootflow.config.given import Given, OverrideReader, hydra_mistakes
from rootflow.config.layers import START, Layer, Start, decoded
from rootflow.config.origin import COMMAND_LINE, Origins, Sweep, find_swept
from rootflow.config.schema import Config
from rootflow.config.search_path import LayerSource, RootflowSearchPath, register_plugins
from rootflow.errors import ConfigError, did_you_mean
from rootflow.registry import looking_up_once

_OURS = ["hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none"]
"""The run folder, its config file and its log are rootflow's own."""

_MAX_JOBS = 10_000
_NOTHING = object()


class Composer:
    """Hydra with rootflow's search path; open it by `open_composer`."""

    current: ClassVar[Composer | None] = None
    """The one that is open in this process: a job in the same process needn't open its own."""

    def __init__(self, hydra: Hydra, start: Start) -> None:
        self.hydra = hydra
        loader = cast("ConfigLoaderImpl", hydra.config_loader)
        self.compositions = Compositions(loader, start)
        self.reader = OverrideReader(self.compositions)
        self._hydra_mistakes = functools.lru_cache(maxsize=64)(self._mistakes_for_hydra)

    def compose(self, overrides: Sequence[str], sweep: Sweep | None = None) -> Config:
        """Return the checked config of one job.

        Args:
            overrides: in Hydra's grammar.
            sweep: the sweep that it is a job of.

        Raises:
            ConfigError: the overrides or the files are wrong; its `args` are all the mistakes.
        """
        given, composition = self._composition(overrides, sweep)
        if sweep is None:
            given.mistakes += [
                f"{choice} ({COMMAND_LINE}) has no effect without -m, which runs the sweep."
                for choice in given.choices
                if choice.startswith("+sweeps=")
            ]
        cfg = self._with_values(composition, given)
        origins = self._origins(composition, overrides, sweep)
        return checked(cfg, origins, told=given.mistakes, unknown=given.unknown)

    def origins(self, overrides: Sequence[str]) -> Origins:
        """Return where the values of a job's config come from."""
        return self._origins(self._composition(overrides)[1], overrides)

    def run(self, task: Callable[[DictConfig], Any], overrides: list[str]) -> Any:
        """Let Hydra run one job in this process; return what the task returned.

        Raises:
            ConfigError: the job's config is wrong; nothing was run.
        """
        self.compose(overrides)
        arguments = [*_OURS, "hydra.mode=RUN", "hydra.run.dir=.", *map(self.reader.in_full, overrides)]
        with self.compositions.config_errors():
            return self.hydra.run(START, task, arguments).return_value

    def multirun(self, task: Callable[[DictConfig], Any], overrides: list[str], folder: Path) -> list[Any]:
        """Let Hydra's sweeper and launcher run many jobs; return what each task returned."""
        arguments = [*_OURS, "hydra.mode=MULTIRUN", f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=."]
        swept = self._swept(self.reader.read(overrides, many=True))
        # a key as the sweep file writes it, or Hydra takes it for another one and runs both
        arguments += [o if o.partition("=")[0] in swept else self.reader.in_full(o) for o in overrides]
        with self.compositions.config_errors():
            batches = self.hydra.multirun(START, task, arguments)
        return [job.return_value for batch in batches or [] for job in batch]

    def compose_jobs(self, overrides: list[str]) -> list[Config]:
        """Return the checked config of every job that `-m` will make, before the first is started.

        A sweeper other than Hydra's own decides on its jobs as it goes: then only what doesn't vary
        can be checked, as one job.

        Raises:
            ConfigError: says which jobs are wrong, and which would be the same experiment twice.
        """
        jobs, sweep = self._jobs(overrides)
        if not jobs:
            raise ConfigError(f"-m ({COMMAND_LINE}) gives no job: one of the ranges is empty.")
        configs: list[Config] = []
        mistakes: dict[str, list[int]] = {}
        with looking_up_once():
            for number, job in enumerate(jobs):
                try:
                    configs.append(self.compose(job, sweep))
                except ConfigError as error:
                    for mistake in error.args:
                        mistakes.setdefault(str(mistake), []).append(number)
            told = [_told_of_jobs(mistake, numbers, jobs) for mistake, numbers in mistakes.items()]
            if told:
                raise ConfigError(*told)
            places = ", ".join(dict.fromkeys(sweep.places.values())) or COMMAND_LINE
            _check_jobs_differ(configs, jobs, places)
        return configs

    def job_yaml(self, overrides: list[str], *, package: str | None = None, resolve: bool = False) -> str:
        """Return the composed and checked config of one job as YAML, or a part of it."""
        self.compose(overrides)
        given, composition = self._composition(overrides)
        cfg = self._with_values(composition, given)
        part = OmegaConf.select(cfg, package, default=_NOTHING) if package else cfg
        if part is _NOTHING:
            raise ConfigError(
                f"--package {package} ({COMMAND_LINE}): the config has no such part."
                f"{did_you_mean(str(package), map(str, cfg))}"
            )
        if not OmegaConf.is_config(part):
            return f"{part}\n"
        return OmegaConf.to_yaml(part, resolve=resolve)

    def show(self, parser: ArgumentParser, args: Namespace, overrides: list[str]) -> None:
        """Print what Hydra's own `--info`, `--hydra-help` and `--cfg hydra|all` print."""
        mistakes = self.reader.read(overrides, many=True).mistakes
        if mistakes:
            raise ConfigError(*mistakes)
        full = [self.reader.in_full(override) for override in overrides]
        with self.compositions.config_errors():
            if args.hydra_help:
                self.hydra.hydra_help(START, args_parser=parser, args=args)
            elif args.info:
                self.hydra.show_info(args.info, START, full)
            else:
                self.hydra.show_cfg(START, full, args.cfg, args.package, args.resolve)

    def _jobs(self, overrides: list[str]) -> tuple[list[list[str]], Sweep]:
        """Return the overrides of each job of a sweep."""
        given = self.reader.read(overrides, many=True)
        if given.mistakes:
            raise ConfigError(*given.mistakes)
        with self.compositions.config_errors():
            arguments = [*_OURS, *map(self.reader.in_full, overrides)]
            cfg = self.hydra.compose_config(START, arguments, RunMode.MULTIRUN, with_log_configuration=False)
            sweeper, task = (
                cfg.hydra.sweeper,
                [self.compositions.parse(o) for o in _task_overrides(cfg.hydra)],
            )
            if not sweeper._target_.endswith("BasicSweeper"):
                return [[str(o.input_line) for o in task if not o.is_sweep_override()]], Sweep()
            params = [self.reader.in_full(f"{k}={v}") for k, v in (sweeper.get("params") or {}).items()]
            given_jobs = [*map(self.compositions.parse, params), *task]
            _check_number_of_jobs(given_jobs)
            jobs = BasicSweeper.split_arguments(given_jobs, max_batch_size=None)[0]
            places = self._swept(given)
        typed = {o.key_or_group for o in task}
        varied = frozenset(o.key_or_group for o in given_jobs if o.is_sweep_override())
        return jobs, Sweep({key: place for key, place in places.items() if key not in typed}, varied)

    def _swept(self, given: Given) -> dict[str, str]:
        """Return the places of the overrides that sweep files make, by their keys."""
        texts = self.compositions.of(tuple(given.choices)).texts
        return {key: place for text in texts for key, place in find_swept(text).items()}

    def _composition(self, overrides: Sequence[str], sweep: Sweep | None = None) -> tuple[Given, Composition]:
        given = self.reader.read(overrides, places=sweep.places if sweep else None)
        try:
            with self.compositions.config_errors():
                composition = self.compositions.of(tuple(given.choices))
                given.mistakes += self._hydra_mistakes(tuple(given.choices), tuple(given.hydras))
                return given, composition
        except ConfigError as error:
            raise ConfigError(*given.mistakes, *error.args) from error

    def _mistakes_for_hydra(self, choices: tuple[str, ...], hydras: tuple[str, ...]) -> list[str]:
        """Let Hydra compose its own part, which compositions leave out: a mistake in it must be told."""
        texts = self.compositions.of(choices).texts
        if hydras or any("hydra" in text.values for text in texts if isinstance(text.values, Mapping)):
            self.hydra.compose_config(START, [*_OURS, *hydras, *choices], RunMode.RUN)
        return hydra_mistakes(texts)

    def _with_values(self, composition: Composition, given: Given) -> DictConfig:
        cfg = composition.copy()
        for override in given.values:
            try:
                with self.compositions.config_errors():
                    apply_value(cfg, override)
            except ConfigError as error:
                given.mistakes += error.args
        return cfg

    def _origins(
        self, composition: Composition, overrides: Sequence[str], sweep: Sweep | None = None
    ) -> Origins:
        plain = tuple(override.removeprefix("++") for override in overrides)
        return Origins(plain, composition.texts, sweep or Sweep(), self.compositions.start.extra)


def compose_job() -> tuple[Config, list[str], Path | None]:
    """Return the checked config, the overrides and the sweep folder of the job that Hydra runs now.

    The folder is None for a job that isn't one of many. Works in any process that a launcher chose: what
    Hydra composed there tells from which files and overrides it did.
    """
    hydra = HydraConfig.get()
    overrides = _task_overrides(hydra)
    folder = Path(hydra.sweep.dir) if hydra.mode == RunMode.MULTIRUN else None
    with nullcontext(Composer.current) if Composer.current else _reopened(hydra) as composer:
        plain = [override.removeprefix("++") for override in overrides]
        # what varies isn't known here, but was checked before the first job
        varied = frozenset(o.partition("=")[0] for o in plain) if folder else frozenset()
        return composer.compose(overrides, Sweep(varied=varied)), plain, folder


def _reopened(hydra: Any) -> AbstractContextManager[Composer]:
    """Open a composer on what Hydra composed from, as Hydra tells it."""
    sources = {source.provider: source.path for source in hydra.runtime.config_sources}
    return _open(decoded(sources[LayerSource.provider_name]))


def _task_overrides(hydra: Any) -> list[str]:
    """Return the overrides as given: one may refer to a key, even to one that doesn't exist."""
    task: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    return [str(override) for override in task]


def _check_number_of_jobs(overrides: Sequence[Override]) -> None:
    count = 1
    for override in overrides:
        if override.is_discrete_sweep():
            count *= sum(1 for _ in itertools.islice(override.sweep_string_iterator(), _MAX_JOBS + 1))
        if count > _MAX_JOBS:
            raise ConfigError(f"-m ({COMMAND_LINE}) gives more than {_MAX_JOBS:,} jobs; vary less at once.")


def _told_of_jobs(mistake: str, numbers: list[int], jobs: list[list[str]]) -> str:
    """Say which jobs have a mistake; nothing more where all have it."""
    if len(numbers) == len(jobs):
        return mistake
    first = " ".join(override.removeprefix("++") for override in jobs[numbers[0]])
    others = f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
    return f"job {numbers[0]}{others} of {len(jobs)} ({first}): {mistake}"


def _check_jobs_differ(configs: list[Config], jobs: list[list[str]], place: str) -> None:
    seen: dict[str, int] = {}
    for number, config in enumerate(configs):
        first = seen.setdefault(identity(config), number)
        if first != number:
            told = [" ".join(o.removeprefix("++") for o in jobs[n]) for n in (first, number)]
            raise ConfigError(
                f"jobs {first} and {number} of {len(jobs)} ({place}) are the same experiment: {told[0]} and "
                f"{told[1]}. Vary the seed to run one experiment several times."
            )


@contextmanager
def open_composer(
    *, primary: str = "config", extra: Path | None = None, layers: Sequence[Layer] = ()
) -> Iterator[Composer]:
    """Start Hydra on ./conf and the shipped conf; whatever Hydra was open before comes back after.

    Args:
        primary: the config to start from (`--config-name`).
        extra: a folder searched first (`--config-dir`).
        layers: configs given as a whole, the overruling last; a file takes the place of `primary`.

    Raises:
        ConfigError: ``extra`` is no folder.
    """
    if extra is not None and not extra.is_dir():
        raise ConfigError(f"--config-dir {extra} ({COMMAND_LINE}) is not a folder.")
    start = Start(primary, extra.resolve() if extra else None, tuple(layers))
    with _open(start) as composer:
        yield composer


@contextmanager
def _open(start: Start) -> Iterator[Composer]:
    before = RootflowSearchPath.start, Composer.current
    register_plugins(start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Hydra 1.4 deprecates version_base, which 1.3 must have
        opened = initialize_config_dir(
            version_base="1.3", config_dir=str(shipped_folder("conf")), job_name="rootflow"
        )
    try:
        with opened:
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            Composer.current = Composer(hydra, start)
            yield Composer.current
    finally:
        RootflowSearchPath.start, Composer.current = before
