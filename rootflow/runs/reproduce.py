"""A run's config as one to start from: what it was asked, and what it found out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rootflow.config.layers import Layer, load_layer, read_layer
from rootflow.config.plain_yaml import to_yaml
from rootflow.runs.paths import RunPaths
from rootflow.runs.record import read_run
from rootflow.runs.resume_rules import with_found

_OTHER_THINGS = ("seed", "name", "tracking", "init_from", "scheduler", "trainer.max_", "trainer.patience")
"""What may be said beside the folder of a run, and its findings still hold."""


def load_config(given: str | Path, overrides: Sequence[str] = ()) -> Layer:
    """Return the config in a file as it is; of a run's folder, with the values that the run found for `auto`.

    So a run that is made again searches nothing, and trains as the first one did. Where ``overrides`` change
    the model, the data or the update, `auto` stays, for what was found was found for others.

    Raises:
        ConfigError: there is no such file, or it isn't a YAML mapping.
    """
    layer, folder = load_layer(given), Path(given)
    is_another = any(not word.lstrip("+~").startswith(_OTHER_THINGS) for word in overrides)
    if is_another or not folder.is_dir() or not RunPaths(folder).run_json.is_file():
        return layer
    found = read_run(folder).summary.get("discovered") or {}
    return read_layer(layer.label, to_yaml(with_found(layer.values, found)))
