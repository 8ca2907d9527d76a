"""From a config and its data to everything that a training needs, each `auto` a value on the way.

The order is that of need: device and batch size, loaders, length, task, model, learning rate, optimizer,
scheduler.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rootflow.build import arguments, build, load
from rootflow.checkpoint import WeightKeeper
from rootflow.config.schema import Config, defaults_of, is_auto_key, schema_of
from rootflow.config.values import takes_null
from rootflow.data.augment import Preprocess
from rootflow.data.facts import DataFacts, describe
from rootflow.data.loaders import (
    DatasetLoader,
    LoaderSettings,
    TensorLoader,
    build_loader,
    find_num_workers,
    find_resident,
)
from rootflow.data.samples import as_tensor_dataset
from rootflow.data.splits import Split, Splits, split_dataset
from rootflow.discover.batch_size import find_batch_size
from rootflow.discover.epochs import find_max_epochs
from rootflow.discover.found import Found
from rootflow.discover.learning_rate import find_lr
from rootflow.discover.pins import Pins
from rootflow.discover.settings import DiscoverSettings
from rootflow.discover.threads import find_num_threads
from rootflow.errors import ConfigError, DataError
from rootflow.optim.build_optimizer import build_optimizer
from rootflow.optim.schedules import scheduler_facts
from rootflow.tasks import Task
from rootflow.train.loop import Loader, evaluate
from rootflow.train.precision import find_channels_last, find_device, find_dtype, set_fast_kernels
from rootflow.train.recorder import Recorder
from rootflow.train.trainer import FitResult, Trainer


@dataclass
class Training:
    """Everything that a training needs, built."""

    trainer: Trainer
    model: nn.Module
    task: Task
    optimizer: Optimizer
    scheduler: LRScheduler | None
    train: Loader
    val: Loader | None
    test: Loader | None

    def fit(self, keeper: WeightKeeper, recorder: Recorder) -> FitResult:
        """Train; the keeper then holds the best and the last weights."""
        return self.trainer.fit(
            self.model,
            self.train,
            self.val,
            task=self.task,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            keeper=keeper,
            hooks=[recorder],
        )

    def close(self) -> None:
        """Stop the processes that read samples."""
        for loader in (self.train, self.val, self.test):
            getattr(loader, "close", lambda: None)()

    def test_metrics(self) -> dict[str, float]:
        """Evaluate the model as it is on the test split."""
        if self.test is None:
            return {}
        arithmetic = self.trainer.arithmetic(self.model)
        measured = evaluate(self.model, self.test, task=self.task, arithmetic=arithmetic)
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
    trainer = settle_trainer(build("trainer", config.trainer), facts, settings, pins)
    loaders = build_loaders(config, splits, facts, trainer, pins)
    train = loaders["train"]
    assert train is not None
    if trainer.max_epochs == "auto" and trainer.max_steps is None:
        found = find_max_epochs(len(train), settings)
        trainer = dataclasses.replace(trainer, max_epochs=pins.pin("trainer.max_epochs", found))

    known = known_from_data(facts)
    task = build("task", pins.fill("task", choose_task(config.task, facts, pins), known))
    model = build("model", pins.fill("model", config.model, known))
    if trainer.channels_last == "auto":
        channels_last = pins.pin("trainer.channels_last", Found(*find_channels_last(model)))
        trainer = dataclasses.replace(trainer, channels_last=channels_last)
    trainer.arithmetic(model).place(model)
    set_threads(trainer, model, train, pins)

    optimizer = assemble_optimizer(config, model, trainer, pins)
    scheduler = assemble_scheduler(
        config,
        optimizer,
        trainer,
        steps_per_epoch=len(train),
        higher_is_better=task.higher_is_better and loaders["val"] is not None,
        pins=pins,
    )
    return Training(trainer, model, task, optimizer, scheduler, train, loaders["val"], loaders["test"])


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
    set_fast_kernels(device)
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
            transform=Preprocess(mean, std, augment=augment, seed=config.seed),
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


def set_threads(trainer: Trainer, model: nn.Module, train: Loader, pins: Pins) -> None:
    """Give torch its threads, which are the process's: only a training on the CPU asks for any."""
    if trainer.device != "cpu":
        return
    num_threads = trainer.num_threads
    if num_threads == "auto":
        inputs, _ = next(iter(train))
        num_threads = pins.pin("trainer.num_threads", find_num_threads(model, inputs))
    torch.set_num_threads(int(num_threads))


def assemble_optimizer(config: Config, model: nn.Module, trainer: Trainer, pins: Pins) -> Optimizer:
    """Build the optimizer over the model's parameters, with a learning rate found if it is `auto`."""
    optimizer_class = load("optimizer", config.optimizer)
    is_auto = config.optimizer.get("lr") == "auto"
    known = {"lr": find_lr(optimizer_class, int(trainer.batch_size))} if is_auto else {}
    node = pins.fill("optimizer", config.optimizer, known)
    optimizer: Optimizer = build_optimizer(optimizer_class, model, arguments("optimizer", node))
    return optimizer


def assemble_scheduler(
    config: Config,
    optimizer: Optimizer,
    trainer: Trainer,
    *,
    steps_per_epoch: int,
    higher_is_better: bool,
    pins: Pins,
) -> LRScheduler:
    """Build the scheduler, which ends when the training does.

    Raises:
        ConfigError: it needs the length of the training, which only time or patience ends.
    """
    num_steps = trainer.num_steps(steps_per_epoch)
    facts = scheduler_facts(
        load("scheduler", config.scheduler),
        num_steps=num_steps,
        steps_per_epoch=steps_per_epoch,
        lr=float(optimizer.param_groups[0]["lr"]),
        higher_is_better=higher_is_better,
    )
    known = {key: Found(value, reason) for key, (value, reason) in facts.items()}
    node = config.scheduler if num_steps is not None else without_length(config.scheduler, known)
    scheduler: LRScheduler = build("scheduler", pins.fill("scheduler", node, known), optimizer)
    return scheduler


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
                "scheduler=constant, or give trainer.max_epochs or trainer.max_steps."
            )
    return {**node, **dict.fromkeys(lengths)}
