"""Schedules against closed forms and traces worked out by hand; every conf file builds one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.optim import SGD, Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from rootflow.errors import ConfigError
from rootflow.optim.intervals import interval_of
from rootflow.optim.schedules import Along, Schedule, WarmupDecay, chained, scheduler_facts
from rootflow.registry import find_component

CONF = Path(__file__).parents[2] / "conf" / "scheduler"


def make_optimizer(lr: float = 1.0) -> SGD:
    return SGD([torch.nn.Parameter(torch.ones(1))], lr=lr, momentum=0.9, weight_decay=0.1)


def trace(scheduler: LRScheduler, num_steps: int) -> list[float]:
    """Return the learning rate that each update uses."""
    optimizer, rates = scheduler.optimizer, []
    for _ in range(num_steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("shape", "half_way"),
    [("constant", 1.0), ("linear", 0.5), ("cosine", 0.5), ("one_minus_sqrt", 1 - math.sqrt(0.5))],
)
def test_each_shape_falls_from_its_peak_to_its_end(shape, half_way: float) -> None:
    schedule = Schedule(shape=shape)
    assert schedule.value_at(0.0) == 1.0
    assert schedule.value_at(0.5) == pytest.approx(half_way)
    assert schedule.value_at(1.0) == pytest.approx(1.0 if shape == "constant" else 0.0)
    values = [schedule.value_at(i / 100) for i in range(101)]
    assert values == sorted(values, reverse=True)


def test_the_number_rises_stays_and_falls() -> None:
    schedule = Schedule(peak=8.0, final=2.0, warmup_frac=0.2, decay_frac=0.4)
    values = [schedule.value_at(t) for t in (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)]
    assert values == pytest.approx([0.0, 4.0, 8.0, 8.0, 8.0, 5.0, 2.0])


def test_the_rise_has_precedence_over_the_fall() -> None:
    schedule = Schedule(warmup_frac=0.5, decay_frac=1.0)
    assert [schedule.value_at(t) for t in (0.25, 0.5, 0.75, 1.0)] == pytest.approx([0.5, 1.0, 0.5, 0.0])


@pytest.mark.parametrize(
    ("settings", "at_half", "at_end"),
    [
        ({"warmup_frac": 1.0}, 0.5, 1.0),
        ({"warmup_frac": 2.0}, 0.25, 0.5),
        ({"decay_frac": 0.0}, 1.0, 1.0),
        ({"decay_frac": 0.0, "final": 9.0}, 1.0, 1.0),
    ],
)
def test_a_rise_or_a_peak_may_last_the_whole_time(settings, at_half: float, at_end: float) -> None:
    schedule = Schedule(**settings)
    assert [schedule.value_at(0.5), schedule.value_at(1.0)] == [at_half, at_end]


def test_beyond_the_ends_the_number_is_as_at_the_ends() -> None:
    schedule = Schedule(final=0.25, warmup_frac=0.1)
    assert (schedule.value_at(-1.0), schedule.value_at(7.0)) == (0.0, 0.25)


@pytest.mark.parametrize(
    ("settings", "golden"),
    [
        ({"warmup": "0%"}, [0.95, 0.85, 0.75, 0.65, 0.55, 0.45, 0.35, 0.25, 0.15, 0.05]),
        ({"warmup": "20%"}, [0.25, 0.75, 0.9375, 0.8125, 0.6875, 0.5625, 0.4375, 0.3125, 0.1875, 0.0625]),
        ({"warmup": "20%", "decay": "20%"}, [0.25, 0.75, 1, 1, 1, 1, 1, 1, 0.75, 0.25]),
        ({"warmup": "2 steps", "decay": "1 epoch"}, [0.25, 0.75, 1, 1, 1, 1, 0.875, 0.625, 0.375, 0.125]),
        ({"warmup": "0.5 epochs", "decay": "2"}, [0.25, 0.75, 1, 1, 1, 1, 1, 1, 0.75, 0.25]),
        (
            {"warmup": "0 steps", "decay": "20%", "shape": "one_minus_sqrt"},
            [1, 1, 1, 1, 1, 1, 1, 1, 0.5, 1 - math.sqrt(0.75)],
        ),
        ({"warmup": "0%", "decay": "20%", "final_frac": 0.5}, [1, 1, 1, 1, 1, 1, 1, 1, 0.875, 0.625]),
        ({"warmup": "0%", "shape": "constant"}, [1] * 10),
        (
            {"warmup": "0%", "shape": "cosine"},
            [math.cos(math.pi * (i + 0.5) / 20) ** 2 for i in range(10)],
        ),
        ({"warmup": "20 steps"}, [(i + 0.5) / 20 for i in range(10)]),
    ],
)
def test_the_learning_rate_of_every_update_is_as_worked_out_by_hand(settings, golden: list[float]) -> None:
    scheduler = WarmupDecay(make_optimizer(), 10, steps_per_epoch=4, **settings)
    assert trace(scheduler, 10) == pytest.approx(golden)


def before_this_class(
    step: int, num_steps: int, *, shape: str, rise: float, fall: float, final: float
) -> float:
    """The factor of an update as `LambdaLR` had it until 0.4: the same numbers, bit for bit."""
    progress = (step + 0.5) / num_steps
    warmup_frac, decay_frac = rise / num_steps, fall / num_steps
    if progress < warmup_frac:
        return 1.0 * progress / warmup_frac
    decay_start = max(warmup_frac, 1 - decay_frac)
    if progress <= decay_start:
        return 1.0
    decayed = (progress - decay_start) / (1 - decay_start)
    remaining = {
        "constant": 1.0,
        "linear": 1 - decayed,
        "cosine": (1 + math.cos(math.pi * decayed)) / 2,
        "one_minus_sqrt": 1 - math.sqrt(decayed),
    }[shape]
    return final + (1.0 - final) * remaining


@pytest.mark.parametrize("num_steps", [1, 7, 100, 391])
@pytest.mark.parametrize("shape", ["linear", "cosine", "one_minus_sqrt", "constant"])
@pytest.mark.parametrize(("decay", "final"), [("100%", 0.0), ("20%", 0.1)])
def test_of_a_known_length_no_bit_has_changed(shape: Any, num_steps: int, decay: str, final: float) -> None:
    scheduler = WarmupDecay(
        make_optimizer(0.3), num_steps, steps_per_epoch=7, shape=shape, decay=decay, final_frac=final
    )
    rise, fall = 5 * num_steps / 100, int(decay[:-1]) * num_steps / 100
    if shape == "constant":
        fall = 0.0
    expected = [
        0.3 * before_this_class(i, num_steps, shape=shape, rise=rise, fall=fall, final=final)
        for i in range(num_steps)
    ]
    assert trace(scheduler, num_steps) == expected


@pytest.mark.parametrize(
    ("warmup", "golden"),
    [
        ("0 steps", [1.0] * 6),
        ("2 steps", [0.25, 0.75, 1, 1, 1, 1]),
        ("1 epoch", [0.125, 0.375, 0.625, 0.875, 1, 1]),
    ],
)
@pytest.mark.parametrize("shape", ["constant", "linear", "auto"])
def test_without_a_length_the_rate_rises_and_stays(shape: Any, warmup: str, golden: list[float]) -> None:
    scheduler = WarmupDecay(make_optimizer(), None, steps_per_epoch=4, shape=shape, warmup=warmup)
    assert trace(scheduler, 6) == pytest.approx(golden)


@pytest.mark.parametrize(
    ("steps_per_epoch", "rise"), [(1, 5), (30, 150), (40, 200), (100, 200), (300, 300), (None, 200)]
)
def test_without_a_length_the_warm_up_is_of_some_updates_and_epochs(
    steps_per_epoch: int | None, rise: int
) -> None:
    scheduler = WarmupDecay(make_optimizer(), None, steps_per_epoch=steps_per_epoch)
    rates = trace(scheduler, rise + 1)
    assert rates[0] == pytest.approx(0.5 / rise)
    assert rates[-2:] == [pytest.approx((rise - 0.5) / rise), 1.0]


@pytest.mark.parametrize("steps_per_epoch", [4, None])
def test_a_share_of_no_length_is_refused(steps_per_epoch: int | None) -> None:
    with pytest.raises(
        ConfigError, match=r"scheduler\.warmup is '5%', a share of the training, whose length is not known"
    ):
        WarmupDecay(make_optimizer(), None, steps_per_epoch=steps_per_epoch, warmup="5%")


def test_epochs_of_no_length_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"scheduler\.warmup is '1 epoch', but the training data has no length"
    ):
        WarmupDecay(make_optimizer(), 10, steps_per_epoch=None, warmup="1 epoch")


def test_a_decay_begins_once_and_only_where_it_is_waited_for() -> None:
    waiting = WarmupDecay(make_optimizer(), None, steps_per_epoch=4)
    assert waiting.can_begin_decay
    with pytest.raises(ValueError, match="at least 1 update, not 0"):
        waiting.begin_decay(0)
    waiting.begin_decay(3)
    assert not waiting.can_begin_decay
    fixed = WarmupDecay(make_optimizer(), 9, steps_per_epoch=4)
    constant = WarmupDecay(make_optimizer(), None, steps_per_epoch=4, shape="constant")
    for scheduler in (waiting, fixed, constant):
        assert not scheduler.can_begin_decay
        before = scheduler.state_dict()
        with pytest.raises(ValueError, match="the decay can't begin"):
            scheduler.begin_decay(3)
        assert scheduler.state_dict() == before


def test_a_decay_ends_at_the_final_rate_and_stays_there() -> None:
    scheduler = WarmupDecay(
        make_optimizer(), None, steps_per_epoch=4, warmup="0 steps", shape="linear", final_frac=0.5
    )
    trace(scheduler, 3)
    scheduler.begin_decay(2)
    assert trace(scheduler, 5) == pytest.approx([0.875, 0.625, 0.5, 0.5, 0.5])


def test_a_duration_that_is_none_is_told_with_its_key() -> None:
    with pytest.raises(
        ConfigError, match=r"scheduler\.decay is '5 min'; it must be a duration like '500 steps'"
    ):
        WarmupDecay(make_optimizer(), 10, steps_per_epoch=4, decay="5 min")


@pytest.mark.parametrize("num_steps", [1, 2, 3, 19, 1000])
def test_no_update_is_lost_to_a_learning_rate_of_zero(num_steps: int) -> None:
    rates = trace(WarmupDecay(make_optimizer(), num_steps, steps_per_epoch=10), num_steps)
    assert min(rates) > 0
    assert max(rates) <= 1
    assert rates[-1] <= 1 / num_steps


def test_every_group_keeps_its_own_peak() -> None:
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    optimizer = SGD([{"params": weights[:1], "lr": 0.5}, {"params": weights[1:]}], lr=0.1)
    WarmupDecay(optimizer, 10, steps_per_epoch=4, warmup="20%")
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.125, 0.025])


def saved_and_loaded(scheduler: WarmupDecay, make: Callable[[Optimizer], WarmupDecay]) -> WarmupDecay:
    """Return what a resumed run has, by way of text: a state is whole numbers."""
    saved = json.loads(json.dumps((scheduler.optimizer.state_dict(), scheduler.state_dict())))
    optimizer = make_optimizer()
    resumed = make(optimizer)
    optimizer.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    assert all(type(value) is int for value in resumed.state_dict().values())
    return resumed


ALSO: dict[str, Along] = {
    "weight_decay": Along(shape="cosine", final=0.1),
    "momentum": Along(initial=0.9, final=1.1),
}


def make_known(optimizer: Optimizer) -> WarmupDecay:
    return WarmupDecay(optimizer, 20, steps_per_epoch=4, also=ALSO)


def make_open(optimizer: Optimizer) -> WarmupDecay:
    return WarmupDecay(optimizer, None, steps_per_epoch=4, warmup="5 steps", final_frac=0.01, also=ALSO)


@pytest.mark.parametrize("make", [make_known, make_open])
@pytest.mark.parametrize("begins", [None, 2, 8])
@pytest.mark.parametrize("stops", [0, 3, 8, 11, 19])
def test_a_saved_and_loaded_schedule_goes_on_bit_for_bit(
    make: Callable[[Optimizer], WarmupDecay], begins: int | None, stops: int
) -> None:
    def settings(scheduler: WarmupDecay, first: int, end: int) -> list[dict[str, Any]]:
        found = []
        for step in range(first, end):
            if step == begins and scheduler.can_begin_decay:
                scheduler.begin_decay(7)
            group = scheduler.optimizer.param_groups[0]
            found.append({key: group[key] for key in ("lr", "weight_decay", "momentum")})
            scheduler.optimizer.step()
            scheduler.step()
        return found

    whole = settings(make(make_optimizer()), 0, 20)
    scheduler = make(make_optimizer())
    settings(scheduler, 0, stops)
    assert settings(saved_and_loaded(scheduler, make), stops, 20) == whole[stops:]


def test_a_longer_training_goes_on_where_it_was_on_its_own_schedule() -> None:
    def make_longer(optimizer: Optimizer) -> WarmupDecay:
        return WarmupDecay(optimizer, 40, steps_per_epoch=4)

    scheduler = WarmupDecay(make_optimizer(), 20, steps_per_epoch=4)
    trace(scheduler, 8)
    longer = trace(make_longer(make_optimizer()), 40)
    assert trace(saved_and_loaded(scheduler, make_longer), 32) == longer[8:]


def test_a_begun_decay_ends_as_it_began_also_if_the_length_is_given_later() -> None:
    def make_fixed(optimizer: Optimizer) -> WarmupDecay:
        return WarmupDecay(optimizer, 30, steps_per_epoch=4, warmup="0 steps")

    scheduler = WarmupDecay(make_optimizer(), None, steps_per_epoch=4, warmup="0 steps")
    trace(scheduler, 5)
    scheduler.begin_decay(4)
    trace(scheduler, 1)
    resumed = saved_and_loaded(scheduler, make_fixed)
    assert trace(resumed, 4) == pytest.approx([1 - math.sqrt(n / 8) for n in (3, 5, 7)] + [0.0])


def test_a_learning_rate_that_is_a_tensor_stays_that_tensor() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    tensor = torch.tensor(2.0)
    optimizer = torch.optim.Adam([weight], lr=tensor)
    scheduler = WarmupDecay(optimizer, 4, steps_per_epoch=4, warmup="0 steps")
    held = optimizer.param_groups[0]["lr"]
    assert trace(scheduler, 4) == pytest.approx([1.75, 1.25, 0.75, 0.25])
    assert optimizer.param_groups[0]["lr"] is held
    last = scheduler.get_last_lr()[0]
    assert last is not held
    assert last == held


def test_the_last_rates_are_those_that_the_next_update_uses() -> None:
    optimizer = make_optimizer()
    scheduler = WarmupDecay(optimizer, 4, steps_per_epoch=4)
    trace(scheduler, 2)
    assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups]


def test_other_settings_change_along_by_factors_on_each_groups_own() -> None:
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(3)]
    optimizer = torch.optim.AdamW(
        [
            {"params": weights[:1], "weight_decay": 0.2},
            {"params": weights[1:2], "weight_decay": 0.4},
            {"params": weights[2:], "weight_decay": 0.0},
        ],
        lr=1.0,
        betas=(0.8, 0.99),
    )
    also = {"weight_decay": Along(final=3.0), "momentum": Along(shape="constant", initial=0.5)}
    scheduler = WarmupDecay(optimizer, 6, steps_per_epoch=3, warmup="2 steps", decay="2 steps", also=also)
    decays, betas = [], []
    for _ in range(6):
        decays.append([group["weight_decay"] for group in optimizer.param_groups])
        betas.append(optimizer.param_groups[1]["betas"])
        optimizer.step()
        scheduler.step()
    assert [row[0] for row in decays] == pytest.approx([0.2, 0.2, 0.2, 0.2, 0.3, 0.5])
    assert [row[1] for row in decays] == pytest.approx([2 * row[0] for row in decays])
    assert [row[2] for row in decays] == [0.0] * 6
    assert [pair[0] for pair in betas] == pytest.approx([0.5, 0.7, 0.8, 0.8, 0.8, 0.8])
    assert {pair[1] for pair in betas} == {0.99}


def test_other_settings_of_an_open_training_wait_for_its_decay() -> None:
    optimizer = SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0, weight_decay=0.5)
    scheduler = WarmupDecay(
        optimizer, None, steps_per_epoch=4, warmup="1 step", also={"weight_decay": Along(final=0.0)}
    )
    found = []
    for step in range(6):
        if step == 3:
            scheduler.begin_decay(2)
        found.append(optimizer.param_groups[0]["weight_decay"])
        optimizer.step()
        scheduler.step()
    assert found == pytest.approx([0.5, 0.5, 0.5, 0.375, 0.125, 0.0])


def test_a_setting_that_the_optimizer_does_not_have_is_told_with_those_it_has() -> None:
    with pytest.raises(ConfigError) as caught:
        WarmupDecay(make_optimizer(), 9, steps_per_epoch=3, also={"weight_dekay": Along()})
    assert str(caught.value) == (
        "scheduler.also.weight_dekay: SGD has no such setting that could change. Did you mean 'weight_decay'? It "
        "has dampening, momentum, weight_decay."
    )


def test_chained_schedulers_multiply() -> None:
    optimizer = make_optimizer()
    members = [
        lr_scheduler.ConstantLR(optimizer, factor=0.5),
        lr_scheduler.ExponentialLR(optimizer, gamma=0.9),
    ]
    assert trace(chained(optimizer, members), 3) == pytest.approx([0.5, 0.45, 0.405])


def facts_of(scheduler, num_steps: int = 95, steps_per_epoch: int = 10, lr: float = 0.4) -> dict[str, Any]:
    facts = scheduler_facts(
        scheduler, num_steps=num_steps, steps_per_epoch=steps_per_epoch, lr=lr, higher_is_better=True
    )
    return {name: value for name, (value, _) in facts.items()}


def test_durations_are_in_what_the_scheduler_counts() -> None:
    assert facts_of(WarmupDecay)["total_steps"] == 95
    assert facts_of(lr_scheduler.CosineAnnealingLR)["T_max"] == 95
    assert facts_of(lr_scheduler.LinearLR)["total_iters"] == 10
    assert facts_of(lambda optimizer, total_steps: None)["total_steps"] == 95


def test_reasons_name_the_unit() -> None:
    facts = scheduler_facts(lr_scheduler.LinearLR, num_steps=95, steps_per_epoch=10, lr=0.4)
    assert facts["total_iters"] == (10, "epochs in the whole training")


def test_epochs_times_their_updates_cover_the_training() -> None:
    for num_steps in (1, 10, 95, 100):
        facts = facts_of(lr_scheduler.OneCycleLR, num_steps=num_steps)
        assert facts["epochs"] * facts["steps_per_epoch"] >= num_steps


def test_of_an_unknown_length_nothing_is_told() -> None:
    facts = scheduler_facts(WarmupDecay, num_steps=None, steps_per_epoch=10, lr=0.4)
    assert facts.keys() == {"steps_per_epoch", "max_lr", "base_lr"}


def test_of_data_of_unknown_length_nothing_is_told_in_epochs() -> None:
    facts = scheduler_facts(WarmupDecay, num_steps=95, steps_per_epoch=None, lr=0.4)
    assert facts.keys() == {"total_steps", "total_iters", "T_max", "max_lr", "base_lr"}
    assert facts["total_steps"] == (95, "updates in the whole training")
    facts = scheduler_facts(lr_scheduler.LinearLR, num_steps=95, steps_per_epoch=None, lr=0.4)
    assert facts.keys() == {"max_lr", "base_lr"}


def test_what_a_scheduler_is_made_to_count_counts() -> None:
    def t_max(interval: Any) -> Any:
        cosine = lr_scheduler.CosineAnnealingLR
        facts = scheduler_facts(cosine, num_steps=95, steps_per_epoch=10, lr=0.4, interval=interval)
        return facts.get("T_max", (None,))[0]

    assert [t_max(interval) for interval in ("auto", "step", "epoch", "evaluation")] == [95, 95, 10, None]


def test_learning_rates_are_those_of_the_optimizer() -> None:
    facts = facts_of(lr_scheduler.CyclicLR)
    assert (facts["base_lr"], facts["max_lr"]) == (0.1, 0.4)


@pytest.mark.parametrize(("higher_is_better", "mode"), [(True, "max"), (False, "min")])
def test_the_mode_is_the_better_side_of_the_metric(higher_is_better: bool, mode: str) -> None:
    plateau = lr_scheduler.ReduceLROnPlateau
    facts = scheduler_facts(
        plateau, num_steps=9, steps_per_epoch=3, lr=1.0, higher_is_better=higher_is_better
    )
    assert facts["mode"][0] == mode
    assert "mode" not in scheduler_facts(plateau, num_steps=9, steps_per_epoch=3, lr=1.0)


FROM_COMMAND_LINE: dict[str, Any] = {
    "lambda_lr": {"lr_lambda": lambda epoch: 0.9**epoch},
    "multiplicative_lr": {"lr_lambda": lambda _: 0.9},
    "multi_step_lr": {"milestones": [3, 6]},
}
"""What these options can't know and so leave out of their YAML."""


def build_from_conf(name: str, optimizer: Optimizer, num_steps: int, steps_per_epoch: int) -> LRScheduler:
    node = yaml.safe_load((CONF / f"{name}.yaml").read_text()) | FROM_COMMAND_LINE.get(name, {})
    make = find_component("scheduler", node.pop("name")).load()
    lr = optimizer.param_groups[0]["lr"]
    facts = facts_of(make, num_steps, steps_per_epoch, lr)
    if make is WarmupDecay:
        node |= {"total_steps": "auto", "steps_per_epoch": "auto"}  # required and left out
    if name in ("sequential_lr", "chained_scheduler"):
        node["schedulers"] = [
            lr_scheduler.LinearLR(optimizer),
            lr_scheduler.ExponentialLR(optimizer, gamma=0.9),
        ]
    if name == "sequential_lr":
        node["milestones"] = [5]
    scheduler: LRScheduler = make(optimizer, **{k: facts[k] if v == "auto" else v for k, v in node.items()})
    return scheduler


def test_every_scheduler_of_torch_has_a_conf_file() -> None:
    names = {yaml.safe_load(path.read_text())["name"] for path in CONF.glob("*.yaml")}
    # ChainedScheduler takes its optimizer second; `chained` takes it first, as all others do.
    torchs = set(lr_scheduler.__all__) - {"LRScheduler", "ChainedScheduler"}
    assert names == torchs | {"chained", "warmup_decay"}
    assert len(list(CONF.glob("*.yaml"))) == 15 + 5


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_conf_file_gives_a_schedule_for_the_whole_training(name: str) -> None:
    optimizer = make_optimizer(0.4)
    scheduler = build_from_conf(name, optimizer, num_steps=155, steps_per_epoch=10)
    interval, rates = interval_of(scheduler), []
    for step in range(1, 156):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        if interval == "evaluation" and step % 10 == 0:
            scheduler.step(0.5)  # type: ignore[call-arg, arg-type]
        elif interval == "step" or (interval == "epoch" and step % 10 == 0):
            scheduler.step()
    assert all(0 < rate <= 0.4 + 1e-12 for rate in rates)
    assert len(set(rates)) > 1 or name in ("constant", "reduce_lr_on_plateau")
