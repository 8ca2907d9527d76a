"""A scheduler from an object, a class, a function, a name or a node."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from rootflow.errors import ConfigError
from rootflow.limits import PositiveInt
from rootflow.optim.about import AboutScheduler
from rootflow.optim.build_scheduler import dress_scheduler, make_scheduler
from rootflow.optim.intervals import interval_of
from rootflow.optim.schedules import WarmupDecay
from rootflow.optim.warmup import Warmup


def make_optimizer() -> SGD:
    return SGD([torch.nn.Parameter(torch.ones(1))], lr=0.4, momentum=0.9)


def make(scheduler: Any, num_steps: int | None = 12, *, higher_is_better: bool | None = None) -> Any:
    return make_scheduler(
        scheduler,
        make_optimizer(),
        num_steps=num_steps,
        steps_per_epoch=4,
        higher_is_better=higher_is_better,
    )


def test_no_scheduler_stays_none() -> None:
    assert make(None) is None


def test_a_scheduler_that_is_built_is_returned_as_it_is() -> None:
    optimizer = make_optimizer()
    members: list[LRScheduler] = [lr_scheduler.ConstantLR(optimizer), lr_scheduler.StepLR(optimizer, 3)]
    for given in (
        lr_scheduler.StepLR(optimizer, 3),
        lr_scheduler.ReduceLROnPlateau(optimizer),
        lr_scheduler.SequentialLR(optimizer, members, [1]),
        lr_scheduler.ChainedScheduler(members, optimizer),
        Warmup(lr_scheduler.StepLR(optimizer, 3), 3),
    ):
        assert make_scheduler(given, optimizer, num_steps=9, steps_per_epoch=3) is given


def test_a_scheduler_of_another_optimizer_is_refused() -> None:
    given = lr_scheduler.StepLR(make_optimizer(), 3)
    with pytest.raises(
        ConfigError, match="the StepLR is for another optimizer than the one that is trained with"
    ):
        make(given)


class Ours(LRScheduler):
    """A user's class that wants to know the length."""

    def __init__(
        self, optimizer: Optimizer, total_steps: PositiveInt, *, steps_per_epoch: PositiveInt
    ) -> None:
        self.total_steps, self.steps_per_epoch = total_steps, steps_per_epoch
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        return [group["lr"] for group in self.optimizer.param_groups]


def in_cosine(optimizer: Optimizer, T_max: int) -> LRScheduler:  # noqa: N803  # torch's name
    return lr_scheduler.CosineAnnealingLR(optimizer, T_max)


@pytest.mark.parametrize(
    ("scheduler", "attributes"),
    [
        (lr_scheduler.CosineAnnealingLR, {"T_max": 12, "eta_min": 0.0}),
        (functools.partial(lr_scheduler.CosineAnnealingLR, eta_min=0.1), {"T_max": 12, "eta_min": 0.1}),
        (functools.partial(lr_scheduler.CosineAnnealingLR, T_max=7), {"T_max": 7}),
        (in_cosine, {"T_max": 12}),
        (Ours, {"total_steps": 3, "steps_per_epoch": 4}),  # it counts epochs
        ("CosineAnnealingLR", {"T_max": 12}),
        ("cosine_annealing_lr", {"T_max": 12}),
        ({"name": "CosineAnnealingLR", "T_max": "auto"}, {"T_max": 12}),
        ({"name": "CosineAnnealingLR", "interval": "epoch"}, {"T_max": 3, "interval": "epoch"}),
        ({"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR"}, {"T_max": 12}),
        (lr_scheduler.OneCycleLR, {"total_steps": 12}),
        (functools.partial(lr_scheduler.OneCycleLR, epochs=2, steps_per_epoch=3), {"total_steps": 6}),
        (lr_scheduler.PolynomialLR, {"total_iters": 12}),  # not torch's 5 updates, after which the rate is 0
        ("polynomial_lr", {"total_iters": 12}),
        (functools.partial(lr_scheduler.StepLR, step_size=2), {"step_size": 2}),
        (WarmupDecay, {"total_steps": 12, "shape": "auto"}),
        ("cosine", {"total_steps": 12, "shape": "cosine"}),
        ("default", {"total_steps": 12, "shape": "auto"}),
    ],
)
def test_what_is_required_and_known_is_filled(scheduler: Any, attributes: dict[str, Any]) -> None:
    made = make(scheduler)
    assert {name: getattr(made, name) for name in attributes} == attributes


@pytest.mark.parametrize(
    "scheduler", [lr_scheduler.ReduceLROnPlateau, "ReduceLROnPlateau", "reduce_lr_on_plateau"]
)
def test_a_plateau_is_one_of_the_better_side(scheduler: Any) -> None:
    made = [make(scheduler, higher_is_better=is_better).mode for is_better in (True, False, None)]
    assert made == ["max", "min", "min"]
    fixed = functools.partial(lr_scheduler.ReduceLROnPlateau, mode="min")
    assert make(fixed, higher_is_better=True).mode == "min"


def test_rates_are_made_of_the_optimizers() -> None:
    made = make(functools.partial(lr_scheduler.CyclicLR, cycle_momentum=False))
    assert (made.base_lrs, made.max_lrs, made.mode) == ([0.1], [0.4], "triangular")


@pytest.mark.parametrize("name", ["CosineAnnealingLR", "OneCycleLR", "one_cycle_lr", "polynomial_lr"])
def test_a_length_that_nobody_knows_is_told(name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"scheduler\.\w+ of torch.* is a length of the training, which is not"
    ):
        make(name, None)


def test_how_many_evaluations_there_will_be_nobody_knows() -> None:
    with pytest.raises(
        ConfigError, match=r"scheduler\.T_max of .* is a length of the training, which is not known"
    ):
        make({"name": "CosineAnnealingLR", "interval": "evaluation"})


def test_an_open_schedule_takes_no_length() -> None:
    assert make("cosine", None).can_begin_decay
    assert make(WarmupDecay, None).can_begin_decay
    assert not make("constant", None).can_begin_decay


def test_the_interval_and_the_warm_up_of_a_node_are_taken_off_and_apply() -> None:
    made = make({"name": "StepLR", "step_size": 2, "interval": "step", "warmup": "1 epoch"})
    assert isinstance(made, Warmup)
    assert (made.num_steps, interval_of(made), interval_of(made.scheduler)) == (4, "step", "step")


def test_a_key_that_the_component_takes_itself_is_its_own() -> None:
    made = make({"name": "warmup_decay", "warmup": "1 epoch"})
    assert isinstance(made, WarmupDecay)
    assert made.get_last_lr() == pytest.approx([0.4 / 8])


def test_members_have_no_interval_of_their_own() -> None:
    with pytest.raises(ConfigError, match="unexpected keyword argument 'interval'"):
        make({"name": "chained", "schedulers": [{"name": "ConstantLR", "interval": "step"}]})


@pytest.mark.parametrize(
    ("node", "told"),
    [
        (
            {"name": "warmup_decay", "interval": "epoch"},
            "scheduler.interval is 'epoch', but warmup_decay counts updates",
        ),
        (
            {"name": "ReduceLROnPlateau", "interval": "step"},
            "scheduler.interval is 'step', but ReduceLROnPlateau follows the monitored value",
        ),
        ({"name": "StepLR", "step_size": 2, "warmup": "5 min"}, "scheduler.warmup is '5 min'; it must be a dura"),
        ({"name": "StepLR", "step_size": 2, "interval": "setp"}, r"interval is 'setp'; it must be 'step', 'epoch'"),
        ({"name": "StepLR"}, r"scheduler can't be built: torch.*StepLR: .*missing 1 required .* 'step_size'"),
        ({"name": "StpLR"}, r"scheduler\.name is 'StpLR', which is not registered\. Did you mean 'StepLR'"),
        ("stepp_lr", r"scheduler\.name is 'stepp_lr', which is not registered\. Did you mean 'StepLR'"),
        ({"step_size": 2}, "names no component; add `name` or `_target_`"),
        (7, "scheduler is 7; it must be one that is built, a class or function"),
        (functools.partial(lr_scheduler.StepLR, 3), "with arguments by name"),
        (lambda optimizer: None, "scheduler is a NoneType object, which has no method `step`"),
        (lr_scheduler.LambdaLR, "scheduler can't be built: torch.*LambdaLR: .*'lr_lambda'"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_told(node: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make(node)


def test_a_share_of_no_length_is_no_warm_up() -> None:
    scheduler = lr_scheduler.StepLR(make_optimizer(), 2)
    with pytest.raises(
        ConfigError, match=r"scheduler\.warmup is '5%', a share of the training, whose length"
    ):
        dress_scheduler(scheduler, AboutScheduler(warmup="5%"), num_steps=None, steps_per_epoch=4)


def test_a_projects_own_option_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "conf" / "scheduler"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("defaults: [step_lr]\ngamma: 0.7\ninterval: step\n")
    made = make("mine")
    assert (made.gamma, made.step_size, made.interval) == (0.7, 10, "step")
