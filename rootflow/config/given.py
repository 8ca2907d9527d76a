"""The overrides of one job, read one by one, sorted by what they do, every mistake in them noted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from hydra.core.override_parser.types import Override

from rootflow.config.composition import Compositions, parse
from rootflow.config.folders import group_names, option_files
from rootflow.config.hydra_errors import unknown_option
from rootflow.config.origin import COMMAND_LINE
from rootflow.config.overrides import check_readable
from rootflow.errors import ConfigError, shown
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


class OverrideReader:
    """Reads overrides against the groups and options that there are."""

    def __init__(self, compositions: Compositions) -> None:
        self.compositions = compositions
        self.repository = compositions.loader.repository

    def read(self, overrides: Sequence[str], *, many: bool = False) -> Given:
        """Return the overrides sorted; `many` allows several values in one."""
        given = Given()
        for text in overrides:
            try:
                self._check_has_value(text)
                check_readable(text)
                with self.compositions.config_errors():
                    override = parse(self.in_full(text))
                self._sort(override, given, many=many)
            except ConfigError as error:
                given.mistakes += error.args
        return given

    def in_full(self, override: str) -> str:
        """Write `key=value` as `++key=value`, so that the check names every unknown key at once.

        Hydra would stop at the first, without saying where the right ones are.
        """
        key = re.match(r"[\w.\-$]+(?==)", override)
        if key is None or key[0].partition(".")[0] == "hydra" or self._is_group(key[0]):
            return override
        return f"++{override}"

    def _sort(self, override: Override, given: Given, *, many: bool) -> None:
        key, line = override.key_or_group, str(override.input_line)
        typed = line.removeprefix("++")
        if not key:
            raise ConfigError(f"{typed!r} ({COMMAND_LINE}) has no key before the equals sign.")
        if key in _NOT_YOURS:
            raise ConfigError(f"{key} ({COMMAND_LINE}) {_NOT_YOURS[key]}")
        if override.is_sweep_override():
            if many:
                return
            raise ConfigError(
                f"{typed!r} ({COMMAND_LINE}) gives several values: add -m to run each of them, or quote a "
                f"text that has a comma: {key}='\"a,b\"'."
            )
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
        if group in GROUPS and override.is_add() and not override.is_force_add():
            raise ConfigError(f"+{group}={value} ({COMMAND_LINE}) adds a second {group}; leave out the +.")
        if value is None or not isinstance(value, str | list):
            self._refuse_choice(group, value)
        for option in value if isinstance(value, list) else [value]:
            if not self.repository.config_exists(f"{group}/{option}"):
                options = self.repository.get_group_options(group)
                given.mistakes.append(unknown_option(group, str(option), COMMAND_LINE, options))
                given.unknown.add(group)
        return group not in given.unknown

    def _refuse_choice(self, group: str, value: object) -> None:
        if value is None:
            instead = f"choose an option: {group}=... (`rootflow list {group}`)."
            advice = instead if group in GROUPS else f"to choose none write ~{group}."
            raise ConfigError(f"{group} is null ({COMMAND_LINE}); {advice}")
        raise ConfigError(
            f"{group} is {shown(value)} ({COMMAND_LINE}), which is no name of an option; if an option has "
            f"that name, quote it: {group}='\"{value}\"'."
        )

    def _check_has_value(self, override: str) -> None:
        if "=" in override or override.startswith("~"):
            return
        extra = self.compositions.start.extra
        meant = [
            f"{group}={override}" for group in group_names(extra) if override in option_files(group, extra)
        ]
        hint = f" Did you mean {' or '.join(meant)}?" if meant else ""
        raise ConfigError(f"{override!r} ({COMMAND_LINE}) is neither group=option nor key=value.{hint}")

    def _is_group(self, key: str) -> bool:
        return "." not in key and self.repository.group_exists(key)
