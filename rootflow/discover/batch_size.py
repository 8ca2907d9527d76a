"""`trainer.batch_size: auto` and `trainer.micro_batch_size: auto`.

The **batch size** decides the mathematics: how many samples an update averages over. The smallest that uses
the machine well is taken, since larger ones cost updates and gain no time (Shallue et al. 2019, "Measuring
the Effects of Data Parallelism on Neural Network Training", arXiv 1811.03600). Small data wants small
batches: at least 50 updates an epoch keep the optimizer moving (airbench uses 49 on CIFAR-10, arXiv
2404.00498).

The **micro batch size** decides nothing but memory: how many of them go through the model at once.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rootflow.data.loaders import Loader
from rootflow.discover.batches import draw_batches, largest_of
from rootflow.discover.cache import rounded
from rootflow.discover.fitting import Fitting, Line, TriedSize
from rootflow.discover.found import Found
from rootflow.discover.in_script import trials_in_script
from rootflow.discover.memory import Memory, memory_of, shown_bytes
from rootflow.discover.settings import BatchSizeSettings, DiscoverSettings, MicroBatchSizeSettings
from rootflow.discover.trials import Trials
from rootflow.errors import ConfigError, RunError
from rootflow.optim.build_optimizer import OptimizerChoice
from rootflow.tasks import Task
from rootflow.train.trainer import Trainer

_TOLERANCE = 1.05
"""1,007 samples for 1,000 updates are near enough to 1,024."""
_FIRST_TIMED = 32
"""Samples from which sizes are timed."""
_FAST_FRAC = 0.9
"""Share of the highest throughput that is fast enough."""
_GAIN = 1.1
"""What a doubling must gain in throughput for the next one to be worth a look."""
_MUCH_MORE = 1.5
"""Times the memory of a search that was bound by it, from which another search would find more."""

_log = logging.getLogger(__name__)


def batch_size_by_data(num_samples: int, settings: BatchSizeSettings) -> Found:
    """Return the largest power of two that leaves enough updates an epoch.

    Args:
        num_samples: size of the training split.
        settings: bounds.
    """
    by_data = int(num_samples * _TOLERANCE / settings.min_updates_per_epoch)
    smallest = 8 if num_samples < 500 else 16
    wanted = min(max(smallest, by_data), settings.max)
    size = min(1 << (wanted.bit_length() - 1), max(num_samples, 1))
    updates = max(num_samples // size, 1)
    return Found(size, f"a power of two, {updates} updates an epoch of {num_samples:,} samples")


@dataclass(frozen=True)
class BatchSizeReport:
    """What a search for batch sizes found, and all that it measured."""

    suggestion: int
    """Samples per update."""
    reason: str
    micro_batch_size: int
    """Samples per forward and backward pass: this size has been run."""
    micro_reason: str
    would_fit: int
    """Largest power of two whose update would fit, by the line through what was measured."""
    tried: tuple[TriedSize, ...]
    """By rising size."""
    line: Line | None
    """Memory against size; None where this system doesn't tell memory."""
    budget_bytes: int
    """What an update may need, the headroom taken off."""
    headroom: float
    is_bound_by_memory: bool
    """Whether more memory would have changed the answer."""
    num_out_of_memory: int = 0
    """Sizes that were run and didn't fit."""
    elapsed_s: float = 0.0

    @property
    def curve(self) -> list[dict[str, Any]]:
        """The sizes that were run: what each needed, its time, its throughput."""
        return [{**dataclasses.asdict(tried), "samples_per_s": tried.samples_per_s} for tried in self.tried]

    @property
    def seconds_per_update(self) -> float | None:
        """Of the suggestion, by what goes through the model at once; None where that wasn't timed."""
        at_once = next((t.seconds_per_update for t in self.tried if t.size == self.micro_batch_size), None)
        return None if at_once is None else at_once * self.suggestion / self.micro_batch_size

    @property
    def num_full_size_tries(self) -> int:
        """Sizes that were run from the micro batch size on, most of them once."""
        return sum(tried.size >= self.micro_batch_size for tried in self.tried)

    def fits_in(self, free_bytes: int) -> bool:
        """Whether the same search would find the same, as far as memory tells."""
        budget_bytes = free_bytes * (1 - self.headroom)
        if self.is_bound_by_memory and budget_bytes > _MUCH_MORE * self.budget_bytes:
            return False
        needed = next((t.peak_bytes for t in self.tried if t.size == self.micro_batch_size), None)
        return budget_bytes >= (self.budget_bytes if needed is None else needed)

    def record(self) -> dict[str, Any]:
        """Return it as plain data for JSON, numbers rounded to 5 digits."""
        fields: dict[str, Any] = rounded(dataclasses.asdict(self) | {"curve": self.curve})
        del fields["tried"]
        fields["line"] = None if self.line is None else rounded(self.line._asdict())
        return fields

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the report that `record` told."""
        names = TriedSize.__dataclass_fields__.keys()
        tried = tuple(TriedSize(**{name: row[name] for name in names}) for row in record["curve"])
        line = None if record["line"] is None else Line(**record["line"])
        return cls(**{k: v for k, v in record.items() if k != "curve"} | {"tried": tried, "line": line})

    def plot(self, path: str | Path) -> None:
        """Write a picture (PNG) of memory and throughput against the batch size."""
        from matplotlib.figure import Figure  # takes half a second

        drawn = [_draw_memory] if self.line is not None else []
        if any(tried.seconds_per_update for tried in self.tried) or not drawn:
            drawn.append(_draw_throughput)
        figure = Figure(figsize=(6 * len(drawn), 4.8), layout="constrained")
        figure.suptitle(f"batch size {self.suggestion} ({self.reason})", fontsize="medium")
        for number, draw in enumerate(drawn, 1):
            axes = figure.add_subplot(1, len(drawn), number, xlabel="batch size")
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:.0f}")
            draw(axes, self)
            axes.legend(
                loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, fontsize="small", frameon=False
            )
        figure.savefig(path, dpi=150, format="png")


def search_batch_size(  # noqa: PLR0913  # what is run, and within which bounds
    trials: Trials,
    batch: Any,
    *,
    wanted: int | None = None,
    num_samples: int,
    batch_settings: BatchSizeSettings,
    micro_settings: MicroBatchSizeSettings,
    memory: Memory | None = None,
    eval_batch: Any = None,
    is_timed: bool = False,
) -> BatchSizeReport:
    """Search for a batch size, and for how much of it fits in the memory at once.

    What is said to fit has been run: whole updates, and an evaluation, with the headroom kept free. Nothing
    is left of the search, as `Trials` promises. With several processes each of them calls this, and all get
    the least of what they found.

    Args:
        trials: open; of the training.
        batch: a sample of its batches, the largest of some; it is cut or repeated.
        wanted: the batch size, where it is set; then only the micro batch size is searched.
        num_samples: in an epoch.
        batch_settings: rule and bounds of the batch size.
        micro_settings: rule and headroom of the micro batch size.
        memory: of the device; None for what it has.
        eval_batch: of the evaluation; None for none.
        is_timed: time an update, though no size is chosen by it.

    Raises:
        RunError: one sample doesn't fit in the memory; or it was another process that failed.
        Exception: whatever an update raises besides.
    """
    if micro_settings.headroom >= 1:
        raise ConfigError("discover.micro_batch_size.headroom is 1; below 1, or nothing may be used.")
    began_s = time.perf_counter()
    memory = memory or memory_of(trials.arithmetic.device)
    budget_bytes = int(memory.free_bytes() * (1 - micro_settings.headroom))
    if wanted is None and batch_settings.rule == "data":
        wanted = batch_size_by_data(num_samples, batch_settings).value
    fitting = Fitting(
        trials,
        batch,
        memory=memory,
        budget_bytes=budget_bytes,
        num_samples=num_samples,
        batch_size=wanted,
        eval_batch=eval_batch,
    )
    search = _Search(fitting, num_samples, batch_settings, micro_settings, is_timed)
    with _telling_other_ranks(trials.arithmetic.device):
        report = search.find_micro(wanted) if wanted is not None else search.find_both()
    report = _least_of_ranks(report, trials.arithmetic.device)
    return dataclasses.replace(report, elapsed_s=time.perf_counter() - began_s)


def find_batch_size(  # noqa: PLR0913  # those of `Trainer.fit`, in their order
    model: nn.Module,
    train: Any,
    loss: Callable[..., Tensor] | str | None = None,
    optimizer: OptimizerChoice | None = None,
    *,
    task: Task | None = None,
    trainer: Trainer | None = None,
    settings: DiscoverSettings = DiscoverSettings(),
) -> BatchSizeReport:
    """Search for the batch size of a training in a script of one's own.

    Everything is as it was afterwards, to the bit: the model, which stays where it is, the optimizer, the
    loader and the random generators.

    Args:
        model: any module.
        train: a loader that can be read again, a data set, or whatever else `Trainer.fit` trains on.
        loss: `loss(outputs, targets)`, the mean over the samples; or a name in torch.nn.functional.
        optimizer: over the model's parameters; or a class, a function or a name to make one.
        task: a loss with measures, instead of ``loss``.
        trainer: its clipping and number format are those of the training, and its batch size, if it is a
            number, is kept: then only the micro batch size is searched. Without one, it is plain float32 as
            in a loop written by hand.
        settings: of the search.

    Raises:
        ConfigError: what is given contradicts itself.
        DataError: the data is an iterator, which the search would use up.
        RunError: one sample doesn't fit in the memory, or the batches don't suit the model and the loss.
    """
    wanted = "auto" if trainer is None else trainer.batch_size
    drawing = None if trainer is None else dataclasses.replace(trainer, batch_size="auto")
    opened, loader = trials_in_script(model, train, loss, optimizer, task=task, trainer=drawing)
    with opened as trials:
        return search_batch_size(
            trials,
            largest_of(draw_batches(loader, max_batches=8)),
            wanted=None if wanted == "auto" else wanted,
            num_samples=_count_samples_of(loader, settings.batch_size),
            batch_settings=settings.batch_size,
            micro_settings=settings.micro_batch_size,
        )


@dataclass(frozen=True)
class _Search:
    """The rules, over what fits."""

    fitting: Fitting
    num_samples: int
    batch: BatchSizeSettings
    micro: MicroBatchSizeSettings
    is_timed: bool

    def find_micro(self, wanted: int) -> BatchSizeReport:
        """Search for how much of a batch fits at once."""
        is_even = self.micro.rule == "multiple_of_2"
        if is_even:
            size = self.fitting.find_largest_even(wanted)
        else:
            size = self.fitting.find_largest(wanted, is_timed=self.is_timed)
        self._check(size)
        if size == 1 < wanted:
            _log.warning(
                "Only one sample fits in the memory at a time; a norm over the batch can't train on it."
            )
        why = f"{self._updates(wanted)} updates an epoch" if self.batch.rule == "data" else "as set"
        return self._report(wanted, why, size, is_bound_by_memory=size < wanted)

    def find_both(self) -> BatchSizeReport:
        """Search for a batch size all of which goes through the model at once."""
        most = batch_size_by_data(self.num_samples, self.batch).value
        if self.batch.rule == "fastest" and most > _FIRST_TIMED:
            size, is_bound_by_memory = self._find_fastest(most)
        else:
            size = self.fitting.find_largest(most, is_timed=self.is_timed)
            is_bound_by_memory = size < most
        self._check(size)
        if is_bound_by_memory:
            why = "the largest that fits"
        elif size < most:
            why = "fastest useful"
        else:
            why = (
                "the largest allowed" if size == self.batch.max else f"{self._updates(size)} updates an epoch"
            )
        return self._report(size, why, size, is_bound_by_memory=is_bound_by_memory)

    def _find_fastest(self, most: int) -> tuple[int, bool]:
        """Return the smallest size that is nearly as fast as any, and whether memory kept larger ones out.

        Sizes double until that gains little.
        """
        wanted = size = _FIRST_TIMED
        while True:
            size = self.fitting.find_largest(wanted, is_timed=True)
            if size < wanted or size == most or (size > _FIRST_TIMED and not self._gains(size)):
                break
            wanted = min(2 * size, most)
        if size < _FIRST_TIMED:
            return size, True
        fast = self._choose_fast()
        return fast, fast == size < wanted

    def _gains(self, size: int) -> bool:
        """Whether a size is faster than half of it, on a second look, too: either may have been disturbed."""
        if self._speed(size) >= _GAIN * self._speed(size // 2):
            return True
        self.fitting.time_again(size // 2)
        self.fitting.time_again(size)
        return self._speed(size) >= _GAIN * self._speed(size // 2)

    def _choose_fast(self) -> int:
        timed = [size for size in sorted(self.fitting.tried) if size >= _FIRST_TIMED and self._speed(size)]
        enough = _FAST_FRAC * max(map(self._speed, timed))
        return next(size for size in timed if self._speed(size) >= enough)

    def _speed(self, size: int) -> float:
        return self.fitting.tried[size].samples_per_s or 0.0

    def _check(self, size: int) -> None:
        if size:
            return
        kept = self.micro.headroom
        free = shown_bytes(self.fitting.budget_bytes / (1 - kept))
        raise RunError(
            "one sample doesn't fit in the memory: its update needs more than "
            f"{shown_bytes(self.fitting.needed_bytes)}, and {free} are free, of which {kept:.0%} stay free "
            "(discover.micro_batch_size.headroom). Take a smaller model, smaller samples, or an optimizer "
            "that keeps less (optimizer=sgd)."
        )

    def _updates(self, size: int) -> int:
        return max(self.num_samples // size, 1)

    def _would_fit(self) -> int:
        """Return the largest power of two that would fit, or all of the data."""
        line, tried = self.fitting.line(), self.fitting.tried.values()
        best = max(t.size for t in tried if t.fits)
        failed = min((t.size for t in tried if not t.fits), default=self.num_samples + 1)
        while line is not None and 2 * best < failed and line.most_at(2 * best) <= self.fitting.budget_bytes:
            best *= 2
        return self.num_samples if 2 * best > self.num_samples and failed > self.num_samples else best

    def _report(self, size: int, why: str, micro: int, *, is_bound_by_memory: bool) -> BatchSizeReport:
        would_fit = self._would_fit()
        shown = f"all {would_fit:,} samples" if would_fit == self.num_samples else would_fit
        budget = shown_bytes(self.fitting.budget_bytes)
        return BatchSizeReport(
            size,
            f"{why} in {budget}" if size == micro and is_bound_by_memory else f"{why}; {shown} would fit",
            micro,
            "the whole batch at once" if micro == size else f"the largest that fits in {budget}",
            would_fit,
            tuple(self.fitting.tried[size] for size in sorted(self.fitting.tried)),
            self.fitting.line(),
            self.fitting.budget_bytes,
            self.micro.headroom,
            is_bound_by_memory,
            self.fitting.num_out_of_memory,
        )


@contextmanager
def _telling_other_ranks(device: torch.device) -> Iterator[None]:
    """Let the other processes know if this one fails: they wait for its answer."""
    try:
        yield
    except Exception:
        _least_over_ranks([0, 0, 0], device)
        raise


def _least_of_ranks(report: BatchSizeReport, device: torch.device) -> BatchSizeReport:
    """Return what fits every process.

    Raises:
        RunError: another process failed; it tells why.
    """
    found = (report.suggestion, report.micro_batch_size, report.would_fit)
    size, micro, would_fit = _least_over_ranks(found, device)
    if size == 0:
        raise RunError("the search for a batch size failed in another process, which says why.")
    if (size, micro, would_fit) == found:
        return report
    return dataclasses.replace(
        report,
        suggestion=size,
        micro_batch_size=micro,
        would_fit=would_fit,
        reason=f"{report.reason}; the least of {dist.get_world_size()} processes",
        micro_reason=f"the least of {dist.get_world_size()} processes",
        is_bound_by_memory=True,
    )


def _least_over_ranks(numbers: Sequence[int], device: torch.device) -> tuple[int, ...]:
    if not (dist.is_available() and dist.is_initialized()):
        return tuple(numbers)
    on = device if dist.get_backend() == "nccl" else torch.device("cpu")
    least = torch.tensor(numbers, device=on)
    dist.all_reduce(least, op=dist.ReduceOp.MIN)
    return tuple(int(number) for number in least)


def _count_samples_of(loader: Loader, settings: BatchSizeSettings) -> int:
    """Return how many samples an epoch has; where nobody knows, so many that they are no bound."""
    num_samples = getattr(loader, "num_samples", None)
    if num_samples is None and loader.num_batches is not None and loader.batch_size is not None:
        num_samples = loader.num_batches * loader.batch_size
    return num_samples or settings.max * settings.min_updates_per_epoch


def _draw_memory(axes: Any, report: BatchSizeReport) -> None:
    measured = [(t.size, t.peak_bytes / 1e6) for t in report.tried if t.peak_bytes is not None]
    predicted = [(t.size, t.predicted_bytes / 1e6) for t in report.tried if t.predicted_bytes is not None]
    failed = [(t.size, report.budget_bytes / 1e6) for t in report.tried if not t.fits]
    axes.set(yscale="log", ylabel="memory beyond what was in use (MB)")
    axes.yaxis.set_major_formatter("{x:,g}")
    if report.line is not None:
        sizes = [report.line.size * 2**power for power in range(24)]
        sizes = [size for size in sizes if size <= 2 * report.would_fit]
        axes.plot(
            sizes, [report.line.at(size) / 1e6 for size in sizes], "--", color="C7", label="predicted now"
        )
    if measured:
        axes.plot(*zip(*measured, strict=True), "o-", color="C0", label="measured")
    if predicted:
        axes.plot(*zip(*predicted, strict=True), "o", color="C7", mfc="none", ms=9, label="predicted before")
    if failed:
        axes.plot(*zip(*failed, strict=True), "X", color="C3", ms=9, label="didn't fit")
    axes.axhline(
        report.budget_bytes / 1e6, color="C3", label=f"may be used: {shown_bytes(report.budget_bytes)}"
    )
    axes.axvline(report.micro_batch_size, color="C2", label=f"at once: {report.micro_batch_size} samples")


def _draw_throughput(axes: Any, report: BatchSizeReport) -> None:
    timed = [(t.size, t.samples_per_s) for t in report.tried if t.samples_per_s]
    axes.set_ylabel("samples per second")
    axes.axvline(report.suggestion, color="C2", label=f"batch size {report.suggestion}")
    if timed:
        axes.plot(*zip(*timed, strict=True), "o-", color="C0", label="measured")
        highest = max(speed for _, speed in timed)
        axes.axhline(_FAST_FRAC * highest, color="C7", ls="--", label=f"{_FAST_FRAC:.0%} of the highest")
        axes.set_ylim(0, 1.15 * highest)
