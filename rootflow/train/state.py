"""All of a training that a checkpoint holds: with it and the data, what follows is the same to the bit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from rootflow.errors import CheckpointError
from rootflow.train.ema import Ema
from rootflow.train.learner import Learner
from rootflow.train.loop import Position
from rootflow.train.methods import method_of
from rootflow.train.seeding import generator_states
from rootflow.train.stopping import EarlyStopping


@dataclass
class TrainState:
    """The state of one training, changed by it as it goes."""

    model: nn.Module
    optimizers: tuple[Optimizer, ...]
    scheduler: Any
    """Advances the schedulers; has their state."""
    learner: Learner
    ema: Ema | None
    stopping: EarlyStopping
    hooks: Iterable[object] = ()
    loader_generators: Sequence[torch.Generator] = ()
    """Those that belong to the training data's loader."""

    position: Position = field(default_factory=Position)
    phase: Literal["training", "evaluating", "over"] = "over"
    """Of the epoch: in the pass over the data, after it with the evaluation to come, or over."""
    evaluated_step: int = -1
    """The step of the last evaluation."""
    decay_end: int | None = None
    """The step at which a decay that was begun has arrived, and the training ends."""
    decay_reason: str = ""
    """Why it was begun."""
    num_lr_halvings: int = 0
    """How often the learning rate was halved after a divergence."""
    is_compiled: bool = False
    """Whether the model's forward pass is compiled, which changes its bits."""
    elapsed_s: float = 0.0
    """Time spent training, in all sessions."""
    last: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    stop_reason: str = ""
    pass_generators: dict[str, Any] = field(default_factory=dict)
    """The generators as they were when the pass over the data began."""

    @property
    def step(self) -> int:
        """Optimizer updates so far."""
        return self.position.step

    @property
    def epoch(self) -> int:
        """The epoch that is trained, from 1; 0 before the first."""
        return self.position.epoch

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as nested plain values and tensors.

        Equal trainings give equal states, but for `clock`.
        """
        saved = method_of(self.model, "get_save_dict")
        position = self.position
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "optimizer": {str(i): optimizer.state_dict() for i, optimizer in enumerate(self.optimizers)},
            "scheduler": self.scheduler.state_dict(),
            "stopping": self.stopping.state_dict(),
            "skipped": self.learner.state_dict(),
            "generators": generator_states(self.loader_generators),
            "pass_generators": self.pass_generators,
            "progress": {
                "step": position.step,
                "epoch": position.epoch,
                "batch": position.batch,
                "loss_sum": float(position.loss_sum),
                "num_samples": int(position.num_samples),
                "num_seen": position.num_seen,
                "first": [float(loss) for loss in position.first],
                "phase": self.phase,
                "evaluated_step": self.evaluated_step,
                "decay_end": self.decay_end,
                "decay_reason": self.decay_reason,
                "num_lr_halvings": self.num_lr_halvings,
                "last": dict(self.last),
                "best": dict(self.best),
                "stop_reason": self.stop_reason,
                "is_compiled": self.is_compiled,
            },
            "hooks": {name: hook.state_dict() for name, hook in self._stateful_hooks().items()},
            "user": saved() if saved else None,
            "clock": {"elapsed_s": self.elapsed_s},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned; the generators are left to the caller, who knows when.

        Raises:
            CheckpointError: it is the state of another model or optimizer.
        """
        try:
            self.model.load_state_dict(state["model"])
            for index, optimizer in enumerate(self.optimizers):
                optimizer.load_state_dict(state["optimizer"][str(index)])
            if self.ema and state["ema"] is not None:
                self.ema.load_state_dict(state["ema"])
            elif self.ema:
                self.ema.restart()
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"the checkpoint is of another model or optimizer: {error}") from error
        self.scheduler.load_state_dict(state["scheduler"])
        self.stopping.load_state_dict(state["stopping"])
        self.learner.load_state_dict(state["skipped"])
        progress = dict(state["progress"])
        names = ("step", "epoch", "batch", "num_seen", "loss_sum", "num_samples", "first")
        self.position = Position(**{name: progress.pop(name) for name in names})
        self.position.first = list(self.position.first)
        for name, value in progress.items():
            setattr(self, name, value)
        self.elapsed_s = state["clock"]["elapsed_s"]
        self.pass_generators = dict(state["pass_generators"])
        for name, hook in self._stateful_hooks().items():
            if name in state["hooks"]:
                hook.load_state_dict(state["hooks"][name])
        load = method_of(self.model, "load_model_specific")
        if load is not None:
            load(state["user"] or {})

    def _stateful_hooks(self) -> dict[str, Any]:
        wanted = ("state_dict", "load_state_dict")
        found: dict[str, Any] = {}
        for hook in self.hooks:
            if all(method_of(hook, name) for name in wanted):
                name = type(hook).__name__
                num_before = sum(type(other).__name__ == name for other in found.values())
                found[f"{name}-{num_before + 1}" if num_before else name] = hook
        return found
