"""States and weights of a training on the disk: safetensors, JSON and digests, never a pickle.

For a loop of one's own:

    checkpoints = Checkpoints("checkpoints")
    checkpoints.save(step, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    found = checkpoints.load()
"""

from rootflow.checkpoint.folder import Checkpoint, Checkpoints
from rootflow.checkpoint.tree import flatten_tree, restore_tree
from rootflow.checkpoint.weights import WeightKeeper, load_weights, save_weights

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "WeightKeeper",
    "flatten_tree",
    "load_weights",
    "restore_tree",
    "save_weights",
]
