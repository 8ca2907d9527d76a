"""The record of every `auto` that became a value: printed once, written once, never searched again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rootflow.config.schema import is_auto_key
from rootflow.discover.found import Found
from rootflow.errors import ConfigError
from rootflow.tracking.console import Console
from rootflow.tracking.run_folder import RunFolder


class Pins:
    """Resolves the `auto` values of one run, and says and records each with its reason.

    What a resumed run has on record already is neither said nor recorded again, unless it became another.
    """

    def __init__(self, console: Console, folder: RunFolder) -> None:
        recorded = folder.summary.get("discovered", {})
        self.found: dict[str, Found] = {key: Found(**item) for key, item in recorded.items()}
        self._console = console
        self._folder = folder

    def say(self, text: str) -> None:
        """Tell something that was decided and is no value of a key."""
        self._console.line(text)

    def pin(self, key: str, found: Found) -> Any:
        """Take what ``key`` became; return the value."""
        if key in self.found and self.found[key].value == found.value:
            return found.value
        self.found[key] = found
        self._console.setting(key, found.value, found.reason)
        self._folder.update(discovered={k: dataclasses.asdict(f) for k, f in self.found.items()})
        return found.value

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
