"""One optimizer update: forward, backward, clip, apply; nothing of when and how often.

An update doesn't wait for an accelerator: whether its gradients were finite stays there until somebody asks.
A gradient that isn't finite is not applied; the update then changes nothing but the counts, which follow
the data. Where memory runs out in its passes, an update can be run again with smaller micro batches.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rootflow.errors import DivergedError, RunError
from rootflow.tasks import LossSum
from rootflow.train.ema import Ema
from rootflow.train.hooks import Call
from rootflow.train.norm_buffers import NormBuffers
from rootflow.train.objective import Logs, Objective, count_samples, mean_logs, mean_of, take_part
from rootflow.train.out_of_memory import free_memory, is_out_of_memory, survive_out_of_memory
from rootflow.train.precision import Arithmetic
from rootflow.train.rerun import Rerun

_MOST_BAD_STEPS = 5
"""Updates in a row without a finite gradient after which a training has diverged."""
_CLIP_MARGIN = 1e-5
"""Below the norm; torch scales by `norm / (total + 1e-6)`, so a little before the norm is reached."""
_NOT_SURVIVED = (
    "Memory ran out after the backward pass, where nothing can be run again: parts of the update are made. "
    "Take an optimizer that keeps less (optimizer=sgd), trainer.ema_decay=null, or a smaller model."
)


class Learner:
    """Applies batches to a model.

    Args:
        objective: the model, and how a batch becomes its loss.
        optimizers: all are applied in each update; mostly one.
        arithmetic: device and formats.
        micro_batch_size: samples per forward and backward pass; None passes each batch whole.
        grad_clip_norm: L2 norm of all gradients above which they are scaled down; None never.
        ema: moved after each update.
        after_backward: called with nothing between the backward pass and the optimizer.
    """

    def __init__(  # noqa: PLR0913  # what an update consists of
        self,
        objective: Objective,
        optimizers: Sequence[Optimizer],
        *,
        arithmetic: Arithmetic,
        micro_batch_size: int | None = None,
        grad_clip_norm: float | None = None,
        ema: Ema | None = None,
        after_backward: Sequence[Call] = (),
    ) -> None:
        self.objective = objective
        self.optimizers = tuple(optimizers)
        self.arithmetic = arithmetic
        self.micro_batch_size = micro_batch_size
        self.grad_clip_norm = grad_clip_norm
        self.ema = ema
        self.after_backward = tuple(after_backward)
        self.parameters: list[Tensor] = []
        self.find_parameters()
        self._autocast = arithmetic.dtype is not torch.float32
        self._wants_closure = any(map(_needs_closure, self.optimizers))
        self._is_lazy = arithmetic.device.type == "cuda" and all(map(_can_skip, self.optimizers))
        kinds = {(p.dtype, p.device) for p in self.parameters}
        self._is_uniform = len(kinds) == 1 and not any(dtype.is_complex for dtype, _ in kinds)
        self._has_stepped = (
            False  # a fused kernel that skips its first step leaves its momentum uninitialised
        )
        self._norm_buffers = NormBuffers(objective.model)
        self._rerun: Rerun | None = None
        self._tell_halved: Callable[[int, int], None] | None = None
        self._num_skipped_seen = 0
        self._found_inf = torch.zeros((), device=arithmetic.device)
        self._inverse_scale = torch.ones((), device=arithmetic.device)
        self.bad_steps: Tensor | int = 0
        """Updates in a row, up to the last one, whose gradient was not finite."""
        self.num_skipped: Tensor | int = 0
        """Updates of the training whose gradient was not finite, and so was not applied."""

    def find_parameters(self) -> None:
        """Look up what the optimizers hold: a hook may have given them more."""
        self.parameters = [p for o in self.optimizers for group in o.param_groups for p in group["params"]]

    def halve_when_out_of_memory(self, tell: Callable[[int, int], None]) -> None:
        """From now on halve the micro batch where memory runs out in an update's passes, and run them again.

        The mathematics stays, as with any micro batch; each sample is counted once.

        Args:
            tell: called once the passes have succeeded, with the old size and the new.
        """
        norms = None if self._is_lazy or self._wants_closure else self._norm_buffers
        self._rerun = Rerun(self.model, self.arithmetic.device, norms=norms)
        self._tell_halved = tell

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""
        return self.objective.model

    @property
    def lr(self) -> float:
        """Learning rate of the next update, of the first parameter group."""
        return float(self.optimizers[0].param_groups[0]["lr"])

    @property
    def may_have_diverged(self) -> bool:
        """Whether to look closer, as far as can be told without waiting for the device."""
        return isinstance(self.bad_steps, int) and self.bad_steps >= _MOST_BAD_STEPS

    def update(self, batch: Any, index: int = 0) -> tuple[Tensor, int, Logs]:
        """Apply one update; return its loss (the mean over the batch), its number of samples, and its logs.

        The mean is over the samples, whatever the micro batch: memory never changes the mathematics.

        Raises:
            RunError: not even one sample fits into memory, where running out of it is survived.
        """
        if self.arithmetic.channels_last:
            batch = self.arithmetic.prepare(batch)
        update = self._update_by_closure if self._wants_closure else self._update
        try:
            return update(batch, index)
        except (RuntimeError, MemoryError) as error:
            if self._rerun is not None and is_out_of_memory(error):
                error.add_note(_NOT_SURVIVED)
            raise

    def _update(self, batch: Any, index: int) -> tuple[Tensor, int, Logs]:
        is_lazy = self._is_lazy and self._has_stepped
        if not is_lazy and self._norm_buffers.live:
            self._norm_buffers.keep()
        loss, num_samples, logs = self._gradients(batch, index)
        for call in self.after_backward:
            call()
        if is_lazy:
            self._step_lazily()
        else:
            is_good = self._clip_if_finite()
            self._count(is_good=is_good)
            if is_good:
                for optimizer in self.optimizers:
                    optimizer.step()
                self._has_stepped = True
            else:
                self._norm_buffers.put_back()
        if self.ema is not None:
            self.ema.update()
        return loss, num_samples, logs

    def check(self, step: int) -> None:
        """Look whether the training has diverged; this waits for the device.

        Raises:
            DivergedError: no gradient of the last updates was finite; names the layers. The weights are those
                before them.
        """
        if self._is_lazy:
            self._heal_norm_buffers()
        num_bad = int(self.bad_steps)
        if num_bad < _MOST_BAD_STEPS:
            return
        names = {id(p): name for name, p in self.model.named_parameters()}
        odd = [names.get(id(p), "?") for p in self.parameters if p.grad is not None and not is_finite(p.grad)]
        shown = ", ".join(odd[:5]) + (f" and {len(odd) - 5} more" if len(odd) > 5 else "")
        raise DivergedError(
            f"no gradient was finite in {num_bad} updates, from step {step - num_bad + 1} to {step} (lr "
            f"{self.lr:.3g}); none was applied. Not finite: {shown or 'none now'}. Lower optimizer.lr, set "
            "trainer.grad_clip_norm=1, or look for NaN in the data."
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the counts of skipped updates."""
        return {"bad_steps": int(self.bad_steps), "num_skipped": int(self.num_skipped)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take counts that `state_dict` returned."""
        self.bad_steps, self.num_skipped = state["bad_steps"], state["num_skipped"]
        self._num_skipped_seen = state["num_skipped"]
        self._has_stepped = False  # the optimizer's state may be that before its first step
        self._norm_buffers.keep()

    def _heal_norm_buffers(self) -> None:
        """Take the statistics of the look before where an update was skipped since: soon they catch up."""
        num_skipped = int(self.num_skipped)
        if num_skipped == self._num_skipped_seen:
            self._norm_buffers.keep()
        else:
            self._norm_buffers.put_back()
            if self.ema is not None:  # an average that took a NaN in never loses it
                self.ema.restart(self._norm_buffers.live)
        self._num_skipped_seen = num_skipped

    def _gradients(self, batch: Any, index: int) -> tuple[Tensor, int, Logs]:
        if self._rerun is None:
            return self._passes(batch, index)
        self._rerun.keep()
        found = survive_out_of_memory(lambda: self._passes(batch, index))
        return self._smaller_passes(batch, index, found) if isinstance(found, Exception) else found

    def _smaller_passes(self, batch: Any, index: int, error: Exception) -> tuple[Tensor, int, Logs]:
        """Run the passes of an update again, the micro batch halved, until they fit into memory."""
        assert self._rerun is not None
        assert self._tell_halved is not None
        num_samples = count_samples(batch)
        old = size = min(self.micro_batch_size or num_samples, num_samples)
        found: tuple[Tensor, int, Logs] | Exception = error
        while isinstance(found, Exception):
            if size == 1:
                raise RunError(
                    f"not even one sample fits into memory ({_first_line(found)}): "
                    f"{self.objective.describe(batch)}. Take smaller samples or a smaller model."
                ) from found
            size = (size + 1) // 2
            self.micro_batch_size = size
            self._drop_gradients()
            free_memory(self.arithmetic.device)
            self._rerun.put_back()
            found = survive_out_of_memory(lambda: self._passes(batch, index))
        self._tell_halved(old, size)
        return found

    def _drop_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _passes(self, batch: Any, index: int) -> tuple[Tensor, int, Logs]:
        self._drop_gradients()
        num_samples = count_samples(batch)
        size = self.micro_batch_size
        if size is not None and size < num_samples:
            return self._accumulated(batch, index, num_samples, size)
        if self._autocast:
            with self.arithmetic.autocast():
                loss, logs = self.objective.loss(batch, index)
        else:
            loss, logs = self.objective.loss(batch, index)
        mean = loss if type(loss) is Tensor else mean_of(loss)
        mean.backward()  # type: ignore[no-untyped-call]
        return mean.detach(), num_samples, logs

    def _accumulated(self, batch: Any, index: int, num_samples: int, size: int) -> tuple[Tensor, int, Logs]:
        """Add up gradients over micro batches, each weighed by its share of the samples, or of the counts."""
        total: Tensor | None = None
        count: Tensor | None = None
        all_logs: list[tuple[Logs, int]] = []
        for start in range(0, num_samples, size):
            part = take_part(batch, start, size, num_samples)
            with self.arithmetic.autocast():
                loss, logs = self.objective.loss_of_part(part, index)
            all_logs.append((logs, min(size, num_samples - start)))
            if isinstance(loss, LossSum):
                count = loss.count if count is None else count + loss.count
                loss = loss.total
            else:
                loss = loss * (min(size, num_samples - start) / num_samples)
            loss.backward()  # type: ignore[no-untyped-call]
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        if count is not None:
            total = total / count
            torch._foreach_div_(self._grads(), torch.as_tensor(count, device=total.device).to(total.dtype))
        return total, num_samples, mean_logs(all_logs)

    def _grads(self) -> list[Tensor]:
        return [p.grad for p in self.parameters if p.grad is not None]

    def _clip_if_finite(self) -> bool:
        """Clip; return whether the gradients are finite. The host looks, which on a CPU costs nothing."""
        grads = self._grads()
        if self.grad_clip_norm is None:
            return not self._has_nonfinite(grads)
        norm = nn.utils.get_total_norm(grads)
        total = float(norm)
        if total > self.grad_clip_norm - _CLIP_MARGIN and math.isfinite(total):
            nn.utils.clip_grads_with_norm_(self.parameters, self.grad_clip_norm, norm)
        return math.isfinite(total)

    def _count(self, *, is_good: bool) -> None:
        if is_good:
            self.bad_steps = 0
        else:
            self.bad_steps += 1
            self.num_skipped += 1

    def _has_nonfinite(self, grads: list[Tensor]) -> bool:
        if not self._is_uniform or any(grad.is_sparse for grad in grads):
            return not all(map(is_finite, grads))
        torch._amp_foreach_non_finite_check_and_unscale_(grads, self._found_inf, self._inverse_scale)
        if not self._found_inf:
            return False
        self._found_inf.zero_()
        return True

    def _step_lazily(self) -> None:
        """Let the optimizer's own kernel leave everything as it is where a gradient isn't finite."""
        grads = self._grads()
        if self.grad_clip_norm is not None:
            norm = nn.utils.get_total_norm(grads)
            nn.utils.clip_grads_with_norm_(self.parameters, self.grad_clip_norm, norm)
            torch.logical_not(norm.isfinite(), out=self._found_inf)
        else:
            self._found_inf.zero_()
            torch._amp_foreach_non_finite_check_and_unscale_(grads, self._found_inf, self._inverse_scale)
        self.bad_steps = (self.bad_steps + 1) * self._found_inf
        self.num_skipped = self.num_skipped + self._found_inf
        for optimizer in self.optimizers:
            optimizer.found_inf = self._found_inf  # type: ignore[attr-defined]  # the protocol of GradScaler
            optimizer.step()
            del optimizer.found_inf  # type: ignore[attr-defined]  # else the user's own steps would ask it

    def _update_by_closure(self, batch: Any, index: int) -> tuple[Tensor, int, Logs]:
        """Update by optimizers that evaluate a batch several times, as LBFGS does.

        Where they arrive at weights that aren't finite, they have those before, and forget their history.
        """
        found: list[tuple[Tensor, int, Logs]] = []
        before = [parameter.detach().clone() for parameter in self.parameters]

        def evaluate_gradients() -> Tensor:
            found.append(self._gradients(batch, index))
            for call in self.after_backward:
                call()
            if not self._clip_if_finite() and len(found) == 1:
                raise _SkippedError
            return found[-1][0]

        is_good = False
        with contextlib.suppress(_SkippedError):
            for optimizer in self.optimizers:
                optimizer.step(evaluate_gradients)  # type: ignore[arg-type]  # torch: float; all take tensors
            is_good = all(map(is_finite, self.parameters))
            if not is_good:
                self._go_back(before)
        self._count(is_good=is_good)
        if self.ema is not None:
            self.ema.update()
        return found[0]

    @torch.no_grad()
    def _go_back(self, before: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.parameters, before, strict=True):
            parameter.copy_(value)
        for optimizer in self.optimizers:
            optimizer.state.clear()


class _SkippedError(Exception):
    """Leaves an optimizer's `step` before it has changed anything."""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers of a tensor, sparse ones too, are finite; this waits for the device."""
    values = tensor.coalesce().values() if tensor.is_sparse else tensor
    return bool(values.isfinite().all())


def _needs_closure(optimizer: Optimizer) -> bool:
    step = inspect.signature(type(optimizer).step).parameters
    return "closure" in step and step["closure"].default is inspect.Parameter.empty


def _can_skip(optimizer: Optimizer) -> bool:
    """Whether the optimizer's kernel takes `found_inf`, as GradScaler asks it."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False)) and bool(
        optimizer.defaults.get("fused")
    )
