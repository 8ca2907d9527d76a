"""Every way in which values arrive on the command line, each turned into Hydra's overrides.

Overrides as typed, `--key=value` as W&B sweeps write them, a JSON object, the parameters of a sweep's
agent, and short names. What a value was in JSON or YAML it is in the config: text stays text, `1e3` and
`${x}` too; only `???` is Hydra's mark for a missing value wherever it stands.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from rootflow.config.origin import COMMAND_LINE
from rootflow.config.plain_yaml import escaped
from rootflow.config.schema import ALIASES
from rootflow.errors import ConfigError
from rootflow.registry import GROUPS

SWEEP_FILE = "WANDB_SWEEP_PARAM_PATH"
"""The environment variable by which W&B's agent names the file of a run's parameters."""

JSON_FLAG = "--overrides-json"

MAX_LENGTH, MAX_KEY_LENGTH, MAX_DEPTH, MAX_PARTS = 10_000, 200, 20, 2_000
"""Of an override: characters; characters of its key, which Hydra looks for among files; levels, which are
dots of the key and brackets in brackets; values and other parts. Hydra's time to read a list grows with the
square of its length, OmegaConf's recursion with its depth."""

_WORD = re.compile(r"(?!(?i:true|false|null|nan|inf)\Z)[A-Za-z_][A-Za-z0-9_-]*")
"""Text that needs no quotes."""

_KEY = re.compile(r"[A-Za-z_][\w-]*(?:[./][\w-]+)*(?:@[\w.-]*)?", re.ASCII)
_DICT_KEY = re.compile(r"[\w/+.$%*@?|-]+", re.ASCII)
_HYPHENED = re.compile(rf"(--{_KEY.pattern})=", re.ASCII)
_TYPED = re.compile(r"(~|\+{0,2})([^=]*)(?:=\s*(.*))?", re.DOTALL)
_QUOTED = re.compile(r"\"(?:\\.|[^\"\\])*(?:\"|\Z)|'(?:\\.|[^'\\])*(?:'|\Z)", re.DOTALL)


def split_arguments(argv: Sequence[str], flags: Collection[str]) -> list[str]:
    """Return the arguments with W&B's `--key=value` written as `key=value`, unless `--key` is a flag.

    Args:
        argv: what follows the verb. Nothing after a bare `--` is changed.
        flags: the verb's own, with their hyphens.
    """
    end = list(argv).index("--") if "--" in argv else len(argv)
    return [_without_hyphens(argument, flags) for argument in argv[:end]] + list(argv[end:])


def read_overrides(
    positional: Sequence[str], *, json: str | None = None, environ: Mapping[str, str]
) -> list[str]:
    """Return the overrides of a command line in Hydra's grammar, with keys in full.

    Args:
        positional: `key=value` as typed, W&B's hyphens removed by `split_arguments`.
        json: the value of `--overrides-json`: a JSON object, or the file that holds one.
        environ: the environment. The parameters that W&B's agent names in it replace the same keys of
            the others, for on the command line the agent writes them as Python's `str` does.

    Raises:
        ConfigError: one of them can't be read, or two of them give the same key.
    """
    agent = _agent_file(environ)
    given = [_typed(override) for override in positional]
    if json is not None:
        place, values = _read_json(json)
        given += _given(_without_recorded(values, agent), place)
    swept = _given(_without_recorded(agent, agent), environ.get(SWEEP_FILE, ""))
    kept = [one for one in given if not _is_replaced(one, swept, agent)]
    for one, other in (*combinations(kept, 2), *combinations(swept, 2)):
        if _is_same_setting(one, other):
            raise ConfigError(
                f"{max(one.key, other.key, key=len)} is given as {one.spelled} ({one.place}) and as "
                f"{other.spelled} ({other.place}); leave one out."
            )
    return [one.override for one in (*kept, *swept)]


def sweep_parameters(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the parameters that W&B's agent gave this process, None where there is no agent.

    A run that W&B starts again after a preemption gets as parameters all that it recorded. Of that, whole
    components (`model: {name: ..., ...}`) are left out: they follow again from the command, the config
    files and the sweep's own parameters, which are there by their own names.

    Raises:
        ConfigError: the file that the environment names is missing or isn't what the agent writes.
    """
    agent = _agent_file(environ)
    return _without_recorded(agent, agent) if environ.get(SWEEP_FILE) else None


def check_readable(override: str) -> None:
    """Check that Hydra can read an override within a moment; to be called before it does.

    Raises:
        ConfigError: it is too long, nested too deeply, or holds what no text or file name can.
    """
    if "\0" in override or not _is_text(override):
        raise _unreadable(override, "has a character that no text file can hold")
    if len(override) > MAX_LENGTH:
        raise _unreadable(override, f"is {len(override)} characters long; at most {MAX_LENGTH} can be read")
    bare = _QUOTED.sub('""', override)
    key, _, value = bare.partition("=")
    if len(key) > MAX_KEY_LENGTH:
        raise _unreadable(override, f"has {len(key)} characters of key; at most {MAX_KEY_LENGTH} can be read")
    if (parts := sum(map(value.count, ",:="))) > MAX_PARTS:
        raise _unreadable(override, f"has {parts} parts; at most {MAX_PARTS} can be read")
    if (depth := key.count(".") + _depth(value)) > MAX_DEPTH:
        raise _unreadable(override, f"has {depth} levels; at most {MAX_DEPTH} can be read")
    if re.search(r"[\d_]{4000}", value):
        raise _unreadable(override, "has a number of 4000 digits or more; write text in quotes")


def quoted(value: Any) -> str:
    """Return a value as Hydra's grammar writes it; text that looks like something else stays text.

    Args:
        value: None, a bool, a number, text, or a list, tuple or dict of those.

    Raises:
        ConfigError: it is something else, or a dict's key can't be written in that grammar.
    """
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case float():
            return repr(value) if math.isfinite(value) else str(value)
        case str():
            return value if _WORD.fullmatch(value) else _in_quotes(value)
        case list() | tuple():
            return f"[{','.join(map(quoted, value))}]"
        case dict():
            return f"{{{','.join(f'{_dict_key(key)}:{quoted(inner)}' for key, inner in value.items())}}}"
    raise ConfigError(f"{value!r} must be text, a number, true, false, null, a list or a mapping.")


@dataclass(frozen=True)
class _Given:
    """One override, and how it was given."""

    key: str
    """In full."""
    spelled: str
    override: str
    place: str
    is_dict: bool

    def covers(self, key: str) -> bool:
        """Whether it sets the whole of a part that ``key`` is in, rather than chooses an option."""
        return key.startswith(self.key + ".") and (self.is_dict or self.key not in GROUPS)


def _without_hyphens(argument: str, flags: Collection[str]) -> str:
    found = _HYPHENED.match(argument)
    return argument[2:] if found and found[1] not in flags else argument


def _typed(override: str) -> _Given:
    found = _TYPED.fullmatch(override)
    assert found is not None
    sign, name, value = found.groups()
    key = ALIASES.get(name, name)
    in_full = sign + key + override[len(sign) + len(name) :]
    return _Given(key, name, in_full, COMMAND_LINE, is_dict=(value or "").startswith("{"))


def _given(values: Mapping[str, Any], place: str) -> list[_Given]:
    with _naming(place):
        return [
            _Given(key := _in_full(name), name, f"{key}={quoted(value)}", place, isinstance(value, dict))
            for name, value in _leaves(values)
        ]


def _leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and their values; a mapping with keys that can't be dotted is a value."""
    for key, value in values.items():
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise ConfigError(f"the key {key!r} is no setting; it must be like `seed` or `optimizer.lr`.")
        if isinstance(value, dict) and value and all(_is_word(inner) for inner in value):
            yield from _leaves({f"{_in_full(key)}.{inner}": below for inner, below in value.items()})
        else:
            yield key, value


def _in_full(name: str) -> str:
    return ALIASES.get(name, name)


def _is_word(key: object) -> bool:
    return isinstance(key, str) and _WORD.fullmatch(key) is not None


def _is_same_setting(one: _Given, other: _Given) -> bool:
    if one.place == other.place == COMMAND_LINE and one.spelled == other.spelled:
        return False  # the later one counts, as everywhere on a command line
    if one.key == other.key:
        return True
    return one.place != other.place and (one.covers(other.key) or other.covers(one.key))


def _is_replaced(one: _Given, swept: Sequence[_Given], agent: Mapping[str, Any]) -> bool:
    if any(one.key == other.key for other in swept):
        return True
    return one.is_dict and isinstance(agent.get(one.spelled), dict)


def _agent_file(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return all that the agent's file holds, by name; nothing where there is no agent."""
    path = environ.get(SWEEP_FILE)
    if not path:
        return {}
    hint = f"{SWEEP_FILE} names it: start rootflow by `wandb agent`, or unset that variable."
    try:
        entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}. {hint}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is broken: {' '.join(str(error).split())}. {hint}") from error
    if not isinstance(entries, dict):
        raise ConfigError(f"{path} is no mapping of parameters. {hint}")
    entries.pop("wandb_version", None)
    for key, entry in entries.items():
        if not isinstance(entry, dict) or "value" not in entry:
            raise ConfigError(f"{path}: {key} has no `value`. {hint}")
    return {key: entry["value"] for key, entry in entries.items()}


def _without_recorded(values: Mapping[str, Any], agent: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what, by the agent's file, isn't a parameter but a record of the run itself."""
    if "_wandb" not in agent:  # every run has it in its config, no sweep in its parameters
        return dict(values)
    wholes = {k for k, v in agent.items() if isinstance(v, dict) and {"name", "_target_"} & v.keys()}
    return {key: value for key, value in values.items() if key not in {"_wandb", *wholes}}


def _read_json(given: str) -> tuple[str, dict[str, Any]]:
    is_inline = given.lstrip().startswith("{")
    place = JSON_FLAG if is_inline else given
    try:
        text = given if is_inline else Path(given).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        told = f"{JSON_FLAG} {given!r} is no JSON object, nor a file that can be read"
        raise ConfigError(f'{told}; give {{"optimizer.lr": 0.1}} or such a file.') from error
    with _naming(place):
        try:
            values = json.loads(text, object_pairs_hook=_unique)
        except json.JSONDecodeError as error:
            told = f"line {error.lineno}, column {error.colno} is not JSON: {error.msg}."
            raise ConfigError(told) from error
        except ValueError as error:
            raise ConfigError(f"{error}.") from error
        if not isinstance(values, dict):
            raise ConfigError('holds no JSON object; it must be like {"optimizer.lr": 0.1}.')
    return place, values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"the key {twice!r} is given twice; leave one out.")
    return values


@contextmanager
def _naming(place: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{place}: is nested too deeply to be read.") from error


def _in_quotes(text: str) -> str:
    text = re.sub(r'(?<!\\)(\\*)"', r"\1\1\"", escaped(text))
    text = re.sub(r"(?<!\\)(\\+)\Z", r"\1\1", text)  # Hydra halves backslashes before a quote only
    return f'"{text}"'


def _dict_key(key: Any) -> str:
    if isinstance(key, str) and _DICT_KEY.fullmatch(key) and not _is_reserved(key):
        return key
    raise ConfigError(f"the key {key!r} can't be written in Hydra's grammar: it must be a name.")


def _is_reserved(key: str) -> bool:
    try:
        float(key)
    except ValueError:
        return key.lower() in ("true", "false", "null")
    return True


def _is_text(override: str) -> bool:
    try:
        override.encode()
    except UnicodeEncodeError:
        return False  # half a pair of surrogates: from JSON, or from bytes in argv that aren't UTF-8
    return True


def _depth(value: str) -> int:
    depth = deepest = 0
    for bracket in re.findall(r"[(\[{}\])]", value):
        depth += 1 if bracket in "([{" else -1
        deepest = max(deepest, depth)
    return deepest


def _unreadable(override: str, told: str) -> ConfigError:
    shown = override if len(override) <= 40 else f"{override[:40]}..."
    return ConfigError(f"{shown!r} ({COMMAND_LINE}) {told}.")
