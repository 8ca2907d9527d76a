"""What Hydra, OmegaConf and YAML say about a config, as one ConfigError that names the place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import (
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.plugins.config_source import ConfigLoadError
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from rootflow.config.folders import config_folders, display_path, option_files
from rootflow.config.origin import COMMAND_LINE
from rootflow.errors import ConfigError, did_you_mean
from rootflow.registry import GROUPS, unregistered_hint

FindChoice = Callable[[str, str, str], str | None]
"""Gives the `file:line` in which a `defaults` list names an option of a group, any if it is empty; the third
is the config that Hydra was reading."""


_NO_BASE = "nothing that this starts from chooses that group; write `defaults: [rootflow, _self_]` there."


@contextmanager
def as_config_errors(
    extra: Path | None, find_choice: FindChoice, find_key: Callable[[str, str], str | None]
) -> Iterator[None]:
    """Turn what others raise about a config into one ConfigError.

    Args:
        extra: the folder of `--config-dir`.
        find_choice: for the places of options that files choose.
        find_key: gives the `file:line` of a dotted key in a config, by its path in conf/.
    """
    try:
        yield
    except OverrideParseException as error:
        raise ConfigError(_unreadable(error)) from error
    except MissingConfigException as error:
        raise ConfigError(_missing(error, extra, find_choice)) from error
    except ConfigLoadError as error:
        raise ConfigError(one_line(error)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_composition(error, find_choice, find_key)) from error
    except YAMLError as error:
        raise ConfigError(one_line(error)) from error
    except RecursionError as error:
        raise ConfigError("an override or a config file is nested too deeply to be read.") from error


def one_line(error: BaseException) -> str:
    """Return an error's text in one line; YAML's with its place."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{display_path(Path(mark.name))}:{mark.line + 1}: {error.problem}."
    return " ".join(str(error).replace("++", "").split())


def unknown_option(group: str, option: str, place: str, options: list[str]) -> str:
    """Return the mistake of choosing an option that isn't there."""
    hint = did_you_mean(option, options) + (unregistered_hint(group, option) if group in GROUPS else "")
    return f"{group} has no option {option!r} ({place}).{hint} Options: {', '.join(options) or 'none'}."


def _unreadable(error: OverrideParseException) -> str:
    given = str(error.override).removeprefix("++")
    reason = str(error).splitlines()[0]
    if given.partition("=")[0].endswith(" "):
        reason = "leave out the spaces around the ="
    elif any(given.count(opening) != given.count(closing) for opening, closing in ("[]", "{}", "()")):
        reason = "a bracket isn't closed, or not opened"
    elif "LexerNoViableAlt" in reason or "token recognition" in reason:
        key = given.partition("=")[0]
        reason = f"a character in it needs quotes: {key}='\"...\"'"
    return f"{given!r} ({COMMAND_LINE}) can't be read: {reason}."


def _missing(error: MissingConfigException, extra: Path | None, find_choice: FindChoice) -> str:
    """Say which file names an option that isn't there, and which there are."""
    missing = str(error.missing_cfg_file or "")
    group, _, option = missing.rpartition("/")
    parent = re.match(r"In '([^']*)': ", str(error))
    place = find_choice(group, option, parent[1] if parent else "") or COMMAND_LINE
    options = [name for name in (error.options or option_files(group, extra)) if not name.startswith("(")]
    if group and options:
        return unknown_option(group, option, place, options)
    searched = ", ".join(display_path(folder) for _, folder in config_folders("conf", extra))
    return f"there is no config {missing!r} ({place}) in {searched}."


def _composition(
    error: BaseException, find_choice: FindChoice, find_key: Callable[[str, str], str | None]
) -> str:
    """Say what doesn't fit together, and in which file where that is known."""
    parent = re.match(r"In '([^']*)': ", str(error))
    told = str(error).removeprefix(parent[0] if parent else "").splitlines() or [type(error).__name__]
    unused = re.match(r"Could not override '([\w/]+)(?:@[\w.]+)?'", told[0])
    if parent and unused:
        return _unused(parent[1], unused[1], find_choice)
    if parent and told[0].endswith("raised while composing config:"):
        full_key = re.search(r"full_key: (\S+)", str(error))
        place = find_key(parent[1], full_key[1]) if full_key else None
        return f"{full_key[1] if full_key else parent[1]} ({place or parent[1]}): {told[1].rstrip('.')}."
    if unused and "No match in the defaults list" in told[0]:
        return f"{unused[1]} ({COMMAND_LINE}) can't be chosen: {_NO_BASE}"
    key = re.match(r"Could not override '(hydra[\w.]*)'", told[0])
    if key:
        return f"{key[1]} ({COMMAND_LINE}) is no key of Hydra's config."
    if told[0].startswith("Could not delete"):
        absent = re.search(r"'([^']+)' does not exist", " ".join(told))
        return f"{absent[1] if absent else told[0]} can't be removed ({COMMAND_LINE}): there is no value."
    cause = str(error.__cause__).splitlines()[:1] if error.__cause__ is not None else []
    text = " ".join([told[0], *cause]).replace("++", "").rstrip(".")
    return f"{text} ({parent[1] if parent else COMMAND_LINE})."


def _unused(parent: str, group: str, find_choice: FindChoice) -> str:
    """Say why `override GROUP: option` in a file overrides nothing."""
    folder = parent.rpartition("/")[0]
    name = group.removeprefix(f"{folder}/") if folder else group
    place = find_choice(name, "", parent) or parent
    if name != group:
        return f"`override {name}` ({place}) means a group below {folder}; write `override /{name}: ...`."
    if name in GROUPS:
        return f"`override /{name}` ({place}) overrides nothing: {_NO_BASE}"
    return f"`override /{name}` ({place}): there is no group {name!r}.{did_you_mean(name, GROUPS)}"
