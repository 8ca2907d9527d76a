"""How a batch becomes a loss, and what is measured on it. The rule, first that fits:

1. The model has `training_step(batch)` or `training_step(batch, batch_index)`: what it returns is the loss, a
   scalar, `(scalar, dict)` or a dict with `loss`; the rest of it is logged.
2. There is a loss: the model's own method `loss`, else the task's or the one given. Then the model gets the
   inputs of a batch, and the loss gets outputs and targets.
   - `(x, y)`, `(x, y, w)`: the model gets as many as its `forward` needs, the loss all others:
     `loss(model(x), y, w)`.
   - a mapping: its target (`target`, `label`, `labels`, ...) is the loss's; the others are the model's
     keywords, or its one argument if there is only one. A model that takes the target by name gets all.
   - a lone tensor, or `(x,)`: the target is the input itself, as an autoencoder wants it.
   Outputs with an attribute `loss`, or a dict with `loss`, bring it along, and that one counts.
3. There is none: the model gets the whole batch and returns the loss, in any form of 1 or with an attribute
   `loss`.

What is measured in an evaluation follows the same rule, with `validation_step` for `training_step`.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from rootflow.data.samples import TARGET_KEYS
from rootflow.errors import RunError
from rootflow.tasks import LossTask, Task
from rootflow.tasks.task import LossSum
from rootflow.train.methods import count_positional, keyword_names, method_of, shown, taking

Loss: TypeAlias = Tensor | LossSum
Logs: TypeAlias = Mapping[str, Any]
"""What a step says beside its loss, as the user made it."""

_NO_LOGS: Logs = {}
_WAYS = (
    "Give a loss (`loss=` or a task), a model with a method loss(outputs, targets) or training_step(batch), "
    "or one whose forward takes the whole batch and returns its loss."
)


class Objective:
    """What is minimised on a batch and measured on it; made once for a model.

    Args:
        model: any module.
        task: the loss and the measures, for models that don't bring their own.
    """

    def __init__(self, model: nn.Module, task: Task | None = None) -> None:
        self.model = model
        own_loss = method_of(model, "loss")
        self.task: Task | None = LossTask(own_loss) if own_loss else task
        self._other_measures = task if own_loss else None
        step = method_of(model, "training_step")
        self._training_step = taking(step, 2) if step else None
        forward = getattr(_unwrapped(model), "forward", model)
        needed, most = count_positional(forward)
        self._num_inputs = max(needed, 1)
        self._most_inputs = most if getattr(type(model), "forward", None) is not nn.Module.forward else 0
        self._keywords, self._takes_any_keyword = keyword_names(forward)

    def loss(self, batch: Any, index: int = 0) -> tuple[Loss, Logs]:
        """Return the loss of a batch, and what is logged beside it.

        Raises:
            RunError: the batch doesn't suit the model, or what came out is no loss.
        """
        if self._training_step is not None:
            return as_loss(self._training_step(batch, index), "training_step")
        outputs, targets = self._forward(batch)
        if type(outputs) is not Tensor and (own := _own_loss(outputs)) is not None:
            return as_loss(own, f"{type(self.model).__name__}.forward")
        if self.task is None or targets is None:
            return as_loss(outputs, f"{type(self.model).__name__}.forward")
        loss = self.task.loss(outputs, targets)
        if type(loss) is Tensor and loss.requires_grad and not loss.ndim:  # nearly always: look no further
            return loss, _NO_LOGS
        return as_loss(loss, title_of(self.task))

    def loss_of_part(self, batch: Any, index: int = 0) -> tuple[Loss, Logs]:
        """Return the loss of a micro batch: as a sum and a count where the task can tell them."""
        add_up = method_of(self.task, "loss_sum") if self._training_step is None else None
        if add_up is None:
            return self.loss(batch, index)
        outputs, targets = self._forward(batch)
        own = _own_loss(outputs)
        if own is not None or targets is None:
            return as_loss(outputs if own is None else own, "the model")
        return add_up(outputs, targets), _NO_LOGS

    def forward(self, batch: Any) -> None:
        """Pass a batch through the model, for the sake of what watches it."""
        if self._training_step is not None:
            self._training_step(batch, 0)
        else:
            self._forward(batch)

    def measure(self, batch: Any) -> Mapping[str, Tensor | LossSum]:
        """Return sums over the batch's samples of what the task measures; `loss` where there is none."""
        outputs, targets = self._forward(batch)
        own = _own_loss(outputs)
        if self.task is not None and targets is not None:
            return {**self._measure_besides(outputs, targets), **self.task.measure(outputs, targets)}
        loss, _ = as_loss(outputs if own is None else own, "the model")
        sums: dict[str, Tensor | LossSum] = {
            "loss": loss if isinstance(loss, LossSum) else loss * count_samples(batch)
        }
        logits, labels = getattr(outputs, "logits", None), _target_of(batch)
        if self.task is not None and logits is not None and labels is not None:
            sums = {**self.task.measure(logits, labels), **sums}
        return sums

    def _measure_besides(self, outputs: Any, targets: Any) -> Mapping[str, Tensor | LossSum]:
        """Return what a task measures of a model that has its own loss; nothing where it can't."""
        if self._other_measures is None:
            return {}
        try:
            return self._other_measures.measure(outputs, targets)
        except RunError:  # the task of the data set, say, for outputs that only the model's loss understands
            self._other_measures = None
            return {}

    def describe(self, batch: Any) -> str:
        """Return a batch's shapes and who takes them, for a message."""
        name = type(self.model).__name__
        step = method_of(self.model, "training_step")
        if step is not None:
            takers = shown(step, f"{name}.training_step")
        else:
            takers = shown(getattr(self.model, "forward", self.model), f"{name}.forward")
            if self.task is not None:
                takers += f", and the loss is {title_of(self.task)}"
        return f"the batch is {shape_of(batch)}; the model is {takers}"

    def _forward(self, batch: Any) -> tuple[Any, Any]:
        """Return the model's outputs, and the targets that are left; None where none are."""
        if isinstance(batch, (tuple, list)):
            return self._forward_sequence(batch)
        if isinstance(batch, Mapping):
            return self._forward_mapping(batch)
        return self.model(batch), batch

    def _forward_sequence(self, batch: Sequence[Any]) -> tuple[Any, Any]:
        if len(batch) == self._num_inputs + 1 and self.task is not None:  # nearly always: look no further
            *inputs, target = batch
            return self.model(*inputs), target
        if len(batch) < self._num_inputs:
            raise RunError(f"{self.describe(batch)}; it needs more than there is.")
        if self.task is None:
            if len(batch) > self._most_inputs:
                raise RunError(f"{self.describe(batch)}; {self._missing()}")
            return self.model(*batch), None
        if len(batch) == self._num_inputs:
            return self.model(*batch), batch[0] if len(batch) == 1 else None
        return self.model(*batch[: self._num_inputs]), tuple(batch[self._num_inputs :])

    def _forward_mapping(self, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        key = next((key for key in TARGET_KEYS if key in batch), None)
        if key is None or key in self._keywords or self.task is None:
            return self.model(**self._checked(batch)), None
        rest = {name: value for name, value in batch.items() if name != key}
        if len(rest) == 1 and not (rest.keys() <= self._keywords):
            return self.model(next(iter(rest.values()))), batch[key]
        return self.model(**self._checked(rest)), batch[key]

    def _checked(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self._takes_any_keyword and not batch.keys() <= self._keywords:
            odd = ", ".join(sorted(batch.keys() - self._keywords))
            if self.task is None:
                raise RunError(f"{self.describe(batch)}; it does not take {odd}, and {self._missing()}")
            raise RunError(
                f"{self.describe(batch)}; it does not take {odd}. The keys of a batch are the model's "
                "keywords: rename them in the data set, or give the model a training_step(batch)."
            )
        return batch

    def _missing(self) -> str:
        if self._training_step is not None:
            return "there is no loss to evaluate with. Give the model a validation_step, or leave val away."
        return f"there is no loss. {_WAYS}"


def title_of(task: Task) -> str:
    """Return what a message calls a task."""
    return str(getattr(task, "title", type(task).__name__))


def as_loss(value: Any, source: str) -> tuple[Loss, Logs]:
    """Return what a step or a model returned as a loss and what is logged beside it.

    Raises:
        RunError: it is no scalar that has a gradient, nor one of the forms that hold one.
    """
    logs: Logs = _NO_LOGS
    if isinstance(value, tuple) and len(value) == 2:
        value, logs = (value[0], _detached(value[1])) if isinstance(value[1], Mapping) else (value, logs)
    elif isinstance(value, Mapping):
        if "loss" not in value:
            raise RunError(f"{source} returned a dict with {', '.join(map(str, value))}; it needs 'loss'.")
        value, logs = value["loss"], _detached({name: item for name, item in value.items() if name != "loss"})
    elif (own := getattr(value, "loss", None)) is not None:
        value = own
    if isinstance(value, LossSum):
        return value, logs
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise RunError(f"{source} returned {shape_of(value)}; a loss is a scalar tensor. {_WAYS}")
    if torch.is_grad_enabled() and not value.requires_grad:
        raise RunError(
            f"{source} returned a loss without a gradient; it may have been detached, or no parameter trains."
        )
    return (value if value.ndim == 0 else value.reshape(())), logs


def _detached(logs: Logs) -> Logs:
    """Let go of the graphs: whoever keeps the logs doesn't keep the memory of a step."""
    return {name: item.detach() if isinstance(item, Tensor) else item for name, item in logs.items()}


def mean_of(loss: Loss) -> Tensor:
    """Return a loss as one number."""
    return loss.total / loss.count if isinstance(loss, LossSum) else loss


def mean_logs(parts: Sequence[tuple[Logs, int]]) -> Logs:
    """Return what micro batches logged as one: numbers averaged over the samples, of others the last.

    Args:
        parts: the logs of each micro batch, and its number of samples.
    """
    last = parts[-1][0]
    means: dict[str, Any] = dict(last)
    for name, value in last.items():
        found = [(logs[name], n) for logs, n in parts if _is_number(logs.get(name))]
        if _is_number(value):
            means[name] = sum(v * n for v, n in found) / sum(n for _, n in found)
    return means


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def count_samples(batch: Any) -> int:
    """Return how many samples a batch holds: the length of its first tensor that has one; 1 without any.

    A list inside a batch is one of samples, as a collate function leaves images of several sizes.
    """
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.ndim else 1
    # tuples first: whether something is a Mapping takes longer to find out than all else here
    if isinstance(batch, (tuple, list)):
        items: Iterable[Any] = batch
    elif isinstance(batch, Mapping):
        items = batch.values()
    else:
        return 1
    for item in items:
        if _has_samples(item):
            return len(item) if type(item) is list else count_samples(item)
    return 1


def take_part(batch: Any, start: int, size: int, num_samples: int) -> Any:
    """Return some samples of a batch; what isn't a tensor or a list of all samples stays as it is."""
    if isinstance(batch, Mapping):
        return {key: _take(value, start, size, num_samples) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        parts = [_take(value, start, size, num_samples) for value in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return _take(batch, start, size, num_samples)


def _take(batch: Any, start: int, size: int, num_samples: int) -> Any:
    if isinstance(batch, Tensor):
        return batch[start : start + size] if batch.ndim and len(batch) == num_samples else batch
    if isinstance(batch, list) and len(batch) == num_samples:
        return batch[start : start + size]
    is_tuple_of_samples = isinstance(batch, tuple) and len(batch) == num_samples
    if is_tuple_of_samples and not isinstance(batch[0], Tensor | Mapping | tuple | list):
        return batch[start : start + size]  # names of files, say
    return take_part(batch, start, size, num_samples) if isinstance(batch, Mapping | tuple | list) else batch


def shape_of(value: Any) -> str:
    """Return what a value is, for a message: `(float32 (32, 64), int64 (32,))`."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {shape_of(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(shape_of, value[:8]))}{', ...' if len(value) > 8 else ''})"
    return type(value).__name__


def _has_samples(item: Any) -> bool:
    if isinstance(item, Tensor):
        return item.ndim > 0
    return isinstance(item, Mapping | tuple | list) and bool(item)


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside torch's wrappers, whose own `forward` shows no signature."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return _unwrapped(model.module)
    inner = getattr(model, "_orig_mod", None)  # of torch.compile(model)
    return _unwrapped(inner) if isinstance(inner, nn.Module) else model


def _own_loss(outputs: Any) -> Tensor | None:
    if isinstance(outputs, Tensor):
        return None
    found = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    return found if isinstance(found, Tensor) else None


def _target_of(batch: Any) -> Any:
    return (
        next((batch[key] for key in TARGET_KEYS if key in batch), None)
        if isinstance(batch, Mapping)
        else None
    )
