"""`init_from`: a new run that starts from the weights of another, or from a file of weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from rootflow.checkpoint import Checkpoints
from rootflow.checkpoint.weights import load_weights
from rootflow.errors import ConfigError, RunError
from rootflow.files import read_digest
from rootflow.runs.find import resolve_run
from rootflow.runs.paths import RunPaths
from rootflow.train.methods import method_of

_BEST = "best.safetensors"


@dataclass(frozen=True)
class StartWeights:
    """A file of weights that was found."""

    path: Path
    sha256: str

    @property
    def record(self) -> dict[str, str]:
        """What run.json says about it."""
        return {"path": str(self.path), "sha256": self.sha256}

    def load(self, model: nn.Module) -> None:
        """Put the weights into a model, and hand what its `get_save_dict` gave to its `load_model_specific`.

        What it gave is in checkpoints only, so it is that of the checkpoint whose step is closest to that of
        the weights: the same, or one before or after it. Nothing in the folder is moved or changed.

        Raises:
            CheckpointError: the file is damaged, or its tensors are not this model's, and the model is then
                unchanged; or a model that takes its own things back finds only damaged checkpoints.
        """
        load_weights(model, self.path)
        load_specific = method_of(model, "load_model_specific")
        if load_specific is None:
            return
        found = Checkpoints(self.path.parent).read(near=_step_of(self.path))
        if found is not None and found.state.get("user") is not None:
            load_specific(found.state["user"])


def find_start_weights(reference: str, root: Path) -> StartWeights:
    """Return the weights that a config's `init_from` means.

    Args:
        reference: a .safetensors file; the folder of a run, or of checkpoints; or a run's id, or `latest`.
        root: where runs are looked for.

    Raises:
        ConfigError: there is no such file or run, or the run has no weights yet.
    """
    path = Path(reference)
    if path.suffix == ".safetensors":
        found = path
    elif (path / _BEST).is_file():
        found = path / _BEST
    else:
        found = RunPaths(_run_folder(reference, root)).checkpoints_dir / _BEST
    try:
        return StartWeights(found, read_digest(found).sha256)
    except OSError as error:
        raise ConfigError(
            f"init_from is {reference!r}, but {found} can't be read: {error.strerror}. Name a .safetensors "
            "file, or a run that has been evaluated (`rootflow runs list`)."
        ) from error


def _step_of(weights: Path) -> int | None:
    """Return the step that a file of weights is of; None where nothing says so."""
    try:
        step = json.loads(weights.with_suffix(".json").read_bytes()).get("step")
    except (OSError, ValueError, AttributeError):
        return None
    return step if isinstance(step, int) else None


def _run_folder(reference: str, root: Path) -> Path:
    try:
        return resolve_run(reference, root)
    except RunError as error:
        raise ConfigError(f"init_from is {reference!r}: {error}") from error
