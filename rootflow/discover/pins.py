"""The record of every `auto` that became a value: printed once, written once, never searched again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from rootflow.config.schema import is_auto_key
from rootflow.discover.found import Found
from rootflow.errors import ConfigError
from rootflow.tracking.console import Console
from rootflow.tracking.run_folder import RunFolder
from rootflow.tracking.wandb_mirror import WandbMirror


class Report(Protocol):
    """What a search found, with all that it measured."""

    def record(self) -> dict[str, Any]:
        """Return it all as nested plain values; `curve` has rows, values by name."""

    def plot(self, path: Path) -> None:
        """Draw it."""


class Pins:
    """Resolves the `auto` values of one run, and says and records each with its reason.

    What a resumed run has on record already is neither said nor recorded again, unless it became another.

    Args:
        console: what the terminal shows.
        folder: the open run folder; None records nothing.
        mirror: gets what the folder gets.
    """

    def __init__(
        self, console: Console, folder: RunFolder | None = None, mirror: WandbMirror | None = None
    ) -> None:
        recorded = folder.summary.get("discovered", {}) if folder else {}
        self.found: dict[str, Found] = {key: Found(**item) for key, item in recorded.items()}
        self.reports: dict[str, Report] = {}
        """By name: `batch_size`, `learning_rate`."""
        self._console = console
        self._folder = folder
        self._mirror = mirror

    def say(self, text: str) -> None:
        """Tell something that was decided and is no value of a key."""
        self._console.line(text)

    def pin(self, key: str, found: Found) -> Any:
        """Take what ``key`` became; return the value."""
        if key in self.found and self.found[key].value == found.value:
            return found.value
        self.found[key] = found
        self._console.setting(key, found.value, found.reason)
        if self._folder is not None:
            self._folder.update(discovered={k: dataclasses.asdict(f) for k, f in self.found.items()})
        if self._mirror is not None:
            self._mirror.summary({f"discovered/{key}": found.value, f"discovered/{key}/reason": found.reason})
        return found.value

    def keep(self, name: str, report: Report) -> None:
        """Record what a search measured; `draw` makes pictures of it, when there is time."""
        self.reports[name] = report
        if self._folder is None:
            return
        record = report.record()
        self._folder.update(measured={**self._folder.summary.get("measured", {}), name: record})
        if self._mirror is not None:
            self._mirror.table(f"measured/{name}", record["curve"])

    def draw(self) -> None:
        """Draw what was measured; without a picture that can't be written, its numbers are in run.json."""
        if self._folder is None:
            return
        for name, report in self.reports.items():
            picture = self._folder.plots_dir / f"{name}.png"
            try:
                picture.parent.mkdir(exist_ok=True)
                report.plot(picture)
            except OSError as error:
                self.say(f"{picture} can't be written: {error.strerror}")
                continue
            if self._mirror is not None:
                self._mirror.picture(f"plots/{name}", picture)

    def fill(self, group: str, node: Mapping[str, Any], known: Mapping[str, Found]) -> dict[str, Any]:
        """Return a group's node with each of its `auto` keys replaced by what is known.

        Raises:
            ConfigError: a key is `auto`, and nothing tells its value.
        """
        filled = dict(node)
        for key, value in node.items():
            if value == "auto" and is_auto_key(group, key):
                if key not in known:
                    raise ConfigError(
                        f"{group}.{key} is 'auto', but the data set doesn't tell it; give it a value."
                    )
                filled[key] = self.pin(f"{group}.{key}", known[key])
        return filled
