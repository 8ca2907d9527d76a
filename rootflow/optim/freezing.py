"""Parts of a model that are trained only in some epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import nn

from rootflow.optim.parameter_groups import Group, match_groups


class HasEpoch(Protocol):
    """What of a training's state counts here."""

    @property
    def epoch(self) -> int:
        """The epoch that runs, 1 in the first; 0 before it."""
        ...


class Freezing:
    """A hook that lets gradients into each group's parameters in the epochs in which it is trained.

    What is trained is a function of the epoch alone, so a resumed run has it right. Frozen parameters get
    no gradient, and an optimizer leaves them and its own averages of them as they are. Buffers aren't
    parameters: the statistics of a frozen BatchNorm go on following the data.

    Args:
        model: its parameters are looked up once, here; those frozen by other hands are left alone.
        groups: by patterns of names, see `match_groups`.

    Raises:
        ConfigError: a pattern matches no parameter.
    """

    def __init__(self, model: nn.Module, groups: Mapping[str, Group]) -> None:
        self._parts = [
            (groups[pattern], [p for p in found if p.requires_grad])
            for pattern, found in match_groups(model, groups).items()
            if groups[pattern].frozen or groups[pattern].unfreeze_at or groups[pattern].freeze_at
        ]

    def on_run_start(self, state: HasEpoch) -> None:
        """Freeze what isn't trained in the first epoch, or in the one that a resumed run is in."""
        self._set(max(state.epoch, 1))

    def on_epoch_start(self, state: HasEpoch) -> None:
        """Freeze and unfreeze what this epoch asks."""
        self._set(state.epoch)

    def on_run_end(self) -> None:
        """Leave the parameters as they were found."""
        self._restore()

    def on_exception(self) -> None:
        """Do so too where the training ends early, by an error or a signal."""
        self._restore()

    def _restore(self) -> None:
        for _, parameters in self._parts:
            for parameter in parameters:
                parameter.requires_grad_()

    def _set(self, epoch: int) -> None:
        for group, parameters in self._parts:
            is_trained = group.is_trained_in(epoch)
            for parameter in parameters:
                parameter.requires_grad_(is_trained)
                if not is_trained:
                    parameter.grad = None  # that of the epoch before would be applied once more
