"""Changes to a saved state by which a training goes on otherwise: longer, slower, or with other settings.

A state is what `TrainState.state_dict` returns. Nothing here is needed to go on as before.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rootflow.checkpoint.weights import check_weights
from rootflow.errors import CheckpointError, ConfigError
from rootflow.optim.scheduler_steps import follows_monitored
from rootflow.optim.schedules import WarmupDecay
from rootflow.train.length import Period
from rootflow.train.loop import Position

State = dict[str, Any]

_RATES = re.compile(r"(.*_)?lrs?|eta_min|eta_max|rates")
"""Names under which optimizers and schedulers, torch's and ours, keep learning rates."""


def without_end(state: Mapping[str, Any]) -> State:
    """Return the state of a training that has not ended, with its patience anew if that had ended it."""
    progress, stopping = dict(state["progress"]), dict(state["stopping"])
    if not progress["stop_reason"].startswith("max_"):
        stopping["num_since_best"] = 0
    progress["stop_reason"] = ""
    return {**state, "progress": progress, "stopping": stopping}


def with_halved_lr(state: Mapping[str, Any]) -> State:
    """Return the state with every learning rate halved, those that schedules have yet to come to, too."""
    num_halvings = state["progress"]["num_lr_halvings"] + 1
    return _with_scaled_lr({**state, "progress": {**state["progress"], "num_lr_halvings": num_halvings}}, 0.5)


def with_settings(state: Mapping[str, Any], optimizer: Optimizer, scheduler: LRScheduler | None) -> State:
    """Return the state with the settings of an optimizer and a scheduler that were just built.

    What was learned stays: the moments of the parameters, and how far the schedule is. So do halvings of the
    learning rate, unless another one was set.

    Args:
        state: with one optimizer.
        optimizer: has taken no step. Its learning rate is moved to where the schedule is.
        scheduler: likewise.

    Raises:
        ConfigError: the scheduler's place in other settings can't be told, or the groups are others.
    """
    saved = state["optimizer"]["0"]
    if len(saved["param_groups"]) != len(optimizer.param_groups):
        raise ConfigError("the optimizer's settings group the parameters otherwise than before; leave those.")
    (schedule,) = state["scheduler"]["schedulers"] or (None,)
    if scheduler is not None and schedule is not None and not isinstance(scheduler, WarmupDecay):
        schedule = _moved(scheduler, schedule)
    groups = [
        {**{key: value for key, value in fresh.items() if key != "params"}, "params": old["params"]}
        for old, fresh in zip(saved["param_groups"], optimizer.param_groups, strict=True)
    ]
    fresh_state = {
        **state,
        "optimizer": {**state["optimizer"], "0": {**saved, "param_groups": groups}},
        "scheduler": {"schedulers": [] if schedule is None else [schedule]},
    }
    scale = 0.5 ** state["progress"]["num_lr_halvings"]
    if math.isclose(peak_lr(saved["param_groups"][0]), scale * peak_lr(groups[0])):
        return _with_scaled_lr(fresh_state, scale)
    return {**fresh_state, "progress": {**state["progress"], "num_lr_halvings": 0}}


def peak_lr(group: Mapping[str, Any]) -> float:
    """Return the learning rate of a parameter group that its schedule is about; the present without one."""
    return float(group.get("max_lr", group.get("initial_lr", group["lr"])))


def is_level(optimizer: Optimizer, scheduler: LRScheduler | None) -> bool:
    """Whether a schedule that was just built is the same at all times, however long the training is."""
    if scheduler is None:
        return True
    starts_level = all(group["lr"] == group["initial_lr"] for group in optimizer.param_groups)
    return isinstance(scheduler, WarmupDecay) and scheduler.shape == "constant" and starts_level


def with_best_on_disk(state: Mapping[str, Any], folder: Path, monitor: str | None) -> tuple[State, str]:
    """Return the state with the evaluation that best.safetensors is of, and what is wrong with the file.

    It may be one after the checkpoint. Weights that are missing or damaged are not the best of anything.

    Args:
        state: a training's.
        folder: where best.safetensors and best.json are.
        monitor: the metric that decides; None where nothing was evaluated.
    """
    if monitor is None:
        return dict(state), ""
    path = folder / "best.safetensors"
    best, wrong = dict(state["progress"]["best"]), ""
    try:
        check_weights(path)
        on_disk = json.loads(path.with_suffix(".json").read_bytes())
    except (OSError, ValueError, CheckpointError) as error:
        best, wrong = {}, f"the best weights are lost: {error}" if best else ""
    else:
        if on_disk.get("step") != best.get("step") and isinstance(on_disk.get(monitor), int | float):
            best = {key: value for key, value in on_disk.items() if key not in ("bytes", "sha256")}
    stopping = {**state["stopping"], "best": best.get(monitor)}
    return {**state, "progress": {**state["progress"], "best": best}, "stopping": stopping}, wrong


def was_evaluated_early(state: Mapping[str, Any], eval_every: str, num_batches: int | None) -> bool:
    """Whether the last evaluation was made only because the training ended there."""
    progress = state["progress"]
    position = Position(step=progress["step"], epoch=progress["epoch"], batch=progress["batch"])
    period = Period.read(eval_every, key="trainer.eval_every", steps_per_epoch=num_batches)
    is_pass_over = progress["phase"] != "training" or position.batch == num_batches
    is_last = progress["evaluated_step"] == position.step
    return is_last and not period.is_due(position, is_pass_over=is_pass_over)


def _with_scaled_lr(state: Mapping[str, Any], scale: float) -> State:
    """Return the state with all learning rates of optimizers and schedulers times a number."""
    optimizers = {
        index: {**optimizer, "param_groups": _scaled(optimizer["param_groups"], scale)}
        for index, optimizer in state["optimizer"].items()
    }
    return {**state, "optimizer": optimizers, "scheduler": _scaled(state["scheduler"], scale)}


def _scaled(value: Any, scale: float, name: str = "") -> Any:
    """Return what is kept under a name, with the learning rates in it times a number."""
    if isinstance(value, Mapping):
        return {key: _scaled(item, scale, str(key)) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_scaled(item, scale, name) for item in value)
    is_number = isinstance(value, int | float | Tensor) and not isinstance(value, bool)
    return value * scale if is_number and _RATES.fullmatch(name) else value


def _moved(scheduler: LRScheduler, saved: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state of a new scheduler after as many steps as the saved one has taken."""
    num_steps = saved.get("last_epoch")
    if follows_monitored(scheduler) or not isinstance(num_steps, int):
        raise ConfigError(
            f"the settings of {type(scheduler).__name__}, and of the optimizer under it, can't change when a "
            "run goes on: where it would be by now can't be told. Start a new run with init_from."
        )
    for _ in range(num_steps):
        scheduler.optimizer._opt_called = True  # type: ignore[attr-defined]  # torch warns of steps before updates
        scheduler.step()
    return scheduler.state_dict()
