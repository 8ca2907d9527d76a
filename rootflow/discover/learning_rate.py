"""`optimizer.lr: auto`: by short trainings around a range test, by the range test alone, or by a rule.

A range test says between which rates something happens, and little of which is the best (see
benchmarks/discovery.py). So rates around that of its lowest loss get short trainings of their own, see
`rootflow.discover.probes`.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Self

from torch import Tensor, nn

from rootflow.discover.batches import draw_batches
from rootflow.discover.cache import rounded
from rootflow.discover.found import Found
from rootflow.discover.in_script import trials_in_script
from rootflow.discover.probes import Ground, Probe, Probes
from rootflow.discover.range_test import Point, RangeTest, Rates, find_range
from rootflow.discover.settings import LrSettings
from rootflow.discover.suggestions import RULES, measure_noise, smooth
from rootflow.discover.trials import Trials
from rootflow.errors import ConfigError
from rootflow.optim.build_optimizer import OptimizerChoice
from rootflow.tasks import Task
from rootflow.train.objective import count_samples
from rootflow.train.trainer import Trainer

FEWEST_STEPS = 100
"""Updates below which a search is no better than a rule."""
_RANGE_FRAC = 0.15
_RANGE_STEPS = (30, 100)
"""Share of the updates that the range test gets before probes, and its bounds."""
_MOST_HELD_OUT = 2_000
"""Samples to judge by, but a fifth of those drawn at most."""

_DEFAULTS = LrSettings()
_ADAM_FAMILY = ("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "muon")
"""Optimizers whose learning rate is in Adam's units; our Muon matches the size of Adam's updates."""


@dataclass(frozen=True)
class LrReport:
    """What a search for the learning rate found, and all that it measured."""

    suggestion: float | None
    """Peak of the schedule, for the first parameter group; None: there is none to recommend."""
    reason: str
    low: float | None = None
    high: float | None = None
    """Between them the loss falls in a range test: the bounds of a cyclical schedule."""
    method: str = "probe"
    curve: tuple[Point, ...] = ()
    """The range test, update by update."""
    probes: tuple[Probe, ...] = ()
    """The short trainings, by rising rates."""
    num_steps: int = 0
    """Updates that it took."""
    elapsed_s: float = 0.0

    def record(self) -> dict[str, Any]:
        """Return it as plain data for JSON, numbers rounded to 5 digits."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["curve"] = [point._asdict() for point in self.curve]
        fields["probes"] = [probe._asdict() for probe in self.probes]
        record: dict[str, Any] = rounded(fields)
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the report that `record` told."""
        curve = tuple(Point(**point) for point in record["curve"])
        probes = tuple(Probe(**probe) for probe in record["probes"])
        return cls(**{**record, "curve": curve, "probes": probes})

    def plot(self, path: str | Path) -> None:
        """Write a picture (PNG) of the range test, the bracket, the probes and the choice."""
        from matplotlib.figure import Figure  # takes half a second

        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.add_subplot(xscale="log", xlabel="learning rate", ylabel="loss")
        axes.set_title(self.reason, fontsize="medium", wrap=True)
        axes.grid(alpha=0.3)
        if self.curve:
            _draw_curve(axes, self)
        if self.probes:
            _draw_probes(axes, self)
        if self.suggestion is not None:
            axes.axvline(self.suggestion, color="C3", label=f"suggestion {_shown(self.suggestion)}")
        if axes.get_legend_handles_labels()[0]:
            figure.legend(loc="outside lower center", ncols=2)
        figure.savefig(path, dpi=150, format="png")


def rule_lr(optimizer: Callable[..., Any], batch_size: int) -> Found:
    """Return a learning rate for an optimizer class, by the rule for its family and the batch size.

    SGD: 0.1 at 128 samples, in proportion to the batch (Goyal et al. 2017, arXiv 1706.02677), at most 1.
    Adam's family: 3e-3 at 64 samples, with the square root of the batch (Malladi et al. 2022,
    arXiv 2205.10287), within bounds that small networks stand. Any other class keeps its own default.

    Raises:
        ConfigError: there is no rule for the class, and its signature has no default.
    """
    name = getattr(optimizer, "__name__", str(optimizer))
    if name == "SGD":
        return Found(min(0.1 * batch_size / 128, 1.0), f"rule for SGD: 0.1 * {batch_size} / 128, at most 1")
    if name in _ADAM_FAMILY:
        lr = min(max(3e-3 * math.sqrt(batch_size / 64), 3e-3), 8e-3)
        return Found(lr, f"rule for {name}: 0.003 * sqrt({batch_size} / 64), from 0.003 to 0.008")
    parameter = inspect.signature(optimizer).parameters.get("lr")
    if parameter is None or not isinstance(parameter.default, int | float):
        raise ConfigError(
            f"optimizer.lr is 'auto', and there is no rule for {name}; give optimizer.lr a number."
        )
    return Found(float(parameter.default), f"the default of {name}")


def search_lr(
    trials: Trials,
    train: Sequence[Any],
    held_out: Sequence[Any],
    *,
    settings: LrSettings = _DEFAULTS,
    max_steps: int,
) -> LrReport:
    """Search for a learning rate; the parameter groups keep the ratios of theirs.

    Nothing is left of the search, as `Trials` promises. The same arguments give the same answer, to the bit.

    Args:
        trials: open; of the training as it will be.
        train: batches to train on, repeated where there are too few.
        held_out: batches to judge by.
        settings: of the method; `rule` is none.
        max_steps: updates that it may take, with those that are skipped.

    Raises:
        ConfigError: the first parameter group has no learning rate to start from.
    """
    began_s = time.perf_counter()
    rates = Rates(trials.optimizers)
    if max_steps < FEWEST_STEPS:
        reason = f"no search: {max_steps} updates are below {FEWEST_STEPS}"
        return LrReport(None, reason, method=settings.method)
    if settings.method == "range_test":
        report = _search_by_range_test(trials, rates, train, settings, max_steps)
    else:
        report = _search_by_probes(trials, rates, train, held_out, max_steps)
    return dataclasses.replace(report, elapsed_s=time.perf_counter() - began_s)


def _search_by_range_test(
    trials: Trials, rates: Rates, train: Sequence[Any], settings: LrSettings, max_steps: int
) -> LrReport:
    found = find_range(trials, rates, train, max_steps=min(max_steps, _RANGE_STEPS[1]), shape=settings.shape)
    lr = RULES[settings.suggest](found.lrs, found.losses)
    bracket = found.bracket()
    if lr is None or bracket is None:
        return LrReport(None, _reason_for_none(found), method="range_test", **_measured(found))
    reason = f"range test: {settings.suggest}; {_about_range(*bracket)}; {found.num_steps} updates"
    return LrReport(float(f"{lr:.2g}"), reason, *bracket, method="range_test", **_measured(found))


def _measured(found: RangeTest) -> dict[str, Any]:
    return {"curve": found.points, "num_steps": found.num_steps}


def _search_by_probes(
    trials: Trials, rates: Rates, train: Sequence[Any], held_out: Sequence[Any], max_steps: int
) -> LrReport:
    fewest, most = _RANGE_STEPS
    range_steps = min(max(round(_RANGE_FRAC * max_steps), fewest), most)
    found = find_range(trials, rates, train, max_steps=range_steps)
    if found.usable_lr is None:
        return LrReport(None, _reason_for_none(found), **_measured(found))
    ground = Ground(trials, rates, train, held_out, found.noise)
    probes = Probes(ground, found.usable_lr, max_steps - found.num_steps)
    lr = probes.run()
    low, high = found.bracket() or (None, None)
    report = LrReport(
        lr,
        "",
        low,
        high,
        curve=found.points,
        probes=probes.rows,
        num_steps=found.num_steps + probes.num_steps,
    )
    return dataclasses.replace(report, reason=_reason(report, probes.best))


def find_lr(  # noqa: PLR0913  # a training is described by as many
    model: nn.Module,
    train: Any,
    loss: Callable[..., Tensor] | str | None = None,
    optimizer: OptimizerChoice | None = None,
    *,
    task: Task | None = None,
    trainer: Trainer | None = None,
    settings: LrSettings = _DEFAULTS,
) -> LrReport:
    """Search for the learning rate of a training in a script of one's own.

    Everything is as it was afterwards, to the bit: the model, which stays where it is, the optimizer, the
    loader and the random generators.

    Args:
        model: any module.
        train: a loader that can be read again, a data set, or whatever else `Trainer.fit` trains on.
        loss: `loss(outputs, targets)`, the mean over the samples; or a name in torch.nn.functional.
        optimizer: over the model's parameters, whose groups keep the ratios of their rates; or a class, a
            function or a name to make one.
        task: a loss with measures, instead of ``loss``.
        trainer: its batch size, clipping, micro batches and number format are those of the training; without
            one, it is plain float32 as in a loop written by hand.
        settings: of the search.

    Raises:
        ConfigError: what is given contradicts itself, or the optimizer has no learning rate.
        DataError: the data is an iterator, which the search would use up.
        RunError: the batches don't suit the model and the loss.
    """
    opened, loader = trials_in_script(model, train, loss, optimizer, task=task, trainer=trainer)
    batches = draw_batches(loader, max_batches=settings.max_steps)
    if settings.method == "rule":
        found = rule_lr(type(opened.optimizers[0]), count_samples(batches[0]))
        return LrReport(found.value, found.reason, method="rule")
    with opened as trials:
        return search_lr(trials, *split_held_out(batches), settings=settings, max_steps=settings.max_steps)


def split_held_out(batches: Sequence[Any], *, most: int | None = None) -> tuple[list[Any], list[Any]]:
    """Return batches to train on, and others to judge by; the same ones where there is only one.

    Args:
        batches: of about one size.
        most: batches to judge by at the most; None for no bound but that of samples.
    """
    if len(batches) == 1:
        return list(batches), list(batches)
    num_samples = sum(map(count_samples, batches))
    wanted = min(_MOST_HELD_OUT, num_samples // 5)
    num_held_out = round(wanted / max(count_samples(batches[0]), 1))
    num_held_out = min(max(num_held_out, 1), most or len(batches), len(batches) - 1)
    return list(batches[:-num_held_out]), list(batches[-num_held_out:])


def _reason(report: LrReport, best: Probe | None) -> str:
    bracket = _about_range(report.low, report.high)
    if report.suggestion is None or best is None:
        return f"no suggestion: no probe lowered the loss; {bracket}; {report.num_steps} updates"
    return f"probes: loss {best.score:.3g} at {_shown(best.lr)}; {bracket}; {report.num_steps} updates"


def _about_range(low: float | None, high: float | None) -> str:
    return "no bracket" if low is None or high is None else f"bracket {_shown(low)} to {_shown(high)}"


def _reason_for_none(found: RangeTest) -> str:
    if found.usable_lr is None:
        return f"no suggestion: even the lowest rates explode; {found.num_steps} updates"
    return f"no suggestion: the loss never fell; {found.num_steps} updates"


def _shown(lr: float) -> str:
    return f"{lr:.2g}" if lr >= 1e-3 else f"{lr:.1e}"


def _draw_curve(axes: Any, report: LrReport) -> None:
    lrs, losses = [point.lr for point in report.curve], [point.loss for point in report.curve]
    smoothed = smooth(losses)
    lowest, highest = _loss_limits(report)
    is_shown = smoothed < highest
    end = len(is_shown) - int(is_shown[::-1].argmax()) if is_shown.any() else len(lrs)
    axes.plot(lrs, losses, ".", color="C0", alpha=0.4, markersize=5, label="range test: loss of a batch")
    axes.plot(lrs[:end], smoothed[:end], color="C0", label="the same, smoothed")
    if report.low is not None and report.high is not None:
        label = f"bracket {_shown(report.low)} to {_shown(report.high)}"
        axes.axvspan(report.low, report.high, color="C0", alpha=0.12, linewidth=0, label=label)
    axes.set_ylim(lowest, highest)


def _draw_probes(axes: Any, report: LrReport) -> None:
    done = [(probe.lr, probe.score) for probe in report.probes if probe.score is not None]
    broken = [probe.lr for probe in report.probes if probe.score is None]
    length = max(probe.num_steps for probe in report.probes)
    if done:
        axes.plot(
            *zip(*done, strict=True),
            "o-",
            color="C1",
            label=f"{length} updates each: loss on held-out samples",
        )
    if broken:
        # at the upper end of the picture, wherever their losses went
        heights = axes.get_xaxis_transform()
        label = "the same: the loss went up"
        axes.plot(broken, [0.97] * len(broken), "X", color="C3", transform=heights, label=label)


def _loss_limits(report: LrReport) -> tuple[float, float]:
    """Return what of the losses to show: from the lowest to somewhat above the first, not the explosion."""
    losses = [point.loss for point in report.curve]
    scores = [probe.score for probe in report.probes if probe.score is not None]
    level = median(losses[: max(len(losses) // 10, 5)])
    lowest = min([*smooth(losses), *scores])
    room = max(level - lowest, 4 * measure_noise(losses), 1e-3 * abs(level), 1e-12)
    return lowest - 0.1 * room, level + 0.4 * room
