"""Keys that contradict each other, and keys that have no effect; told before anything is built.

A rule knows what the code of rootflow or torch does with a key, and holds for their components only,
however those are named: a user's own may do something else with a key of that name. It says nothing where
one of its keys is missing, or is a component, whose value only Python knows.

A key without effect is told where it was set for this run: on the command line, or in an experiment. What
stands in a project's files, or in a config given as a whole, may wait for its switch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from rootflow.config.flat import to_flat
from rootflow.config.origin import COMMAND_RANK, EXPERIMENT_RANK, Origins
from rootflow.config.schema import KNOWN_CODE, defaults_of, schema_of
from rootflow.errors import shown
from rootflow.registry import GROUPS

_LENGTHS = ("total_steps", "T_max", "total_iters", "epochs")
"""Keys of schedulers that are the length of the training when they are `auto`."""

_BUDGETS = ("trainer.max_epochs", "trainer.max_steps", "trainer.max_samples")
"""Keys by which the length of a training is known beforehand, in the order in which they are told."""

TENSOR_DATA = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "csv_table", "tensors")
"""Data sets that lie in memory as tensors: batches are taken out by indexing, no process reads them."""

WITH_TEST_DATA = ("mnist", "fashion_mnist", "cifar10", "cifar100")
"""Data sets that come with a test set: nothing is split off for one."""

_WITHOUT_MOMENTUM = ("Adadelta", "Adafactor", "Adagrad", "ASGD", "LBFGS", "Rprop")


def broken_rules(values: Mapping[str, Any], origins: Origins) -> list[str]:
    """Return a message for every rule that a config breaks, with the values and places of its keys.

    Args:
        values: groups and their keys, each value checked; a group or key with a mistake may be missing.
        origins: where the values came from.
    """
    config = _Config(values, origins)
    told: dict[str, str] = {}
    for rule in _RULES:
        for key, message in rule(config):
            told.setdefault(key, message)
    return [*told.values()]


class _Config:
    """The values of rootflow's and torch's components by dotted key, and how to say them.

    A group without a key after it stands for its component: the name of the definition, whichever name or
    path led to it.
    """

    def __init__(self, values: Mapping[str, Any], origins: Origins) -> None:
        self.values = values
        self.origins = origins
        found = {group: schema_of(group, values[group]) for group in GROUPS if values.get(group)}
        self.schemas = {g: s for g, s in found.items() if s is not None and s.title.startswith(KNOWN_CODE)}
        self.components = {group: schema.title.rpartition(".")[2] for group, schema in self.schemas.items()}
        self.flat = to_flat({group: values[group] for group in self.components}) | self.components

    def __getitem__(self, key: str) -> Any:
        return self.flat[key]

    def knows(self, *keys: str) -> bool:
        """Whether each key is there and has a value that can be read off."""
        return all(key in self.flat and not _has_component(self.flat[key]) for key in keys)

    def is_of(self, names: tuple[str, ...], *keys: str) -> bool:
        """Whether the component of one of the keys is one of those named; any is, where none is named."""
        return not names or any(self.components.get(key.partition(".")[0]) in names for key in keys)

    def say(self, key: str) -> str:
        """Return a key as it is typed, its value, and the place that set it."""
        key = self._typed(key)
        value: Any = self.values
        for part in key.split("."):
            value = value[part]
        place = self.origins.place(key)
        return f"{key} is {shown(value)}" + (f" ({place})" if place else "")

    def is_for_this_run(self, key: str, switch: str) -> bool:
        """Whether a key was set for this run, and not before the switch that takes its effect."""
        group = switch.partition(".")[0]
        if {group, self._typed(switch)} & self.origins.sweep.varied:  # it counts in another job
            return False
        rank = self.origins.rank(key)
        return rank >= EXPERIMENT_RANK and rank >= self._rank_of_switch(switch)

    def is_no_default(self, key: str) -> bool:
        """Whether a key has another value than its component gives it anyway."""
        group, *path = key.split(".")
        default: Any = defaults_of(self.schemas[group])
        for part in path:
            default = default.get(part) if isinstance(default, Mapping) else None
        return bool(self.flat[key] != default)

    def _typed(self, key: str) -> str:
        if "." in key:
            return key
        return f"{key}._target_" if "_target_" in self.values[key] else f"{key}.name"

    def _rank_of_switch(self, switch: str) -> int:
        typed = {override.lstrip("+~").partition("=")[0] for override in self.origins.overrides}
        chosen = typed - self.origins.sweep.places.keys()  # e.g. trainer=quick
        is_chosen = switch.partition(".")[0] in chosen
        return COMMAND_RANK if is_chosen else self.origins.rank(self._typed(switch))


_Mistakes: TypeAlias = Iterator[tuple[str, str]]
"""The key and the message of each."""


@dataclass(frozen=True)
class _Range:
    """A key has values that its component refuses."""

    key: str
    is_allowed: Callable[[Any], bool]
    allowed: str
    of: tuple[str, ...] = ()
    """The components of which it is true; empty for all that have the key."""

    def __call__(self, config: _Config) -> _Mistakes:
        if not config.knows(self.key) or not config.is_of(self.of, self.key):
            return
        if not self.is_allowed(config[self.key]):
            yield self.key, f"{config.say(self.key)}; it must be {self.allowed}."


@dataclass(frozen=True)
class _Clash:
    """Two keys can't both be as they are."""

    key: str
    other: str
    is_clash: Callable[[Any, Any], bool]
    words: str
    """Why, and what to do."""

    def __call__(self, config: _Config) -> _Mistakes:
        if config.knows(self.key, self.other) and self.is_clash(config[self.key], config[self.other]):
            yield self.key, f"{config.say(self.key)}, but {config.say(self.other)}: {self.words}"


@dataclass(frozen=True)
class _NoEffect:
    """Keys do nothing while another, their switch, is as it is."""

    keys: tuple[str, ...]
    switch: str
    is_dead: Callable[[Any, Any], bool]
    """Of the value of the key and that of the switch."""
    why: str = ""
    of: tuple[str, ...] = ()
    """The components of ``keys`` or ``switch`` of which it is true; empty for all that have them."""

    def __call__(self, config: _Config) -> _Mistakes:
        for key in self.keys:
            if not config.knows(key, self.switch) or not config.is_of(self.of, key, self.switch):
                continue
            value, switch = config[key], config[self.switch]
            is_dead = value and value != "auto" and self.is_dead(value, switch)
            if is_dead and config.is_for_this_run(key, self.switch) and config.is_no_default(key):
                yield key, f"{config.say(key)}, which has no effect: {config.say(self.switch)}{self.why}."


def _nothing_ends(config: _Config) -> _Mistakes:
    others, patience = (*_BUDGETS[1:], "trainer.max_time"), "trainer.patience"
    if not config.knows(_BUDGETS[0], patience, *others) or _is_number(config[_BUDGETS[0]]):
        return
    if config[patience] is None and all(config[other] is None for other in others):
        yield (
            patience,
            f"{config.say(patience)}, and nothing else ends the training: {config.say(_BUDGETS[0])}, and "
            f"{', '.join(others[:-1])} and {others[-1]} are null. Give one of them, or leave {patience} out.",
        )


def _share_of_no_length(config: _Config) -> _Mistakes:
    warmup, steps = "scheduler.warmup", "scheduler.total_steps"
    if not config.knows(warmup) or not str(config[warmup]).endswith("%"):
        return
    if not config.is_of(("WarmupDecay",), "scheduler") or (config.knows(steps) and config[steps] == "auto"):
        to_do = "Give it in steps or epochs"
        yield from _without_length(config, warmup, "a share of all updates", "how many those are", to_do)


def _length_is_unknown(config: _Config) -> _Mistakes:
    """A user's scheduler is asked, too: rootflow itself fills `auto` with the length."""
    scheduler = config.values.get("scheduler", {})
    wanted = next((key for key in _LENGTHS if scheduler.get(key) == "auto"), None)
    if wanted and not config.is_of(("WarmupDecay",), "scheduler"):
        key = f"scheduler.{wanted}"
        yield from _without_length(config, key, "the length of the training", "how long that is")


def _fall_to_no_end(config: _Config) -> _Mistakes:
    decay, steps = "scheduler.decay", "scheduler.total_steps"
    if not config.knows(decay, steps) or config[steps] != "auto" or not config.is_no_default(decay):
        return
    if all(config.is_for_this_run(decay, budget) for budget in _BUDGETS):
        purpose = "the fall at the end of the training"
        yield from _without_length(config, decay, purpose, "when that begins", f"Leave {decay} out")


def _ends_before_its_epochs(config: _Config) -> _Mistakes:
    if config.flat.get("scheduler.interval", "auto") in ("auto", "epoch"):
        for rule in _NO_EFFECT_IN_EPOCHS:
            yield from rule(config)


def _without_length(
    config: _Config, key: str, purpose: str, unknown: str, to_do: str = "Choose scheduler=default"
) -> _Mistakes:
    if not config.knows(*_BUDGETS) or _is_number(config[_BUDGETS[0]]):
        return
    if all(config[budget] is None for budget in _BUDGETS[1:]):
        yield (
            key,
            f"{config.say(key)}, {purpose}, but {config.say(_BUDGETS[0])}, so nobody knows {unknown}. "
            f"{to_do}, or give {_BUDGETS[0]} or {_BUDGETS[1]}.",
        )


_DEVICES = re.compile(r"(auto|cpu|cuda|mps|xpu|hpu|npu|xla|mtia|meta|privateuseone)(:\d+)?")

_RANGES = (
    _Range(
        "trainer.device",
        lambda device: bool(_DEVICES.fullmatch(device)),
        "auto, cpu, cuda, cuda:1, mps or xpu",
    ),
    *(
        _Range(f"trainer.{key}", lambda period: _number_of(period) > 0, "above 0")
        for key in ("eval_every", "save_every")
    ),
    *(
        _Range(f"optimizer.{key}", lambda value: value != math.inf, "finite")
        for key in ("lr", "weight_decay", "momentum")
    ),
    _Range("optimizer.betas", lambda betas: all(0 <= b < 1 for b in betas), "two numbers from 0 to below 1"),
    _Range("optimizer.eps", lambda eps: all(e is None or e >= 0 for e in _items(eps)), "at least 0"),
    _Range("optimizer.eps", lambda eps: eps > 0, "above 0", of=("SparseAdam",)),
    _Range("optimizer.alpha", lambda alpha: alpha >= 0, "at least 0", of=("RMSprop",)),
    _Range("optimizer.rho", lambda rho: 0 <= rho <= 1, "a number from 0 to 1"),
    _Range("optimizer.etas", lambda etas: 0 < etas[0] < 1 < etas[1], "a number between 0 and 1, one above 1"),
    _Range("optimizer.momentum_decay", lambda decay: decay >= 0, "at least 0"),
    _Range("optimizer.lr_decay", lambda decay: decay >= 0, "at least 0"),
    _Range("optimizer.initial_accumulator_value", lambda value: value >= 0, "at least 0"),
    _Range("optimizer.beta2_decay", lambda decay: decay <= 0, "at most 0"),
    _Range("optimizer.d", lambda d: d >= 1, "at least 1"),
    _Range("optimizer.differentiable", lambda is_on: not is_on, "false: a model can't be trained with it"),
    _Range("scheduler.factor", lambda factor: factor < 1, "below 1", of=("ReduceLROnPlateau",)),
    _Range("scheduler.factor", lambda factor: 0 <= factor <= 1, "a number from 0 to 1", of=("ConstantLR",)),
    _Range("scheduler.start_factor", lambda factor: 0 < factor <= 1, "above 0 and at most 1"),
    _Range("scheduler.end_factor", lambda factor: 0 <= factor <= 1, "a number from 0 to 1"),
    _Range("scheduler.pct_start", lambda share: 0 <= share <= 1, "a number from 0 to 1"),
    _Range("scheduler.T_0", lambda epochs: epochs >= 1, "at least 1"),
    _Range("scheduler.T_mult", lambda factor: factor >= 1, "at least 1"),
    _Range(
        "dataset.split.val_frac",
        lambda frac: frac < 1,
        "below 1: nothing would be left to train on",
        of=(*WITH_TEST_DATA, "digits", "csv_table"),
    ),
    _Range(
        "dataset.split.test_frac",
        lambda frac: frac < 1,
        "below 1: nothing would be left to train on",
        of=("digits", "csv_table"),
    ),
)

_CLASHES = (
    _Clash(
        "optimizer.nesterov",
        "optimizer.momentum",
        lambda nesterov, momentum: nesterov and momentum == 0,
        "it looks ahead along the momentum. Give optimizer.momentum, or set optimizer.nesterov=false.",
    ),
    _Clash(
        "optimizer.nesterov",
        "optimizer.dampening",
        lambda nesterov, dampening: nesterov and dampening != 0,
        "it takes no dampening. Set optimizer.nesterov=false or optimizer.dampening=0.",
    ),
    _Clash(
        "optimizer.fused",
        "optimizer.foreach",
        lambda fused, foreach: fused and foreach,
        "only one of them can be true.",
    ),
    _Clash(
        "scheduler.cycle_momentum",
        "optimizer",
        lambda cycles, optimizer: cycles and optimizer in _WITHOUT_MOMENTUM,
        "it has no momentum. Set scheduler.cycle_momentum=false.",
    ),
    _Clash(
        "scheduler.interval",
        "scheduler",
        lambda interval, scheduler: scheduler == "WarmupDecay" and interval not in ("auto", "step"),
        "it counts updates. Leave scheduler.interval out; its durations can be given in epochs.",
    ),
    _Clash(
        "scheduler.interval",
        "scheduler",
        lambda interval, scheduler: (
            scheduler == "ReduceLROnPlateau" and interval not in ("auto", "evaluation")
        ),
        "it follows the monitored value, which is there after an evaluation. Leave scheduler.interval out.",
    ),
)

_NO_EFFECT = (
    _NoEffect(("trainer.num_threads",), "trainer.device", lambda _, device: _is_accelerator(device)),
    _NoEffect(
        ("trainer.micro_batch_size",),
        "trainer.batch_size",
        lambda micro, batch: _is_above(micro, batch),
        ", which is less",
    ),
    _NoEffect(
        ("discover.batch_size.rule", "discover.batch_size.max", "discover.batch_size.min_updates_per_epoch"),
        "trainer.batch_size",
        lambda _, size: size != "auto",
    ),
    _NoEffect(
        ("discover.micro_batch_size.rule", "discover.micro_batch_size.headroom"),
        "trainer.micro_batch_size",
        lambda _, size: size != "auto",
    ),
    _NoEffect(
        ("discover.lr.method", "discover.lr.suggest", "discover.lr.shape", "discover.lr.max_steps"),
        "optimizer.lr",
        lambda _, lr: lr != "auto",
    ),
    _NoEffect(
        ("discover.lr.suggest", "discover.lr.shape"),
        "discover.lr.method",
        lambda _, method: method != "range_test",
    ),
    _NoEffect(("discover.lr.max_steps",), "discover.lr.method", lambda _, method: method == "rule"),
    _NoEffect(
        ("loader.num_workers", "loader.prefetch_factor"),
        "dataset",
        lambda _, dataset: dataset in TENSOR_DATA,
        ", which lies in memory: no process reads it",
    ),
    _NoEffect(("loader.prefetch_factor",), "loader.num_workers", lambda _, workers: workers == 0),
    _NoEffect(
        ("loader.resident",),
        "dataset",
        lambda _, dataset: dataset == "folder",
        ", which is read file by file",
    ),
    _NoEffect(
        ("dataset.split.test_frac",),
        "dataset",
        lambda _, dataset: dataset in WITH_TEST_DATA,
        ", which has a test set of its own",
    ),
    _NoEffect(("model.dropout", "model.activation"), "model.hidden", lambda _, hidden: hidden == []),
    _NoEffect(("optimizer.dampening",), "optimizer.momentum", lambda _, momentum: momentum == 0),
    _NoEffect(("optimizer.decoupled_weight_decay",), "optimizer.weight_decay", lambda _, decay: decay == 0),
    _NoEffect(
        ("optimizer.lr",),
        "scheduler.max_lr",
        lambda _, max_lr: max_lr != "auto",
        ", by which OneCycleLR sets every learning rate",
        of=("OneCycleLR",),
    ),
    _NoEffect(
        ("scheduler.decay", "scheduler.final_frac"), "scheduler.shape", lambda _, shape: shape == "constant"
    ),
    _NoEffect(("scheduler.decay",), "scheduler.total_steps", lambda _, steps: steps is None),
    _NoEffect(
        tuple(f"tracking.wandb.{key}" for key in ("project", "entity", "group", "tags", "notes")),
        "tracking.wandb.mode",
        lambda _, mode: mode == "disabled",
    ),
)

_NO_EFFECT_IN_EPOCHS = (
    _NoEffect(
        ("scheduler.step_size",),
        "trainer.max_epochs",
        lambda epochs, most: _is_number(most) and epochs >= most,
        ", and StepLR counts epochs",
        of=("StepLR",),
    ),
    _NoEffect(
        ("scheduler.milestones",),
        "trainer.max_epochs",
        lambda epochs, most: _is_number(most) and min(epochs) >= most,
        ", and MultiStepLR counts epochs",
        of=("MultiStepLR",),
    ),
)

_RULES: tuple[Callable[[_Config], _Mistakes], ...] = (
    *_RANGES,
    *_CLASHES,
    _nothing_ends,
    _share_of_no_length,
    _length_is_unknown,
    *_NO_EFFECT,
    _fall_to_no_end,
    _ends_before_its_epochs,
)


def _has_component(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_has_component, value))
    return isinstance(value, Mapping)


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_above(value: Any, other: Any) -> bool:
    return _is_number(value) and _is_number(other) and value > other


def _number_of(duration: str) -> float:
    return float(duration.split()[0])  # each has been checked, and has its one spelling


def _device_type(device: str) -> str:
    return device.partition(":")[0]


def _is_accelerator(device: str) -> bool:
    return _device_type(device) not in ("cpu", "auto")
