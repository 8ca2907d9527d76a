"""From a config and its data to everything that a training needs, each `auto` a value on the way.

The order is that of need: device and batch size, loaders, length, task, model, learning rate, optimizer,
scheduler.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rootflow.build import arguments, build, load, take_about
from rootflow.checkpoint import Checkpoint, Checkpoints, WeightKeeper
from rootflow.config.schema import Config, defaults_of, is_auto_key, schema_of
from rootflow.config.values import takes_null
from rootflow.data.augment import Preprocess
from rootflow.data.facts import DataFacts, describe
from rootflow.data.loaders import (
    DatasetLoader,
    Loader,
    LoaderSettings,
    TensorLoader,
    as_loader,
    build_loader,
    find_num_workers,
    find_resident,
)
from rootflow.data.samples import as_tensor_dataset
from rootflow.data.splits import Split, Splits, split_dataset
from rootflow.discover.batch_size import find_batch_size
from rootflow.discover.found import Found
from rootflow.discover.learning_rate import find_lr
from rootflow.discover.pins import Pins
from rootflow.discover.settings import DiscoverSettings
from rootflow.discover.threads import find_num_threads
from rootflow.errors import ConfigError, DataError
from rootflow.optim.build_optimizer import build_optimizer
from rootflow.optim.build_scheduler import dress_scheduler
from rootflow.optim.freezing import Freezing
from rootflow.optim.schedules import scheduler_facts
from rootflow.tasks import Task
from rootflow.train.evaluation import evaluate
from rootflow.train.length import Limits
from rootflow.train.monitor import find_direction
from rootflow.train.objective import Objective
from rootflow.train.own_trainer import fit_by
from rootflow.train.precision import find_channels_last, find_device, find_dtype, set_kernels
from rootflow.train.provided import LOADER_NAMES, find_loader, own_loader_names
from rootflow.train.recorder import Recorder
from rootflow.train.seeding import keep_generators
from rootflow.train.trainer import FitResult, Trainer


@dataclass
class Training:
    """Everything that a training needs, built."""

    trainer: Trainer
    model: nn.Module
    task: Task
    optimizer: Optimizer | None
    """None where the model configures its own."""
    scheduler: LRScheduler | None
    train: Loader
    val: Loader | None
    test: Loader | None
    hooks: Sequence[object] = ()
    """What the config asks for beside the recorder."""
    own_data: Collection[str] = ()
    """Splits of which the model itself brings the data."""
    own_trainer: object | None = None
    """One of the user's that isn't ours; it then does the training."""

    def fit(
        self,
        keeper: WeightKeeper,
        recorder: Recorder,
        *,
        checkpoints: Checkpoints | None = None,
        resume: Checkpoint | None = None,
    ) -> FitResult:
        """Train; the keeper then holds the best and the last weights."""
        if self.own_trainer is not None:
            return self._fit_by_own(keeper, recorder)
        return self.trainer.fit(
            self.model,
            None if "train" in self.own_data else self.train,
            None if "val" in self.own_data else self.val,
            task=self.task,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            keeper=keeper,
            checkpoints=checkpoints,
            resume=resume,
            hooks=[*self.hooks, recorder],
        )

    def _fit_by_own(self, keeper: WeightKeeper, recorder: Recorder) -> FitResult:
        fit = fit_by(
            self.own_trainer,
            {
                "model": self.model,
                "task": self.task,
                "loss": self.task.loss,
                "train": self.train,
                "val": self.val,
                "test": self.test,
                "train_loader": self.train,
                "val_loader": self.val,
                "test_loader": self.test,
                "optimizer": self.optimizer,
                "scheduler": self.scheduler,
                "device": torch.device(self.trainer.device),
                "folder": keeper.folder.parent,
                "log": recorder.log,
                "recorder": recorder,
                "keeper": keeper,
            },
        )
        keeper.keep(("best", "last"), self.model, fit.best)
        recorder.on_run_end()
        return fit

    def close(self) -> None:
        """Stop the processes that read samples."""
        for loader in (self.train, self.val, self.test):
            getattr(loader, "close", lambda: None)()

    def test_metrics(self) -> dict[str, float]:
        """Evaluate the model as it is on the test split."""
        if self.test is None:
            return {}
        arithmetic = self.trainer.arithmetic(self.model)
        measured = evaluate(self.model, self.test, task=self.task, arithmetic=arithmetic, stage="test")
        return {f"test/{name}": value for name, value in measured.items()}


def check_components(config: Config) -> None:
    """Import every component of a config, and look whether its device is there.

    Raises:
        ConfigError: one can't be imported, or the device isn't here. Nothing was built.
    """
    for group, node in config.to_dict().items():
        if isinstance(node, dict) and node.get("name") != "auto":
            load(group, node)
    find_device(config.trainer.get("device", "auto"))


def load_data(config: Config) -> tuple[Splits, DataFacts]:
    """Build the data set that a config names, in three splits, and look at it.

    Raises:
        DataError: it is missing or damaged, or has no targets and the task is left open.
        ConfigError: its component can't be imported, or refuses its arguments.
    """
    given = config.dataset.get("split")
    is_ours = isinstance(given, dict) and given.keys() <= {field.name for field in dataclasses.fields(Split)}
    split = Split(**given) if given and is_ours else Split()
    splits = split_dataset(build("dataset", config.dataset), split=split)
    facts = describe(splits)
    if facts.target == "none" and config.task.get("name") == "auto":
        raise DataError(
            "the data set has no targets that tell what to learn; choose a task (`rootflow list task`)."
        )
    return splits, facts


def data_record(splits: Splits, facts: DataFacts) -> dict[str, Any]:
    """Return what run.json says about the data: what it is, and how it was split."""
    return {**dataclasses.asdict(facts), **splits.record}


def assemble(config: Config, splits: Splits, facts: DataFacts, pins: Pins) -> Training:
    """Build every object of a training, each `auto` becoming a value on the way."""
    settings: DiscoverSettings = build("discover", config.discover)
    chosen = build("trainer", config.trainer)
    own_trainer = None if isinstance(chosen, Trainer) else chosen
    trainer = settle_trainer(
        chosen if own_trainer is None else shared_settings(config), facts, settings, pins
    )
    loaders = build_loaders(config, splits, facts, trainer, pins)
    train = loaders["train"]
    assert train is not None
    known = known_from_data(facts)
    task = build("task", pins.fill("task", choose_task(config.task, facts, pins), known))
    model = build("model", pins.fill("model", config.model, known))
    if trainer.channels_last == "auto":
        channels_last = pins.pin("trainer.channels_last", Found(*find_channels_last(model)))
        trainer = dataclasses.replace(trainer, channels_last=channels_last)
    trainer.arithmetic(model).place(model)
    set_threads(trainer, Objective(model, task), train, pins)

    made = Training(trainer, model, task, None, None, train, loaders["val"], loaders["test"])
    made.own_trainer = own_trainer
    made.own_data = take_own_data(made, pins)
    if callable(getattr(model, "configure_optimizers", None)) and own_trainer is None:
        pins.say(f"optimizer and scheduler: those of {type(model).__name__}.configure_optimizers")
        return made
    made.optimizer = assemble_optimizer(config, model, trainer, pins)
    made.scheduler = assemble_scheduler(
        config,
        made.optimizer,
        trainer.limits(made.train),
        higher_is_better=find_direction(
            trainer.monitor, trainer.monitor_mode, task, model=model, has_val=made.val is not None
        )[1],
        pins=pins,
    )
    about, _ = take_about("optimizer", config.optimizer)
    made.hooks = [Freezing(model, about.groups)] if about.groups else []
    return made


def take_own_data(made: Training, pins: Pins) -> list[str]:
    """Take the data that a model brings in place of the data set's; return of which splits it does.

    One that brings what it is trained on is evaluated and tested on nothing else than it brings.
    """
    own = [split for split in LOADER_NAMES if own_loader_names(made.model, split)]
    if "train" in own:
        made.val = made.test = None
    for split in own:
        data = find_loader(made.model, None, split)
        batch_size, device = int(made.trainer.batch_size), torch.device(made.trainer.device)
        loader = as_loader(data, batch_size=batch_size, device=device, is_train=split == "train")
        setattr(made, split, loader)
        pins.say(f"{split} data: from {type(made.model).__name__}.{own_loader_names(made.model, split)[0]}")
    return own


def shared_settings(config: Config) -> Trainer:
    """Return our trainer with those settings of a user's own that it has too, for data and device."""
    names = {field.name for field in dataclasses.fields(Trainer)}
    return Trainer(**{key: value for key, value in config.trainer.items() if key in names})


def settle_trainer(trainer: Trainer, facts: DataFacts, settings: DiscoverSettings, pins: Pins) -> Trainer:
    """Return the trainer with its device, number format and batch size decided."""
    device, reason = find_device(trainer.device)
    if trainer.device == "auto":
        pins.pin("trainer.device", Found(str(device), reason))
    dtype, reason = find_dtype(trainer.precision, device)
    precision: Literal["bf16", "fp32"] = "bf16" if dtype is torch.bfloat16 else "fp32"
    if trainer.precision == "auto":
        pins.pin("trainer.precision", Found(precision, reason))
    batch_size = trainer.batch_size
    if batch_size == "auto":
        batch_size = pins.pin("trainer.batch_size", find_batch_size(facts.num_train, device.type, settings))
    micro = trainer.micro_batch_size
    if micro == "auto":
        micro = pins.pin("trainer.micro_batch_size", Found(batch_size, "the whole batch at once"))
    set_kernels(device, deterministic=trainer.deterministic)
    return dataclasses.replace(
        trainer, device=str(device), precision=precision, batch_size=batch_size, micro_batch_size=micro
    )


def build_loaders(
    config: Config, splits: Splits, facts: DataFacts, trainer: Trainer, pins: Pins
) -> dict[str, TensorLoader | DatasetLoader | None]:
    """Return a loader for each split; None for a split that isn't there."""
    device = torch.device(trainer.device)
    settings = settle_loading(build("loader", config.loader), splits, device, pins)
    mean, std = (facts.mean, facts.std) if splits.normalize else (None, None)
    loaders: dict[str, TensorLoader | DatasetLoader | None] = {}
    for name in ("train", "val", "test"):
        dataset, is_train = getattr(splits, name), name == "train"
        augment = splits.augment if is_train else None
        loaders[name] = dataset and build_loader(
            dataset,
            batch_size=int(trainer.batch_size),
            device=device,
            is_train=is_train,
            seed=config.seed,
            transform=Preprocess(mean, std, augment=augment, seed=config.seed, num_classes=facts.num_classes),
            settings=settings,
        )
    return loaders


def settle_loading(
    settings: LoaderSettings, splits: Splits, device: torch.device, pins: Pins
) -> LoaderSettings:
    """Return how data gets to the device, decided once by the training data for all of it."""
    tensors = as_tensor_dataset(splits.train)
    if tensors is not None and settings.resident == "auto":
        resident = pins.pin("loader.resident", Found(*find_resident("auto", tensors, device)))
        return dataclasses.replace(settings, resident=resident)
    if tensors is None and settings.num_workers == "auto":
        num_workers = pins.pin("loader.num_workers", Found(*find_num_workers("auto")))
        return dataclasses.replace(settings, num_workers=num_workers)
    return settings


def known_from_data(facts: DataFacts) -> Mapping[str, Found]:
    """Return what the data set tells about the parameters of models and tasks."""
    known = {
        key: Found(value, "from the data set")
        for key, value in dataclasses.asdict(facts).items()
        if value is not None
    }
    if facts.target == "number":
        known["num_classes"] = Found(facts.num_targets, "numbers in a target")
    return known


def choose_task(node: dict[str, Any], facts: DataFacts, pins: Pins) -> dict[str, Any]:
    """Return the node of the task; `auto` is decided by the kind of the targets."""
    if node.get("name") != "auto":
        return node
    if facts.target == "number":
        name, reason = "regression", "the targets are numbers"
    else:
        name, reason = "classification", f"the targets are {facts.num_classes} classes"
    chosen = {"name": pins.pin("task.name", Found(name, reason))}
    schema = schema_of("task", chosen)
    assert schema is not None
    return chosen | defaults_of(schema)


def set_threads(trainer: Trainer, objective: Objective, train: Loader, pins: Pins) -> None:
    """Give torch its threads, which are the process's: only a training on the CPU asks for any."""
    if trainer.device != "cpu":
        return
    num_threads = trainer.num_threads
    if num_threads == "auto":
        with keep_generators():
            batch = next(iter(train))
        num_threads = pins.pin("trainer.num_threads", find_num_threads(objective, batch))
    torch.set_num_threads(int(num_threads))


def assemble_optimizer(config: Config, model: nn.Module, trainer: Trainer, pins: Pins) -> Optimizer:
    """Build the optimizer over the model's parameters, with a learning rate found if it is `auto`."""
    about, rest = take_about("optimizer", config.optimizer)
    optimizer_class = load("optimizer", rest)
    is_auto = rest.get("lr") == "auto"
    known = {"lr": find_lr(optimizer_class, int(trainer.batch_size))} if is_auto else {}
    node = pins.fill("optimizer", rest, known)
    return build_optimizer(optimizer_class, model, arguments("optimizer", node), about.groups)


def assemble_scheduler(
    config: Config, optimizer: Optimizer, limits: Limits, *, higher_is_better: bool, pins: Pins
) -> LRScheduler:
    """Build the scheduler, which ends when the training does.

    Raises:
        ConfigError: it needs the length of the training, which only time or patience ends.
    """
    about, rest = take_about("scheduler", config.scheduler)
    facts = scheduler_facts(
        load("scheduler", rest),
        num_steps=limits.num_steps,
        steps_per_epoch=limits.steps_per_epoch,
        lr=float(optimizer.param_groups[0]["lr"]),
        higher_is_better=higher_is_better,
        interval=about.interval,
    )
    known = {key: Found(value, reason) for key, (value, reason) in facts.items()}
    node = rest if limits.num_steps is not None else without_length(rest, known)
    built = build("scheduler", pins.fill("scheduler", node, known), optimizer)
    return dress_scheduler(built, about, num_steps=limits.num_steps, steps_per_epoch=limits.steps_per_epoch)


def without_length(node: Mapping[str, Any], known: Mapping[str, Found]) -> dict[str, Any]:
    """Return a scheduler's node for a training of unknown length: null where its component asks for one.

    Raises:
        ConfigError: the component takes no null for it.
    """
    schema = schema_of("scheduler", node)
    lengths = [k for k, v in node.items() if v == "auto" and is_auto_key("scheduler", k) and k not in known]
    for key in lengths:
        parameter = schema.find(key) if schema else None
        if parameter is None or parameter.default != "auto" or not takes_null(parameter.annotation):
            raise ConfigError(
                f"scheduler.{key} is 'auto', the length of the training, which is not known. Choose "
                "scheduler=default, or give trainer.max_epochs or trainer.max_steps."
            )
    return {**node, **dict.fromkeys(lengths)}
