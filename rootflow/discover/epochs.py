"""`trainer.max_epochs: auto`, by a rule on the number of updates an epoch makes."""

from __future__ import annotations

from rootflow.discover.found import Found
from rootflow.discover.settings import DiscoverSettings


def find_max_epochs(updates_per_epoch: int, settings: DiscoverSettings) -> Found:
    """Return how many epochs make about `settings.num_updates` updates, within its bounds.

    Args:
        updates_per_epoch: batches in the training loader.
        settings: the aim and the bounds.
    """
    aimed = round(settings.num_updates / max(updates_per_epoch, 1))
    epochs = max(settings.min_epochs, min(aimed, settings.max_epochs))
    return Found(epochs, f"{epochs * updates_per_epoch:,} updates at {updates_per_epoch} an epoch")
