"""Only the search: what every `auto` of an experiment would become, without training it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from rootflow.assemble import assemble, check_components, load_data
from rootflow.build import build
from rootflow.config.schema import Config
from rootflow.discover.pins import Pins
from rootflow.init_from import find_start_weights
from rootflow.tracking.console import Console
from rootflow.train.seeding import seed_everything


def tune(config: Config, *, plots: Path | None = None) -> Pins:
    """Find what is `auto` in a config, anew, and return it with its reasons and reports; nothing is trained.

    Args:
        config: checked.
        plots: a folder for the pictures; None draws none.

    Raises:
        ConfigError: a component can't be imported, or the device isn't here.
        RootflowError: the data is missing, or the training can't be run.
    """
    check_components(config)
    data = load_data(config)
    root = Path(build("tracking", config.tracking).root)
    start = find_start_weights(config.init_from, root) if config.init_from else None
    with Console.open() as console:
        pins = Pins(console)
        seed_everything(config.seed)
        with contextlib.closing(assemble(config, *data, pins, start=start, is_asked=True)):
            pass
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
        for name, report in pins.reports.items():
            report.plot(plots / f"{name}.png")
    return pins
