"""The overrides of one job, read one by one, sorted by what they do, every mistake in them noted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.types import Override, QuotedString

from rootflow.config.composition import Compositions
from rootflow.config.flat import to_flat
from rootflow.config.folders import group_names, option_files
from rootflow.config.hydra_errors import one_line, unknown_option
from rootflow.config.origin import COMMAND_LINE, ConfigText
from rootflow.config.overrides import check_readable, quoted
from rootflow.errors import ConfigError, did_you_mean, shown
from rootflow.registry import GROUPS

_NOT_YOURS = {
    **dict.fromkeys(
        ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.job.chdir"),
        "can't be set: rootflow makes run folders itself. Set tracking.root.",
    ),
    "hydra.searchpath": "can't be set: give the folder by --config-dir.",
    "hydra": "is Hydra's own config: set a key of it, e.g. hydra.launcher.n_jobs=2.",
}
"""Keys of Hydra's that the command line can't set, and what to do."""


@dataclass
class Given:
    """What the overrides of one job say."""

    choices: list[str] = field(default_factory=list)
    """Those that choose an option of a group."""
    values: list[Override] = field(default_factory=list)
    hydras: list[str] = field(default_factory=list)
    """Those of Hydra's own config."""
    mistakes: list[str] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    """Groups whose option doesn't exist."""
    places: Mapping[str, str] = field(default_factory=dict)


class OverrideReader:
    """Reads overrides against the groups and options that there are."""

    def __init__(self, compositions: Compositions) -> None:
        self.compositions = compositions
        self.repository = compositions.loader.repository

    def read(
        self, overrides: Sequence[str], *, many: bool = False, places: Mapping[str, str] | None = None
    ) -> Given:
        """Return the overrides sorted.

        Args:
            overrides: in Hydra's grammar.
            many: whether one may have several values.
            places: where those stand that a sweep file makes, by key.
        """
        given = Given(places=places or {})
        for text in overrides:
            try:
                self._check_has_value(text)
                check_readable(text)
                with self.compositions.config_errors():
                    override = self.compositions.parse(self.in_full(text))
                self._sort(override, given, many=many)
            except ConfigError as error:
                given.mistakes += error.args
            except ValueError as error:  # what Hydra thinks of some values
                given.mistakes.append(f"{text!r} ({COMMAND_LINE}): {one_line(error)}.")
        return given

    def expanded(self, overrides: Sequence[str]) -> list[str]:
        """Return overrides with `trainer={max_steps: 3}` as `trainer.max_steps=3`, which says what is set."""
        found: list[str] = []
        for text in overrides:
            group, _, value = text.lstrip("+").partition("=")
            read = self.read([text]).values if group in GROUPS and value.startswith("{") else []
            nested = read[0].value() if read else None
            leaves = to_flat({group: _plain(nested)}) if isinstance(nested, dict) and nested else {}
            found += [f"{key}={quoted(leaf)}" for key, leaf in leaves.items()] or [text]
        return found

    def in_full(self, override: str) -> str:
        """Write `key=value` as `++key=value`, so that the check names every unknown key at once.

        Hydra would stop at the first, without saying where the right ones are. A sweep is always added, an
        experiment never, as there is a place for one.
        """
        override = re.sub(r"^\+*sweeps=", "+sweeps=", override)
        override = re.sub(r"^\+*experiment=", "experiment=", override)
        if override == "experiment=null":
            return "~experiment"
        key = re.match(r"[\w.\-$]+(?==)", override)
        if key is None or key[0].partition(".")[0] == "hydra" or self._is_group(key[0]):
            return override
        return f"++{override}"

    def _sort(self, override: Override, given: Given, *, many: bool) -> None:
        key, line = override.key_or_group, str(override.input_line)
        typed = line.removeprefix("++")
        if not key:
            raise ConfigError(f"{typed!r} ({COMMAND_LINE}) has no key; leave out spaces around the =.")
        if key in _NOT_YOURS:
            raise ConfigError(f"{key} ({COMMAND_LINE}) {_NOT_YOURS[key]}")
        if override.is_sweep_override():
            if many:
                return
            raise ConfigError(f"{typed!r} ({COMMAND_LINE}) gives several values{_advice(key, typed)}.")
        if key.partition("/")[0].partition(".")[0] == "hydra":
            given.hydras.append(line)
        elif not self._is_group(key) or isinstance(override.value(), dict):
            given.values.append(override)
        elif self._check_choice(override, key, given):
            given.choices.append(line)

    def _check_choice(self, override: Override, group: str, given: Given) -> bool:
        """Whether the options that an override chooses exist; a mistake is noted where not."""
        if override.is_delete():
            return True
        value = override.value()
        if group in GROUPS and isinstance(value, list):
            listed = ",".join(map(str, value))
            raise ConfigError(
                f"{group} is a list ({COMMAND_LINE}); it must be one option, or `-m {group}={listed}`."
            )
        if group in GROUPS and override.is_add() and not override.is_force_add():
            raise ConfigError(f"+{group}={value} ({COMMAND_LINE}) adds a second {group}; leave out the +.")
        if value is None or not isinstance(value, str | list):
            self._refuse_choice(group, value)
        for option in value if isinstance(value, list) else [value]:
            if not self._exists(f"{group}/{option}"):
                options = self.repository.get_group_options(group)
                place = given.places.get(group, COMMAND_LINE)
                given.mistakes.append(unknown_option(group, str(option), place, options))
                given.unknown.add(group)
        return group not in given.unknown

    def _exists(self, config: str) -> bool:
        try:
            return bool(self.repository.config_exists(config))
        except OSError:  # a name too long for a file
            return False

    def _refuse_choice(self, group: str, value: object) -> None:
        if value is None:
            instead = f"choose an option: {group}=... (`rootflow list {group}`)."
            advice = instead if group in GROUPS else f"to choose none write ~{group}."
            raise ConfigError(f"{group} is null ({COMMAND_LINE}); {advice}")
        options = ", ".join(self.repository.get_group_options(group))
        told = f"{group} is {shown(value)} ({COMMAND_LINE})"
        raise ConfigError(f"{told}; it must be the name of an option: {options}.")

    def _check_has_value(self, override: str) -> None:
        if "=" in override or override.startswith("~"):
            return
        extra = self.compositions.start.extra
        meant = [
            f"{group}={override}" for group in group_names(extra) if override in option_files(group, extra)
        ]
        hint = f" Did you mean {' or '.join(meant)}?" if meant else ""
        hint = hint or did_you_mean(override, option_files("sweeps", extra))
        raise ConfigError(f"{override!r} ({COMMAND_LINE}) is neither group=option nor key=value.{hint}")

    def _is_group(self, key: str) -> bool:
        return "." not in key and self.repository.group_exists(key)


def hydra_mistakes(texts: Sequence[ConfigText]) -> list[str]:
    """Return a message for each key of Hydra's that files set and can't."""
    found = [(key, text.find(key)) for text in texts for key in _NOT_YOURS if "." in key]
    return [f"{key} ({setting.place}) {_NOT_YOURS[key]}" for key, setting in found if setting is not None]


def _advice(key: str, typed: str) -> str:
    """Say what to do about a comma: another thing for choices, lists and text."""
    values = typed.partition("=")[2]
    advice = ": add -m to run each of them"
    if key in GROUPS:
        return advice
    if re.fullmatch(r"[-+.\deE_,\s]+", values):
        return f"{advice}, or write a list: {key}=[{values}]"
    return f"{advice}, or quote a text that has a comma: {key}='\"{values}\"'"


def _plain(value: Any) -> Any:
    """Return a value of Hydra's grammar without its marks of quotes."""
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.text if isinstance(value, QuotedString) else value
