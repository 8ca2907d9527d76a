"""From a config and its data to everything that a training needs, each `auto` a value on the way.

The order is that of need: device and number format, task, model, data, optimizer; then what is found by
running updates: batch size, workers, learning rate; then the scheduler, which follows from all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rootflow.assemble.data import Loading, data_record, known_from_data, load_data, take_own_data
from rootflow.assemble.measured import settle_lr, settle_sizes
from rootflow.assemble.training import Training
from rootflow.build import arguments, build, load, take_about
from rootflow.config.schema import Config, defaults_of, is_auto_key, schema_of
from rootflow.config.values import takes_null
from rootflow.data.facts import DataFacts
from rootflow.data.splits import Splits
from rootflow.discover.batch_size import batch_size_by_data
from rootflow.discover.batches import draw_batches
from rootflow.discover.cache import describe_code
from rootflow.discover.found import Found
from rootflow.discover.learning_rate import rule_lr
from rootflow.discover.pins import Pins
from rootflow.discover.search import Searches
from rootflow.discover.threads import find_num_threads
from rootflow.errors import ConfigError
from rootflow.init_from import StartWeights
from rootflow.optim.build_optimizer import build_optimizer
from rootflow.optim.build_scheduler import dress_scheduler
from rootflow.optim.freezing import Freezing
from rootflow.optim.schedules import scheduler_facts
from rootflow.train.length import Limits
from rootflow.train.monitor import find_direction
from rootflow.train.objective import Objective
from rootflow.train.precision import find_channels_last, find_device, find_dtype, set_kernels
from rootflow.train.trainer import Trainer

__all__ = ["Training", "assemble", "check_components", "data_record", "load_data"]


def check_components(config: Config) -> None:
    """Import every component of a config, and look whether its device is there.

    Raises:
        ConfigError: one can't be imported, or the device isn't here. Nothing was built.
    """
    for group, node in config.to_dict().items():
        if isinstance(node, dict) and node.get("name") != "auto":
            load(group, node)
    find_device(config.trainer.get("device", "auto"))


def assemble(
    config: Config,
    splits: Splits,
    facts: DataFacts,
    pins: Pins,
    *,
    start: StartWeights | None = None,
    is_asked: bool = False,
) -> Training:
    """Build every object of a training, each `auto` becoming a value on the way.

    Args:
        config: checked.
        splits: the data.
        facts: what it is.
        pins: takes what was found.
        start: the weights to begin with.
        is_asked: search anew, and for trainings too short to be worth it, too.
    """
    about = _what_answers_depend_on(config, splits, facts, start)
    searches = Searches(build("discover", config.discover), about, is_asked=is_asked)
    chosen = build("trainer", config.trainer)
    is_own = not isinstance(chosen, Trainer)
    trainer = settle_device(shared_settings(config) if is_own else chosen, pins)
    known = known_from_data(facts)
    task = build("task", pins.fill("task", choose_task(config.task, facts, pins), known))
    model = build("model", pins.fill("model", config.model, known))
    if trainer.channels_last == "auto":
        channels_last = pins.pin("trainer.channels_last", Found(*find_channels_last(model)))
        trainer = dataclasses.replace(trainer, channels_last=channels_last)
    trainer.arithmetic(model).place(model)
    if start is not None:
        start.load(model)

    device = torch.device(trainer.device)
    loading = Loading(splits, facts, device, config.seed, build("loader", config.loader), pins)
    loading.decide_resident()
    batch_size = trainer.batch_size
    if batch_size == "auto":  # to begin with
        batch_size = batch_size_by_data(facts.num_train, searches.settings.batch_size).value
    train, val, test = (loading.loader(name, batch_size) for name in ("train", "val", "test"))
    assert train is not None
    made = Training(trainer, model, task, None, None, train, val, test)
    made.own_trainer = chosen if is_own else None
    set_threads(made, pins)
    made.own_data = take_own_data(made, batch_size, pins)
    if callable(getattr(model, "configure_optimizers", None)) and not is_own:
        pins.say(f"optimizer and scheduler: those of {type(model).__name__}.configure_optimizers")
        settle_sizes(made, loading, searches, pins)
        return made
    made.optimizer = build_measured(config, made, loading, searches, pins)
    made.scheduler = assemble_scheduler(
        config,
        made.optimizer,
        made.trainer.limits(made.train),
        higher_is_better=find_direction(
            trainer.monitor, trainer.monitor_mode, task, model=model, has_val=made.val is not None
        )[1],
        pins=pins,
    )
    about, _ = take_about("optimizer", config.optimizer)
    made.hooks = [Freezing(model, about.groups)] if about.groups else []
    return made


def build_measured(
    config: Config, made: Training, loading: Loading, searches: Searches, pins: Pins
) -> Optimizer:
    """Return the optimizer, after what is to be found by running its updates has been found."""
    about, rest = take_about("optimizer", config.optimizer)
    optimizer_class = load("optimizer", rest)
    is_auto = rest.get("lr") == "auto"

    def optimizer(lr: float | None) -> Optimizer:
        node = rest if lr is None else {**rest, "lr": lr}
        return build_optimizer(
            optimizer_class,
            made.model,
            arguments("optimizer", pins.fill("optimizer", node, {})),
            about.groups,
        )

    def rule() -> Found:
        return rule_lr(optimizer_class, made.train.batch_size or 1)

    made.optimizer = optimizer(rule().value if is_auto else None)
    settle_sizes(made, loading, searches, pins)
    if not is_auto:
        return made.optimizer
    made.optimizer = optimizer(rule().value)
    return optimizer(settle_lr(made, rule(), searches, pins))


def shared_settings(config: Config) -> Trainer:
    """Return our trainer with those settings of a user's own that it has too, for data and device."""
    names = {field.name for field in dataclasses.fields(Trainer)}
    return Trainer(**{key: value for key, value in config.trainer.items() if key in names})


def settle_device(trainer: Trainer, pins: Pins) -> Trainer:
    """Return the trainer with its device and number format decided."""
    device, reason = find_device(trainer.device)
    if trainer.device == "auto":
        pins.pin("trainer.device", Found(str(device), reason))
    dtype, reason = find_dtype(trainer.precision, device)
    precision: Literal["bf16", "fp32"] = "bf16" if dtype is torch.bfloat16 else "fp32"
    if trainer.precision == "auto":
        pins.pin("trainer.precision", Found(precision, reason))
    set_kernels(device, deterministic=trainer.deterministic)
    return dataclasses.replace(trainer, device=str(device), precision=precision)


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


def set_threads(made: Training, pins: Pins) -> None:
    """Give torch its threads, which are the process's: only a training on the CPU asks for any."""
    if made.trainer.device != "cpu":
        return
    num_threads = made.trainer.num_threads
    if num_threads == "auto":
        (batch,) = draw_batches(made.train, max_batches=1)
        found = find_num_threads(Objective(made.model, made.task), batch)
        num_threads = pins.pin("trainer.num_threads", found)
    torch.set_num_threads(int(num_threads))


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


def _what_answers_depend_on(
    config: Config, splits: Splits, facts: DataFacts, start: StartWeights | None
) -> dict[str, Any]:
    nested = config.to_dict()
    return {
        "data": data_record(splits, facts),
        "samples": describe_code(type(splits.train)),
        "config": {group: nested[group] for group in ("dataset", "model", "task")},
        "init_from": start.sha256 if start else None,
    }
