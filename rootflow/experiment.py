"""The main path: from one typed config to one finished run folder.

The data comes first, before the folder: a wrong path or a damaged file leaves nothing behind. Then
every `auto` becomes a value, the training runs, and the best weights are tested once.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rootflow.assemble import Training, assemble, check_components, data_record, load_data
from rootflow.build import build
from rootflow.checkpoint import Checkpoint, Checkpoints, WeightKeeper
from rootflow.config.canonical import identity
from rootflow.config.compose import open_composer
from rootflow.config.layers import Layer
from rootflow.config.overrides import read_overrides
from rootflow.config.plain_yaml import escaped, to_yaml
from rootflow.config.schema import Config
from rootflow.config.typed import Experiment, to_dict
from rootflow.data.facts import DataFacts
from rootflow.data.splits import Splits
from rootflow.discover.pins import Pins
from rootflow.errors import ConfigError
from rootflow.init_from import StartWeights, find_start_weights
from rootflow.registry import open_project
from rootflow.runs.reproduce import load_config
from rootflow.tracking.console import Console
from rootflow.tracking.process_clock import process_age_s
from rootflow.tracking.provenance import collect_provenance
from rootflow.tracking.redaction import redact_values
from rootflow.tracking.run_folder import RunFolder
from rootflow.tracking.settings import WandbSettings
from rootflow.tracking.wandb_mirror import WandbMirror
from rootflow.train.precision import gpu_names
from rootflow.train.recorder import Recorder
from rootflow.train.seeding import seed_everything
from rootflow.train.trainer import FitResult


@dataclass(frozen=True)
class RunResult:
    """A finished run."""

    folder: Path
    fit: FitResult
    test: dict[str, float]
    """Metrics of the best weights on the test split; empty where there is none."""


def run(
    experiment: Experiment | Mapping[str, Any] | None = None,
    *,
    overrides: Sequence[str] = (),
    config: str | Path | None = None,
) -> RunResult:
    """Train one experiment that Python describes, in the project of the current folder, and record it.

    The later overrules: what conf/ says by default, `experiment`, the project's config.yaml or the file
    `config`, an experiment file, `overrides`. The same experiment has the same identity as from the command.

        rootflow.run(Experiment(model="resnet", trainer=Trainer(max_epochs=3)), overrides=sys.argv[1:])

    Args:
        experiment: typed or nested; what it leaves out is as in conf/.
        overrides: in Hydra's grammar, as on the command line.
        config: a YAML to start from, or the folder of a run, as `--config` takes it.

    Raises:
        ConfigError: something in it is wrong; nothing was built or written.
        RootflowError: the experiment can't be run, or failed; its run folder, once made, says so too.
    """
    if isinstance(overrides, str):
        raise ConfigError(f"overrides is {overrides!r}; it must be a list, as [{overrides!r}].")
    open_project(Path.cwd())
    full = read_overrides(overrides, environ={})
    layers = []
    if experiment is not None:
        layers.append(Layer("Python", escaped(to_dict(experiment))))
    if config is not None:
        layers.append(load_config(config, full))
    with open_composer(layers=layers) as composer:
        checked = composer.compose(full)
    return run_config(checked, overrides=full)


def run_config(config: Config, *, overrides: Sequence[str] = (), sweep: Path | None = None) -> RunResult:
    """Train one composed experiment and record it.

    Args:
        config: checked; `auto` stands where rootflow is to find the value.
        overrides: what the command line changed, for the record.
        sweep: the folder of the sweep that the run belongs to; None puts the run under manual/.

    Raises:
        RootflowError: the experiment can't be run, or failed; its run folder, once made, says so too.
    """
    started_s = process_age_s() if sweep else 0.0
    check_components(config)
    splits, facts = load_data(config)
    root, nested = Path(build("tracking", config.tracking).root), config.to_dict()
    start = find_start_weights(config.init_from, root) if config.init_from else None
    with RunFolder.create(
        sweep or root / "manual",
        config.name or run_slug(config),
        config=nested,
        config_yaml=to_yaml(redact_values(nested)),
        overrides=overrides,
        provenance=collect_provenance(gpu_names=gpu_names()),
    ) as folder:
        folder.update(
            seed=config.seed,
            identity=identity({**nested, "init_from": start.sha256 if start else None}),
            dataset=data_record(splits, facts),
            init_from=start.record if start else None,
        )
        return train_in(folder, config, (splits, facts), start=start, sweep=sweep, started_s=started_s)


Prepare: TypeAlias = Callable[[Training, Console], Checkpoint]
"""Returns the state to go on from, when everything is built."""


def train_in(  # noqa: PLR0913  # what a new run and one that goes on differ in
    folder: RunFolder,
    config: Config,
    data: tuple[Splits, DataFacts],
    *,
    start: StartWeights | None = None,
    prepare: Prepare | None = None,
    sweep: Path | None = None,
    started_s: float = 0.0,
) -> RunResult:
    """Train in an open run folder, a new one or one of a run that goes on, and test the best weights.

    Args:
        folder: gets the rows, the weights and the result.
        config: checked.
        data: what `load_data` returned.
        start: the weights to begin with.
        prepare: called when everything is built.
        sweep: the folder of the sweep that the run belongs to.
        started_s: the age of the process when the run began, in seconds; 0 for its only run.
    """
    settings = build("tracking", config.tracking).wandb
    with (
        Console.open() as console,
        open_mirror(settings, folder, console, group=sweep) as mirror,
        WeightKeeper(folder.checkpoints_dir) as keeper,
    ):
        folder.update(wandb=mirror.record)
        seed_everything(config.seed)
        pins = Pins(console, folder, mirror)
        training = assemble(config, *data, pins, start=start)
        recorder = Recorder(
            folder, mirror, console, log_every=training.trainer.log_every, started_s=started_s
        )
        checkpoints = Checkpoints(folder.checkpoints_dir)

        with contextlib.closing(training), saying_where(folder, console):
            resume = prepare(training, console) if prepare else None
            fit = training.fit(keeper, recorder, checkpoints=checkpoints, resume=resume)
            if fit.best:
                keeper.load("best", training.model)
            test = training.test_metrics()
        pins.draw()
        recorder.end(fit, test)
    return RunResult(folder.path, fit, test)


@contextlib.contextmanager
def saying_where(folder: RunFolder, console: Console) -> Iterator[None]:
    """Name the run folder when something ends the block early: it has the log, and weights."""
    try:
        yield
    except BaseException:
        console.line(f"ended early; what there is: {folder.path}")
        if Checkpoints(folder.checkpoints_dir).steps():
            console.line(f"to go on: rootflow resume {folder.path}")
        raise


def open_mirror(
    settings: WandbSettings, folder: RunFolder, console: Console, *, group: Path | None
) -> WandbMirror:
    """Start the mirror of a run; the runs of a sweep are a group on W&B unless the settings name one."""
    if group is not None and settings.group is None:
        settings = dataclasses.replace(settings, group=group.name)
    config, slug = folder.summary["config"], folder.summary["name"]
    name = slug if config.get("name") else folder.path.name
    return WandbMirror.open(settings, folder.path, name=name, config=config, say=console.line)


def run_slug(config: Config) -> str:
    """Return a few words about a run: its model and its data set."""
    nodes = (config.model, config.dataset)
    return "-".join(str(node.get("name") or node["_target_"].rpartition(".")[2]) for node in nodes)
