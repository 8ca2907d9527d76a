"""Updates of a training that are tried, and leave no trace.

A trial runs the real thing: forward, backward, clipping, the optimizer with its state, the moving average.
After it, whether it ended, failed or was interrupted, everything that it touched is bitwise as it was before:
parameters, gradients, buffers, what modules keep beside them, modes, the optimizer, random generators.
Nothing is written to a disk. What `Undo` doesn't look into is beyond that: files and processes of the user's
own, and variables that belong to no object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

import torch
from torch import nn
from torch.optim import Optimizer

from rootflow.discover.undo import Undo, undoing
from rootflow.interrupts import Interrupts
from rootflow.tasks import Task
from rootflow.train.ema import Ema
from rootflow.train.learner import Learner
from rootflow.train.objective import Objective
from rootflow.train.precision import Arithmetic
from rootflow.train.seeding import keep_generators


class Trials:
    """Tries updates of a training, each trial from the same beginning.

        with Trials(model, task, [optimizer], arithmetic=arithmetic) as trials:
            with trials.trial() as learner:
                loss, num_samples, logs = learner.update(batch)

    Within the block a signal such as Ctrl-C ends the update that it finds, by `KeyboardInterrupt` (SIGINT) or
    `SystemExit`, before its weights change; at the latest the end of the block raises, when all is as before.

    Args:
        model: on its device.
        task: its loss; None where the model has its own.
        optimizers: over the model's parameters.
        arithmetic: device and formats.
        grad_clip_norm: as the training has it.
        micro_batch_size: as the training has it; None passes each batch whole.
        with_ema: keep a moving average of the weights, too, as the training does.
    """

    def __init__(  # noqa: PLR0913  # what an update consists of
        self,
        model: nn.Module,
        task: Task | None,
        optimizers: Sequence[Optimizer],
        *,
        arithmetic: Arithmetic,
        grad_clip_norm: float | None = None,
        micro_batch_size: int | None = None,
        with_ema: bool = False,
    ) -> None:
        self.objective = Objective(model, task)
        self.optimizers = tuple(optimizers)
        self.arithmetic = arithmetic
        self.grad_clip_norm = grad_clip_norm
        self.micro_batch_size = micro_batch_size
        self.with_ema = with_ema
        self._task = task
        self._held = ExitStack()
        self._undo = Undo(())
        self._interrupts = Interrupts()

    def __enter__(self) -> Self:
        touched = [self.objective.model, self.objective.task, self._task, *self.optimizers]
        self._undo, self._interrupts = self._held.enter_context(undoing(touched))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.__exit__(kind, error, trace)

    @contextmanager
    def trial(self) -> Iterator[Learner]:
        """Give a learner on model and optimizers as they were at the start; put everything back after.

        Nothing is compiled in it: for whom sizes change, the compiler makes other code from then on.
        """
        model = self.objective.model
        with ExitStack() as held:
            held.enter_context(keep_generators())
            held.callback(self._undo.put_back)
            held.enter_context(torch.compiler.set_stance("force_eager"))
            if not model.training:
                model.train()
            yield Learner(
                self.objective,
                self.optimizers,
                arithmetic=self.arithmetic,
                micro_batch_size=self.micro_batch_size,
                grad_clip_norm=self.grad_clip_norm,
                ema=Ema(model) if self.with_ema else None,
                after_backward=[self.leave_if_interrupted],
            )

    def leave_if_interrupted(self) -> None:
        """Raise what a signal asked for meanwhile."""
        if self._interrupts.pending is not None:
            self._interrupts.leave()
