"""What a model is worth on data: measured over all its samples, by its task or by its own methods."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rootflow.errors import RunError
from rootflow.tasks import LossSum, Task
from rootflow.train.hooks import Call
from rootflow.train.methods import method_of, taking
from rootflow.train.objective import Objective, count_samples
from rootflow.train.precision import Arithmetic


def evaluate(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    arithmetic: Arithmetic,
    task: Task | None = None,
    stage: str = "validation",
) -> dict[str, float]:
    """Return what is measured over all samples of a loader, each counted once.

    A model's own methods come first: `check_performance(loader, num_tests)` does all of it,
    `validation_step` (or `test_step`) a batch of it, `validation_end(outputs)` puts their outputs together;
    without the last, numbers are averaged over the samples. A model that has only `training_step` is measured
    by that. Every submodule is left in the mode in which it came. The one wait for the device is at the end.

    Args:
        model: on its device.
        batches: on that device.
        arithmetic: formats of the forward pass.
        task: what is measured on models without such methods.
        stage: `validation` or `test`.

    Raises:
        RunError: there is no batch.
    """
    with evaluating(model), torch.inference_mode():
        whole = method_of(model, "check_performance") if stage == "validation" else None
        if whole is not None:
            return as_metrics(taking(whole, 2)(batches, _count_batches(batches)), "performance")
        step = method_of(model, f"{stage}_step") or method_of(model, "validation_step")
        if step is None and (task is None or type(model).forward is nn.Module.forward):
            step = method_of(model, "training_step")
        if step is not None:
            return _evaluate_steps(model, batches, taking(step, 2), arithmetic)
        return _evaluate_sums(Objective(model, task), batches, arithmetic)


def _count_batches(batches: Iterable[Any]) -> int | None:
    """Return how many there are; None where nobody knows."""
    try:
        return len(batches)  # type: ignore[arg-type]
    except TypeError:
        return None


def _evaluate_sums(objective: Objective, batches: Iterable[Any], arithmetic: Arithmetic) -> dict[str, float]:
    dtype = torch.float32 if arithmetic.device.type == "mps" else torch.float64  # which MPS has not
    totals: dict[str, Tensor] = {}
    counts: dict[str, Tensor | int] = {}
    for batch in batches:
        num_samples = count_samples(batch)
        with arithmetic.autocast():
            measured = objective.measure(arithmetic.prepare(batch))
        for name, value in measured.items():
            total, count = (value.total, value.count) if isinstance(value, LossSum) else (value, num_samples)
            totals[name] = totals.get(name, torch.zeros_like(total, dtype=dtype)) + total
            counts[name] = counts.get(name, 0) + count
    if not counts:
        raise RunError("the data to evaluate on has no batch.")
    return {name: float(total) / float(counts[name]) for name, total in totals.items()}


def _evaluate_steps(
    model: nn.Module, batches: Iterable[Any], step: Call, arithmetic: Arithmetic
) -> dict[str, float]:
    outputs: list[Any] = []
    counts: list[int] = []
    for index, batch in enumerate(batches):
        with arithmetic.autocast():
            outputs.append(step(arithmetic.prepare(batch), index))
        counts.append(count_samples(batch))
    if not outputs:
        raise RunError("the data to evaluate on has no batch.")
    end = method_of(model, "validation_end")
    return as_metrics(end(outputs), "value") if end else mean_outputs(outputs, counts)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model in evaluation mode for a block; each submodule gets its own mode back after.

    Tensors that the model kept from inside `inference_mode` become plain ones, so that it can train on them.
    """
    modes = {module: module.training for module in model.modules()}
    try:
        yield model.eval()
    finally:
        for module, was_training in modes.items():
            module.training = was_training
            _release_inference_tensors(module)


def _release_inference_tensors(module: nn.Module) -> None:
    for held in (vars(module), module._buffers):
        for name, value in list(held.items()):
            if name not in ("_parameters", "_modules", "_buffers"):
                released = _released(value)
                if released is not value:
                    held[name] = released


def _released(value: Any) -> Any:
    """Return a value with plain copies of the tensors of `inference_mode` in it; itself where it has none."""
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if type(value) is dict:
        new: Any = {key: _released(item) for key, item in value.items()}
        return new if any(new[key] is not value[key] for key in value) else value
    if type(value) in (tuple, list):
        new = type(value)(map(_released, value))
        return new if any(a is not b for a, b in zip(new, value, strict=True)) else value
    return value


def as_metrics(value: Any, name: str) -> dict[str, float]:
    """Return numbers by name; what isn't a number is left out.

    Args:
        value: a dict, `(scalar, dict)`, a number, or several.
        name: of a number without a name; several are `name_0`, `name_1`, ...

    Raises:
        RunError: there is no number in it.
    """
    found = {
        key: number for key, item in _named(value, name).items() if (number := _number(item)) is not None
    }
    if not found:
        raise RunError(
            f"the model's validation returned {type(value).__name__} without a number; return a dict "
            "of numbers."
        )
    return found


def mean_outputs(outputs: Sequence[Any], counts: Sequence[int]) -> dict[str, float]:
    """Return the means over the samples of what `validation_step` returned for batches.

    Args:
        outputs: each a scalar, `(scalar, dict)` or a dict.
        counts: samples of each batch.
    """
    named = [as_metrics(output, "loss") for output in outputs]
    names = dict.fromkeys(name for output in named for name in output)
    means = {}
    for name in names:
        pairs = [(output[name], count) for output, count in zip(named, counts, strict=True) if name in output]
        means[name] = sum(v * n for v, n in pairs) / sum(n for _, n in pairs)
    return means


def _named(value: Any, name: str) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Mapping):
        return {"loss": value[0], **value[1]}
    if isinstance(value, tuple | list):
        return {f"{name}_{index}": item for index, item in enumerate(value)}
    return {name: value}


def _number(value: Any) -> float | None:
    if isinstance(value, LossSum):
        return float(value.total) / float(value.count)
    if isinstance(value, Tensor):
        return float(value.item()) if value.numel() == 1 else None
    return float(value) if isinstance(value, numbers.Real) else None
