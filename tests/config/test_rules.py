"""Keys that contradict each other or do nothing are told, and only then; torch is asked whether it is so."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import Optimizer, lr_scheduler

from rootflow.build import arguments, build, load
from rootflow.config import rules
from rootflow.config.compose import open_composer
from rootflow.config.flat import to_flat
from rootflow.config.folders import shipped_folder
from rootflow.config.origin import Origins
from rootflow.config.rules import TENSOR_DATA, WITH_TEST_DATA, broken_rules
from rootflow.config.schema import Config, defaults_of, schema_of
from rootflow.config.show import options_of
from rootflow.data.loaders import DatasetLoader, TensorLoader, build_loader
from rootflow.data.splits import split_dataset
from rootflow.errors import ConfigError
from rootflow.models.mlp import MLP
from rootflow.optim.build_optimizer import build_optimizer
from rootflow.registry import GROUPS
from tests.config.conftest import Compose

Told = Callable[..., list[str]]
CONF = shipped_folder("conf")


@pytest.fixture
def told(compose: Compose) -> Told:
    """Return the mistakes of overrides, the shipped folder written as CONF."""

    def call(*overrides: str) -> list[str]:
        try:
            compose(*overrides)
        except ConfigError as error:
            return [str(mistake).replace(str(CONF), "CONF") for mistake in error.args]
        return []

    return call


NESTEROV = "optimizer.nesterov is true (CONF/optimizer/sgd.yaml:5), but "
SGD = ("optimizer=sgd",)
ONE_CYCLE = ("scheduler=one_cycle_lr", "trainer.max_epochs=9")
MEMBERS = "scheduler.schedulers=[{name: ConstantLR, factor: 0.5}]"

CLASHES = [
    (
        [*SGD, "optimizer.momentum=0"],
        NESTEROV + "optimizer.momentum is 0.0 (command line): it looks ahead along the momentum. Give "
        "optimizer.momentum, or set optimizer.nesterov=false.",
    ),
    (
        [*SGD, "optimizer.dampening=0.1"],
        NESTEROV + "optimizer.dampening is 0.1 (command line): it takes no dampening. Set "
        "optimizer.nesterov=false or optimizer.dampening=0.",
    ),
    (
        ["optimizer.fused=true", "optimizer.foreach=true"],
        "optimizer.fused is true (command line), but optimizer.foreach is true (command line): only one of "
        "them can be true.",
    ),
    (
        [*ONE_CYCLE, "optimizer=adagrad"],
        "scheduler.cycle_momentum is true, but optimizer.name is 'Adagrad' (CONF/optimizer/adagrad.yaml:2): it "
        "has no momentum. Set scheduler.cycle_momentum=false.",
    ),
    (
        ["scheduler=cosine", "scheduler.interval=epoch"],
        "scheduler.interval is 'epoch' (command line), but scheduler.name is 'warmup_decay' "
        "(CONF/scheduler/cosine.yaml:2): it counts updates. Leave scheduler.interval out; its durations can be "
        "given in epochs.",
    ),
    (
        ["scheduler=reduce_lr_on_plateau", "scheduler.interval=step"],
        "scheduler.interval is 'step' (command line), but scheduler.name is 'ReduceLROnPlateau' "
        "(CONF/scheduler/reduce_lr_on_plateau.yaml:2): it follows the monitored value, which is there after an "
        "evaluation. Leave scheduler.interval out.",
    ),
]


@pytest.mark.parametrize(("overrides", "message"), CLASHES)
def test_keys_that_contradict_each_other_are_told(told: Told, overrides: list[str], message: str) -> None:
    assert told(*overrides) == [message]


@pytest.mark.parametrize(
    "overrides",
    [
        [*SGD, "optimizer.momentum=0", "optimizer.nesterov=false"],
        [*SGD, "optimizer.dampening=0.1", "optimizer.nesterov=false"],
        ["optimizer.fused=true", "optimizer.foreach=false"],
        [*ONE_CYCLE, "optimizer=adagrad", "scheduler.cycle_momentum=false"],
        ["scheduler=cosine", "scheduler.total_steps=null"],
        ["scheduler=cosine", "scheduler.interval=step"],
        ["scheduler=reduce_lr_on_plateau", "scheduler.interval=evaluation"],
    ],
)
def test_keys_that_agree_are_not_told(told: Told, overrides: list[str]) -> None:
    assert told(*overrides) == []


DEAD = [
    (
        ["trainer.device=cuda", "trainer.num_threads=2"],
        "trainer.num_threads is 2",
        "trainer.device is 'cuda'",
    ),
    (
        ["trainer.batch_size=64", "trainer.micro_batch_size=128"],
        "trainer.micro_batch_size is 128",
        "trainer.batch_size is 64",
        ", which is less",
    ),
    (
        ["trainer.batch_size=64", "discover.batch_size.min_updates_per_epoch=9"],
        "discover.batch_size.min_updates_per_epoch is 9",
        "trainer.batch_size is 64",
    ),
    (
        ["trainer.batch_size=64", "discover.batch_size.rule=largest"],
        "discover.batch_size.rule is 'largest'",
        "trainer.batch_size is 64",
    ),
    (
        ["trainer.micro_batch_size=8", "discover.micro_batch_size.headroom=0.2"],
        "discover.micro_batch_size.headroom is 0.2",
        "trainer.micro_batch_size is 8",
    ),
    (
        ["optimizer.lr=0.1", "discover.lr.method=range_test"],
        "discover.lr.method is 'range_test'",
        "optimizer.lr is 0.1",
    ),
    (
        ["discover.lr.suggest=steep", "discover.lr.method=probe"],
        "discover.lr.suggest is 'steep'",
        "discover.lr.method is 'probe'",
    ),
    (
        ["discover.lr.method=rule", "discover.lr.max_steps=200"],
        "discover.lr.max_steps is 200",
        "discover.lr.method is 'rule'",
    ),
    (
        ["dataset=tensors", "dataset.path=t.npz", "loader.num_workers=2"],
        "loader.num_workers is 2",
        "dataset.name is 'tensors' (CONF/dataset/tensors.yaml:2)",
        ", which lies in memory: no process reads it",
    ),
    (
        ["dataset=folder", "dataset.path=d", "loader.num_workers=0", "loader.prefetch_factor=8"],
        "loader.prefetch_factor is 8",
        "loader.num_workers is 0",
    ),
    (
        ["dataset=folder", "dataset.path=d", "loader.resident=true"],
        "loader.resident is true",
        "dataset.name is 'folder' (CONF/dataset/folder.yaml:2)",
        ", which is read file by file",
    ),
    (
        ["dataset=mnist", "dataset.split.test_frac=0.3"],
        "dataset.split.test_frac is 0.3",
        "dataset.name is 'mnist' (CONF/dataset/mnist.yaml:2)",
        ", which has a test set of its own",
    ),
    (["model.hidden=[]", "model.dropout=0.5"], "model.dropout is 0.5", "model.hidden is []"),
    (["model.hidden=[]", "model.activation=gelu"], "model.activation is 'gelu'", "model.hidden is []"),
    (
        ["optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false", "optimizer.dampening=0.5"],
        "optimizer.dampening is 0.5",
        "optimizer.momentum is 0.0",
    ),
    (
        ["optimizer=adam", "optimizer.decoupled_weight_decay=true", "optimizer.weight_decay=0"],
        "optimizer.decoupled_weight_decay is true",
        "optimizer.weight_decay is 0.0",
    ),
    (
        [*ONE_CYCLE, "scheduler.max_lr=0.1", "optimizer.lr=0.01"],
        "optimizer.lr is 0.01",
        "scheduler.max_lr is 0.1",
        ", by which OneCycleLR sets every learning rate",
    ),
    (
        ["scheduler=constant", "scheduler.final_frac=0.1"],
        "scheduler.final_frac is 0.1",
        "scheduler.shape is 'constant' (CONF/scheduler/constant.yaml:3)",
    ),
    (
        ["scheduler=linear", "scheduler.shape=constant", "scheduler.decay=20%"],
        "scheduler.decay is '20%'",
        "scheduler.shape is 'constant'",
    ),
    (
        ["trainer.max_epochs=9", "scheduler.total_steps=null", "scheduler.decay=20%"],
        "scheduler.decay is '20%'",
        "scheduler.total_steps is null",
    ),
    (
        ["scheduler=step_lr", "scheduler.step_size=9", "trainer.max_epochs=9"],
        "scheduler.step_size is 9",
        "trainer.max_epochs is 9",
        ", and StepLR counts epochs",
    ),
    (
        ["scheduler=multi_step_lr", "scheduler.milestones=[300,600]", "trainer.max_epochs=9"],
        "scheduler.milestones is [300, 600]",
        "trainer.max_epochs is 9",
        ", and MultiStepLR counts epochs",
    ),
    (
        ["tracking.wandb.mode=disabled", "tracking.wandb.tags=[a]"],
        "tracking.wandb.tags is ['a']",
        "tracking.wandb.mode is 'disabled'",
    ),
]


@pytest.mark.parametrize("case", DEAD, ids=lambda case: " ".join(case[0]))
def test_a_key_without_effect_is_told(told: Told, case: tuple[Any, ...]) -> None:
    overrides, key, switch, *why = case
    place = "" if "(" in switch else " (command line)"
    assert told(*overrides) == [f"{key} (command line), which has no effect: {switch}{place}{''.join(why)}."]


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.num_threads=2"],  # the device may be a CPU
        ["trainer.num_threads=2", "trainer.device=cpu"],
        ["trainer.batch_size=64", "trainer.micro_batch_size=64"],
        ["trainer.micro_batch_size=128"],
        ["trainer.micro_batch_size=8", "discover.batch_size.max=64"],
        ["discover.lr.method=range_test", "discover.lr.suggest=steep", "discover.lr.shape=linear"],
        ["discover=rules"],
        ["loader.num_workers=0"],  # what happens anyway
        ["dataset=folder", "dataset.path=d", "loader.num_workers=2", "loader.prefetch_factor=8"],
        ["dataset=folder", "dataset.path=d", "loader.resident=false"],
        ["dataset=mnist", "dataset.split.val_frac=0.3"],
        ["dataset=csv", "dataset.path=t", "dataset.target=y", "dataset.split.test_frac=0.3"],
        ["model.hidden=[]", "model.dropout=0"],
        ["model.hidden=[4]", "model.dropout=0.5"],
        [*ONE_CYCLE, "optimizer.lr=0.01"],
        ["scheduler=cyclic_lr", "scheduler.max_lr=0.1", "optimizer.lr=0.01"],  # base_lr is made of it
        ["scheduler=linear", "scheduler.final_frac=0.1"],
        ["scheduler=wsd", "scheduler.shape=constant"],
        ["scheduler=wsd"],  # whose file says a decay for trainings of known length
        ["scheduler.decay=100%"],
        ["scheduler.decay=20%", "trainer.max_epochs=9"],
        ["scheduler.decay=20%", "trainer.max_samples=900"],
        ["scheduler.decay=20%", "scheduler.total_steps=900"],
        ["scheduler=exponential_lr", "scheduler.gamma=0.5"],
        ["scheduler=step_lr", "scheduler.step_size=8", "trainer.max_epochs=9"],
        ["scheduler=step_lr", "scheduler.step_size=9", "trainer.max_epochs=9", "scheduler.interval=step"],
        ["scheduler=step_lr", "trainer.max_epochs=9"],  # step_size is 10 in the option's file
        ["scheduler=multi_step_lr", "scheduler.milestones=[3,600]", "trainer.max_epochs=9"],
        ["tracking.wandb.mode=offline", "tracking.wandb.project=mine"],
    ],
    ids=" ".join,
)
def test_a_key_that_has_or_may_have_an_effect_is_not_told(told: Told, overrides: list[str]) -> None:
    assert told(*overrides) == []


def test_a_key_is_told_once_however_many_switches_take_its_effect(told: Told) -> None:
    assert told("optimizer.lr=0.1", "discover.lr.method=probe", "discover.lr.suggest=slide") == [
        "discover.lr.suggest is 'slide' (command line), which has no effect: optimizer.lr is 0.1 (command line)."
    ]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_what_a_projects_files_say_may_wait_for_its_switch(told: Told, project: Path) -> None:
    write(
        project / "conf" / "config.yaml",
        "defaults: [rootflow, _self_]\ntracking: {wandb: {mode: disabled, project: mine}}\n"
        "loader: {num_workers: 0, prefetch_factor: 8}\n",
    )
    write(project / "conf" / "model" / "line.yaml", "name: mlp\nhidden: []\ndropout: 0.5\n")
    assert told("model=line") == []
    assert told("tracking.wandb.project=other") == [
        "tracking.wandb.project is 'other' (command line), which has no effect: tracking.wandb.mode is "
        "'disabled' (conf/config.yaml:2)."
    ]


def test_what_an_experiment_says_is_told_unless_the_command_line_took_its_effect(
    told: Told, project: Path
) -> None:
    head = "# @package _global_\n"
    bound = "discover:\n  batch_size: {min_updates_per_epoch: 9}\n"
    write(project / "conf" / "experiment" / "waiting.yaml", head + bound)
    write(project / "conf" / "experiment" / "dead.yaml", head + bound + "trainer:\n  batch_size: 64\n")
    write(project / "conf" / "trainer" / "wide.yaml", "name: trainer\nbatch_size: 512\n")
    assert told("experiment=waiting") == []
    assert told("experiment=waiting", "trainer.batch_size=64") == []
    assert told("experiment=waiting", "trainer=wide") == []  # whose file sets trainer.batch_size
    assert told("experiment=dead") == [
        "discover.batch_size.min_updates_per_epoch is 9 (conf/experiment/dead.yaml:3), which has no effect: "
        "trainer.batch_size is 64 (conf/experiment/dead.yaml:5)."
    ]


def test_a_sweep_over_a_switch_may_have_jobs_in_which_a_key_does_nothing(project: Path) -> None:
    write(
        project / "sweeps" / "layers.yaml",
        "# @package _global_\nhydra:\n  sweeper:\n    params:\n      model.hidden: '[],[4]'\n",
    )
    with open_composer() as composer:
        jobs = composer.compose_jobs(["+sweeps=layers", "model.dropout=0.5"])
        assert [job.model["hidden"] for job in jobs] == [[], [4]]


def test_a_sweep_over_data_sets_may_have_jobs_in_which_a_key_does_nothing(project: Path) -> None:
    with open_composer() as composer:
        jobs = composer.compose_jobs(["dataset=digits,mnist", "dataset.split.test_frac=0.3"])
        assert [job.dataset["name"] for job in jobs] == ["digits", "mnist"]


def test_a_users_component_does_as_it_likes_with_keys_of_the_same_names(told: Told, project: Path) -> None:
    (project / "models" / "mlp.py").write_text(
        "from rootflow import register\nfrom torch import nn\n\n@register\nclass MLP(nn.Module):\n"
        "    '''Mine.'''\n    def __init__(self, hidden: list[int], dropout: float = 0.0) -> None: ...\n"
    )
    assert told("model=mlp", "model.hidden=[]", "model.dropout=0.5") == []


def test_a_users_optimizer_has_the_values_that_it_says(compose: Compose, project: Path) -> None:
    write(
        project / "optimizers" / "mine.py",
        "from rootflow import register\nfrom torch.optim import Optimizer\n\n@register\n"
        "class Mine(Optimizer):\n    def __init__(self, params, lr: float | None = None, "
        "momentum: tuple[float, float] = (0.9, 0.99), weight_decay: float = -1.0) -> None: ...\n",
    )
    found = compose("optimizer=mine").optimizer
    assert found == {"name": "mine", "lr": None, "momentum": [0.9, 0.99], "weight_decay": -1.0}
    assert compose("optimizer=mine", "optimizer.lr=inf").optimizer["lr"] == math.inf


def test_a_key_that_holds_a_component_is_left_to_it(compose: Compose) -> None:
    beta = {"_target_": "torch.tensor", "data": 0.9}
    config = compose("optimizer.betas=[{_target_: torch.tensor, data: 0.9}, 0.99]")
    assert config.optimizer["betas"] == [beta, 0.99]


SGD_NAMES = [
    "optimizer.name=SGD",
    "optimizer.name=torch.optim.SGD",
    "optimizer.name=torch.optim.sgd.SGD",
    "optimizer._target_=torch.optim.SGD",
    "optimizer._target_=torch.optim.sgd.SGD",
]
WARMUP_DECAY_NAMES = [
    "scheduler.name=warmup_decay",
    "scheduler.name=rootflow.optim.schedules.WarmupDecay",
    "scheduler._target_=rootflow.optim.schedules.WarmupDecay",
]
MNIST_NAMES = [
    "dataset.name=mnist",
    "dataset.name=rootflow.data.mnist.mnist",
    "dataset._target_=rootflow.data.mnist.mnist",
]


@pytest.mark.parametrize("name", SGD_NAMES)
def test_an_optimizer_is_judged_alike_however_it_is_named(told: Told, name: str) -> None:
    assert told("optimizer=sgd", name, "optimizer.momentum=0") == [CLASHES[0][1]]
    assert told("optimizer=sgd", name, "optimizer.lr=-1") == [
        "optimizer.lr is -1 (command line); it must be a number above 0 or 'auto'."
    ]


@pytest.mark.parametrize("name", WARMUP_DECAY_NAMES)
def test_a_scheduler_is_judged_alike_however_it_is_named(told: Told, name: str) -> None:
    assert told("scheduler=cosine", name, "scheduler.warmup=500 steps", *OPEN) == []
    assert told("scheduler=cosine", name, "scheduler.warmup=5%", *OPEN) == [
        f"scheduler.warmup is '5%' (command line), a share of all updates, {OPEN_END}how many those are. Give "
        "it in steps or epochs, or give trainer.max_epochs or trainer.max_steps."
    ]


@pytest.mark.parametrize("name", MNIST_NAMES)
def test_a_data_set_is_judged_alike_however_it_is_named(told: Told, name: str) -> None:
    key, _, given = name.partition("=")
    assert told("dataset=mnist", name, "dataset.split.test_frac=0.3") == [
        f"dataset.split.test_frac is 0.3 (command line), which has no effect: {key} is '{given}' (command "
        "line), which has a test set of its own."
    ]


@pytest.mark.parametrize("option", ["model.dropout=2", "model=nomodel"])
def test_a_group_with_a_mistake_of_its_own_says_nothing_more(told: Told, option: str) -> None:
    assert len(told(option, "model.hidden=[]")) == len(told(option)) == 1


OPEN = ("trainer.max_epochs=null", "trainer.patience=3")
BUDGETS = ("trainer.max_epochs=9", "trainer.max_steps=9", "trainer.max_samples=900")
OPEN_END = "but trainer.max_epochs is null (command line), so nobody knows "
NO_LENGTH = (
    f"the length of the training, {OPEN_END}how long that is. Choose scheduler=default, or give "
    "trainer.max_epochs or trainer.max_steps."
)


def test_a_training_that_nothing_ends_is_told(told: Told) -> None:
    others = (
        "and trainer.max_steps, trainer.max_samples and trainer.max_time are null. Give one of them, or leave "
        "trainer.patience out."
    )
    start = (
        "trainer.patience is null (command line), and nothing else ends the training: trainer.max_epochs is "
    )
    assert told("trainer.patience=null") == [f"{start}'auto', {others}"]
    assert told("trainer.patience=null", "trainer.max_epochs=null") == [
        f"{start}null (command line), {others}"
    ]


@pytest.mark.parametrize("limit", [*BUDGETS, "trainer.max_time=9"])
def test_one_limit_ends_a_training(told: Told, limit: str) -> None:
    assert told("trainer.patience=null", limit) == []


@pytest.mark.parametrize("patience", ["trainer.patience=3", "trainer.patience=auto"])
def test_patience_ends_a_training(told: Told, patience: str) -> None:
    assert told("trainer.max_epochs=null", patience) == []


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        *(
            (
                [f"scheduler={option}", "scheduler.warmup=5%"],
                f"scheduler.warmup is '5%' (command line), a share of all updates, {OPEN_END}how many those are. "
                "Give it in steps or epochs, or give trainer.max_epochs or trainer.max_steps.",
            )
            for option in ("default", "constant", "linear", "step_lr")
        ),
        *(
            (
                [f"scheduler={option}", "scheduler.decay=20%"],
                f"scheduler.decay is '20%' (command line), the fall at the end of the training, {OPEN_END}when "
                "that begins. Leave scheduler.decay out, or give trainer.max_epochs or trainer.max_steps.",
            )
            for option in ("default", "cosine")
        ),
        (
            ["scheduler=cosine_annealing_lr"],
            f"scheduler.T_max is 'auto' (CONF/scheduler/cosine_annealing_lr.yaml:3), {NO_LENGTH}",
        ),
        (
            ["scheduler=polynomial_lr"],
            f"scheduler.total_iters is 'auto' (CONF/scheduler/polynomial_lr.yaml:3), {NO_LENGTH}",
        ),
        (
            ["scheduler=one_cycle_lr"],
            f"scheduler.total_steps is 'auto' (CONF/scheduler/one_cycle_lr.yaml:4), {NO_LENGTH}",
        ),
        (
            ["scheduler=one_cycle_lr", "scheduler.total_steps=null", "scheduler.epochs=auto"],
            f"scheduler.epochs is 'auto' (command line), {NO_LENGTH}",
        ),
    ],
)
def test_a_scheduler_over_the_length_of_an_open_training_is_told(
    told: Told, scheduler: list[str], message: str
) -> None:
    assert told(*scheduler, *OPEN) == [message]
    assert told(*scheduler) == [message.replace("null (command line)", "'auto'")]
    assert [told(*scheduler, budget, "trainer.patience=3") for budget in BUDGETS] == [[], [], []]


@pytest.mark.parametrize(
    "scheduler",
    [
        ["scheduler=constant", "scheduler.warmup=500 steps"],
        ["scheduler=linear"],
        ["scheduler=default", "scheduler.warmup=2 epochs"],
        ["scheduler=step_lr", "scheduler.warmup=2 epochs"],
        ["scheduler=linear", "scheduler.total_steps=900", "scheduler.warmup=5%"],
        ["scheduler=cosine_annealing_lr", "scheduler.T_max=900"],
        ["scheduler=exponential_lr"],
        ["scheduler=reduce_lr_on_plateau"],
    ],
)
def test_a_scheduler_that_needs_no_length_goes_with_an_open_training(
    told: Told, scheduler: list[str]
) -> None:
    assert told(*scheduler, *OPEN) == []


def test_a_decay_may_wait_for_the_end_of_a_training(told: Told, project: Path) -> None:
    write(
        project / "conf" / "experiment" / "falls.yaml",
        "# @package _global_\nscheduler:\n  decay: 20%\ntrainer:\n  max_steps: 9\n",
    )
    assert told("experiment=falls", "trainer.max_steps=null") == []
    with open_composer() as composer:
        jobs = composer.compose_jobs(["trainer.max_steps=null,9", "scheduler.decay=20%"])
        assert [job.trainer["max_steps"] for job in jobs] == [None, 9]


def test_a_users_scheduler_over_the_length_of_an_open_training_is_told(told: Told, project: Path) -> None:
    write(
        project / "schedulers" / "mine.py",
        "from rootflow import register\n\n@register\ndef mine(optimizer, total_steps: int): ...\n",
    )
    assert told("scheduler=mine", *OPEN) == [f"scheduler.total_steps is 'auto', {NO_LENGTH}"]


RANGES = [
    (["optimizer=adam", "optimizer.betas=[0.9,1.0]"], "[0.9, 1.0]", "two numbers from 0 to below 1"),
    (["optimizer=adam", "optimizer.eps=-1"], "-1.0", "at least 0"),
    (["optimizer=adafactor", "optimizer.eps=[-1,0.1]"], "[-1.0, 0.1]", "at least 0"),
    (["optimizer=sparse_adam", "optimizer.eps=0"], "0.0", "above 0"),
    (["optimizer=rmsprop", "optimizer.alpha=-1"], "-1.0", "at least 0"),
    (["optimizer=adadelta", "optimizer.rho=1.5"], "1.5", "a number from 0 to 1"),
    (["optimizer=rprop", "optimizer.etas=[0.5,1.0]"], "[0.5, 1.0]", "a number between 0 and 1, one above 1"),
    (["optimizer=nadam", "optimizer.momentum_decay=-1"], "-1.0", "at least 0"),
    (["optimizer=adagrad", "optimizer.lr_decay=-1"], "-1.0", "at least 0"),
    (["optimizer=adagrad", "optimizer.initial_accumulator_value=-1"], "-1.0", "at least 0"),
    (["optimizer=adafactor", "optimizer.beta2_decay=0.5"], "0.5", "at most 0"),
    (["optimizer=adafactor", "optimizer.d=0.5"], "0.5", "at least 1"),
    (
        ["optimizer=rmsprop", "optimizer.differentiable=true"],
        "true",
        "false: a model can't be trained with it",
    ),
    (["scheduler=reduce_lr_on_plateau", "scheduler.factor=1.0"], "1.0", "below 1"),
    (["scheduler=constant_lr", "scheduler.factor=1.5"], "1.5", "a number from 0 to 1"),
    (["scheduler=linear_lr", "scheduler.start_factor=0"], "0.0", "above 0 and at most 1"),
    (["scheduler=linear_lr", "scheduler.end_factor=1.5"], "1.5", "a number from 0 to 1"),
    ([*ONE_CYCLE, "scheduler.pct_start=1.5"], "1.5", "a number from 0 to 1"),
    (["scheduler=cosine_annealing_warm_restarts", "scheduler.T_0=0"], "0", "at least 1"),
    (["scheduler=cosine_annealing_warm_restarts", "scheduler.T_mult=0"], "0", "at least 1"),
]
ENDLESS = [
    ([f"optimizer={option}", f"optimizer.{key}=inf"], "inf", "finite")
    for option, key in [("adamw", "lr"), ("adamw", "weight_decay"), ("sgd", "momentum"), ("muon", "lr")]
]
"""What torch takes, though no weight is finite after it."""
PERIODS = [
    (["trainer.eval_every=0"], "'0 epochs'", "above 0"),
    (["trainer.eval_every='0.0 steps'"], "'0 steps'", "above 0"),
    (["trainer.save_every='0 h'"], "'0 s'", "above 0"),
]
FRACS = [
    (["dataset=digits", "dataset.split.val_frac=1"], "1.0", "below 1: nothing would be left to train on"),
    (["dataset=digits", "dataset.split.test_frac=1"], "1.0", "below 1: nothing would be left to train on"),
]


@pytest.mark.parametrize(("overrides", "value", "allowed"), [*RANGES, *ENDLESS, *PERIODS, *FRACS])
def test_a_value_that_its_component_refuses_is_told(
    told: Told, overrides: list[str], value: str, allowed: str
) -> None:
    key = overrides[-1].partition("=")[0]
    assert told(*overrides) == [f"{key} is {value} (command line); it must be {allowed}."]


@pytest.mark.parametrize("overrides", [case[0] for case in [*RANGES, *CLASHES[:4]]], ids=" ".join)
def test_torch_refuses_what_the_rules_refuse(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    monkeypatch.setattr("rootflow.config.check.broken_rules", lambda *_: [])
    config = compose(*overrides)
    with pytest.raises((ConfigError, ValueError, RuntimeError, AssertionError)):
        update_once(config)


@pytest.mark.parametrize("overrides", [case[0] for case in [*RANGES, *CLASHES[:3]]], ids=" ".join)
def test_torch_takes_what_is_left_without_it(compose: Compose, overrides: list[str]) -> None:
    if overrides[0] != "optimizer=sparse_adam":  # which takes no gradient of such a model
        update_once(compose(*overrides[:-1]))


def update_once(config: Config) -> None:
    node = {k: v for k, v in config.optimizer.items() if v != "auto"}
    model = MLP(2, 2, hidden=())
    optimizer = build_optimizer(load("optimizer", node), model, arguments("optimizer", node))
    filled = {"total_steps": 9, "steps_per_epoch": 3, "max_lr": 0.1, "mode": "min"}
    node = {k: filled.get(k, v) if v == "auto" else v for k, v in config.scheduler.items()}
    build("scheduler", node, optimizer)
    model(torch.ones(2, 2)).sum().backward()
    optimizer.step()


def run(optimizer: Optimizer, scheduler: Any, num_steps: int) -> list[tuple[float, float]]:
    history = []
    for _ in range(num_steps):
        group = optimizer.param_groups[0]
        history.append((group["lr"], group["momentum"]))
        optimizer.step()
        scheduler.step()
    return history


@pytest.mark.parametrize(
    ("name", "fixed", "key", "values"),
    [
        ("OneCycleLR", {"max_lr": 0.1, "total_steps": 9}, "lr", (0.1, 9.0)),
        ("StepLR", {}, "step_size", (9, 99)),
        ("MultiStepLR", {}, "milestones", ([9], [99])),
    ],
)
def test_torchs_schedulers_do_the_same_whatever_a_key_without_effect_is(
    name: str, fixed: dict[str, Any], key: str, values: tuple[Any, Any]
) -> None:
    histories = []
    for value in values:
        lr = value if key == "lr" else 0.1
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr, momentum=0.9)
        settings = fixed if key == "lr" else fixed | {key: value}
        histories.append(run(optimizer, getattr(lr_scheduler, name)(optimizer, **settings), 9))
    assert histories[0] == histories[1]


def test_data_in_memory_is_read_by_no_worker_and_files_are_never_resident(
    compose: Compose, project: Path
) -> None:
    from PIL import Image

    for name in ("a", "b"):
        (project / "images" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (8, 8), (index, 0, 0)).save(project / "images" / name / f"{index}.png")
    (project / "t.csv").write_text("x,y\n" + "".join(f"{i},{i % 2}\n" for i in range(9)))
    kinds = {}
    for option, keys in {
        "digits": {},
        "csv": {"path": "t.csv", "target": "y"},
        "folder": {"path": "images"},
    }.items():
        node = compose(f"dataset={option}", *(f"dataset.{k}={v}" for k, v in keys.items())).dataset
        splits = split_dataset(load("dataset", node)(**arguments("dataset", node)))
        cpu = torch.device("cpu")
        kinds[option] = type(build_loader(splits.train, batch_size=2, device=cpu, is_train=True))
    assert kinds == {"digits": TensorLoader, "csv": TensorLoader, "folder": DatasetLoader}


REQUIRED = {
    ("dataset", "csv"): ["dataset.path=t.csv", "dataset.target=y"],
    ("dataset", "folder"): ["dataset.path=images"],
    ("dataset", "tensors"): ["dataset.path=t.npz"],
    ("scheduler", "cosine_annealing_lr"): ["trainer.max_epochs=9"],  # they end when the training does
    ("scheduler", "one_cycle_lr"): ["trainer.max_epochs=9"],
    ("scheduler", "polynomial_lr"): ["trainer.max_epochs=9"],
    ("scheduler", "multi_step_lr"): ["scheduler.milestones=[1]"],
    ("scheduler", "lambda_lr"): ["scheduler.lr_lambda={_target_: math.exp, _partial_: true}"],
    ("scheduler", "multiplicative_lr"): ["scheduler.lr_lambda={_target_: math.exp, _partial_: true}"],
    ("scheduler", "sequential_lr"): [MEMBERS, "scheduler.milestones=[]"],
    ("scheduler", "chained_scheduler"): [MEMBERS],
}
"""What an option can't know: the user must give it."""

WITHOUT_MOMENTUM = ["adadelta", "adafactor", "adagrad", "asgd", "lbfgs", "rprop"]


def choices(group: str) -> list[list[str]]:
    names = [row["option"] for row in options_of(group)]
    return [[f"{group}={name}", *REQUIRED.get((group, name), [])] for name in names]


def shipped_nodes(group: str) -> list[dict[str, Any]]:
    with open_composer() as composer:
        return [composer.compose(choice).to_dict()[group] for choice in choices(group)]


def test_a_rule_is_about_keys_and_components_that_there_are(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, names = set(GROUPS), set()
    for group in GROUPS:
        for node in shipped_nodes(group):
            schema = schema_of(group, node)
            assert schema is not None
            keys |= to_flat({group: defaults_of(schema)}).keys() | {f"{group}.{p.name}" for p in schema.about}
            names.add(schema.title.rpartition(".")[2])
    asked: set[str] = set()

    def knows_nothing(_: object, *wanted: str) -> bool:
        asked.update(wanted)
        return False

    monkeypatch.setattr(rules._Config, "knows", knows_nothing)
    broken_rules({}, Origins())
    assert len(asked) > 60
    assert asked - keys == set()
    all_rules = [*rules._RULES, *rules._NO_EFFECT_IN_EPOCHS]
    assert {name for rule in all_rules for name in getattr(rule, "of", ())} - names == set()
    assert set(rules._WITHOUT_MOMENTUM) - names == set()


def test_it_is_decided_for_every_shipped_data_set_whether_a_process_reads_it_and_who_splits_it(
    project: Path,
) -> None:
    schemas = [schema_of("dataset", node) for node in shipped_nodes("dataset")]
    names = {schema.title.rpartition(".")[2] for schema in schemas if schema is not None}
    read_by_processes = {"folder"}
    without_test_data = {"digits", "csv_table", "tensors", "folder"}  # folder and tensors may have some
    assert names == {*TENSOR_DATA, *read_by_processes} == {*WITH_TEST_DATA, *without_test_data}


@pytest.mark.parametrize("group", [*GROUPS, "experiment"])
def test_no_shipped_option_is_told_of_anything(told: Told, group: str) -> None:
    assert {o[0]: told(*o) for o in choices(group)} == {o[0]: [] for o in choices(group)}


def test_no_two_shipped_options_clash_but_those_that_cannot_go_together(project: Path) -> None:
    with open_composer() as composer:
        start = composer.compose(["trainer.max_epochs=9"]).to_dict()
    options = {
        (group, overrides[0]): node
        for group in GROUPS
        for overrides, node in zip(choices(group), shipped_nodes(group), strict=True)
    }
    pairs = [
        (name, other)
        for ((group, name), node), ((other_group, other), other_node) in itertools.combinations(
            options.items(), 2
        )
        if broken_rules(start | {group: node, other_group: other_node}, Origins())
    ]
    cycles = ["scheduler=cyclic_lr", "scheduler=one_cycle_lr"]
    to_the_end = [f"scheduler={name}" for name in ("cosine_annealing_lr", "one_cycle_lr", "polynomial_lr")]
    assert pairs == [
        *((f"optimizer={name}", cycle) for name in WITHOUT_MOMENTUM for cycle in cycles),
        *((scheduler, "trainer=default") for scheduler in to_the_end),  # which ends nobody knows when
    ]
