"""What may be different when a run goes on, and what then is no longer as if it had never stopped.

Three kinds of keys: those that may change (how long, how fast, where recorded), those that a user must allow
by name, for they change what is trained, and those that make another run of it.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rootflow.config.flat import from_flat, to_flat
from rootflow.config.schema import CHOSEN_BY_DATA, REDACTED, defaults_of, schema_of
from rootflow.errors import ConfigError, did_you_mean, shown

Verdict = Literal["free", "ask", "refuse"]


@dataclass(frozen=True)
class Rule:
    """What holds for the keys that a pattern matches; `*` stands for anything."""

    pattern: str
    verdict: Verdict
    inexact: str = ""
    """What is then not as if the run had never stopped; empty for nothing."""

    def matches(self, key: str) -> bool:
        """Whether it is about a dotted key, or about the group that the key is in."""
        return re.fullmatch(re.escape(self.pattern).replace(r"\*", ".*"), key) is not None


_OTHER_ROWS = "rows come at other steps"
_OTHER_BITS = "numbers are rounded differently"
_OTHER_TRAINING = "the training is another from here on"

RULES = (
    Rule("name", "free"),
    Rule("tracking.*", "free"),
    Rule("discover.*", "free"),
    Rule("loader.*", "free"),
    *(Rule(f"trainer.{key}", "free") for key in ("max_epochs", "max_steps", "max_samples", "max_time")),
    Rule("trainer.patience", "free"),
    Rule("trainer.save_every", "free"),
    Rule("trainer.log_every", "free", _OTHER_ROWS),
    Rule("trainer.eval_every", "free", _OTHER_ROWS),
    Rule("trainer.micro_batch_size", "free", _OTHER_BITS),
    Rule("trainer.name", "refuse"),
    Rule("trainer._target_", "refuse"),
    Rule("trainer.batch_size", "refuse"),
    *(Rule(f"trainer.{key}", "ask", _OTHER_BITS) for key in ("device", "precision", "num_threads")),
    *(Rule(f"trainer.{key}", "ask", _OTHER_BITS) for key in ("deterministic", "channels_last", "compile")),
    Rule("trainer.*", "ask", _OTHER_TRAINING),
    Rule("optimizer.name", "refuse"),
    Rule("optimizer._target_", "refuse"),
    Rule("optimizer.*", "ask", _OTHER_TRAINING),
    Rule("scheduler.*", "ask", _OTHER_TRAINING),
    Rule("task.name", "refuse"),
    Rule("task._target_", "refuse"),
    Rule("task.*", "ask", _OTHER_TRAINING),
    Rule("dataset.augment*", "ask", _OTHER_TRAINING),
    Rule("*", "refuse"),  # model, dataset, seed, init_from, and groups of the future
)
"""The first that matches a key counts."""

_DERIVED = ("scheduler",)
"""Groups whose `auto` follows from the rest of the config: a longer training has a longer schedule."""

_LIMITS = (
    ("max_steps", "step", "updates"),
    ("max_samples", "num_seen", "samples"),
    ("max_epochs", "epoch", "epochs"),
    ("max_time", "elapsed_s", "seconds"),
)


@dataclass(frozen=True)
class Judgement:
    """What was asked to be different, all of it permitted."""

    changes: dict[str, dict[str, Any]]
    """Dotted key -> {"old": ..., "new": ...}."""
    reasons: tuple[str, ...]
    """Why it isn't as if the run had never stopped."""

    def touches(self, *groups: str) -> bool:
        """Whether a key of one of the groups is different."""
        return any(key.partition(".")[0] in groups for key in self.changes)


def judge(old: Mapping[str, Any], new: Mapping[str, Any], *, run: str, allow: Collection[str]) -> Judgement:
    """Compare the config of a run with the one that it is to go on with.

    Args:
        old: nested, every value that was found in the place of its `auto`, see `with_found`.
        new: likewise.
        run: the run as the user calls it, for what to type.
        allow: keys, or groups of keys, that may be different though they change the training.

    Raises:
        ConfigError: says every difference that isn't permitted, and what would permit it.
    """
    changes = {key: {"old": before, "new": after} for key, before, after in differences(old, new)}
    _check_allowed_names(allow, {*to_flat(old), *to_flat(new)})
    rules = {key: next(rule for rule in RULES if rule.matches(key)) for key in changes}
    refused = [key for key, rule in rules.items() if rule.verdict == "refuse"]
    asked = [k for k, rule in rules.items() if rule.verdict == "ask" and not _is_allowed(k, allow)]
    mistakes = [
        f"{_told(key, changes[key])}, which would be another run. Leave it, or start one from these weights: "
        f"rootflow train --config {run} init_from={run} {_typed(key, changes[key])}"
        for key in refused
    ]
    mistakes += [
        f"{_told(key, changes[key])}, which changes what is trained. If that is wanted: "
        f"rootflow resume {run} {_typed(key, changes[key])} --allow {key}"
        for key in asked
    ]
    if mistakes:
        raise ConfigError(*mistakes)
    reasons = [f"{_told(key, changes[key])}: {rule.inexact}" for key, rule in rules.items() if rule.inexact]
    return Judgement(changes, tuple(reasons))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted keys in which two configs differ, with both values; null stands for an absent key.

    A value that the record lacks as a secret is taken to be the same.
    """
    before, after = to_flat(old), to_flat(new)
    for key in {**before, **after}:
        one, other = before.get(key), after.get(key)
        is_secret = isinstance(one, str) and REDACTED in one
        if not is_secret and _plain(one) != _plain(other):
            yield key, one, other


def asked_config(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run is asked to be: the config it began with, and what was changed at each resume."""
    flat = to_flat(summary.get("config") or {})
    for resumed in summary.get("resumes") or ():
        new = {key: change["new"] for key, change in resumed.get("changes", {}).items()}
        kept = {key: flat[key] for key in flat if not any(key.startswith(f"{above}.") for above in new)}
        flat = kept | new
    return from_flat(flat)


def with_found(config: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a config with what a run found out in the place of `auto`, so that nothing is searched again.

    A scheduler's `auto` stays: it is no finding, and follows a new length.

    Args:
        config: nested and checked.
        found: of run.json: dotted key -> {"value": ..., "reason": ...}.
    """
    values = {key: item["value"] for key, item in found.items()}
    config = {group: _chosen(group, node, values) for group, node in config.items()}
    return from_flat(
        {
            key: values[key] if value == "auto" and key in values and not _is_derived(key) else value
            for key, value in to_flat(config).items()
        }
    )


def find_limit(
    progress: Mapping[str, Any], trainer: Mapping[str, Any], *, is_time_raised: bool = False
) -> str | None:
    """Return what to raise for a training that has used up its length to go on; None if it hasn't.

    Args:
        progress: of the checkpoint, with `elapsed_s`.
        trainer: the node of the config that it is to go on with.
        is_time_raised: whether its max_time is more than that by which the training ended, which may have
            been a little before it: a cooldown is planned to end in time.
    """
    is_time_up = progress.get("stop_reason", "").startswith("max_time") and not is_time_raised
    for key, done, unit in _LIMITS:
        limit, reached = trainer.get(key), progress.get(done, 0)
        if not isinstance(limit, int | float) or (reached < limit and not (key == "max_time" and is_time_up)):
            continue
        if key == "max_epochs" and reached == limit and _is_within_epoch(progress):
            continue
        told = f"trainer.{key} is {limit:g}, and {reached:g} {unit} are done"
        return f"{told}; raise it, e.g. trainer.{key}={2 * (limit if 2 * limit > reached else reached):g}"
    return None


def environment_reasons(
    recorded: Mapping[str, Any], present: Mapping[str, Any], *, recorded_patch: str, present_patch: str
) -> list[str]:
    """Return in what the code and the machine differ from those that a run began on.

    Args:
        recorded: run.json, of which `versions`, `hardware` and `git` are compared.
        present: the same fields, looked up now.
        recorded_patch: what was not committed then.
        present_patch: what is not now.
    """
    then, now = recorded.get("versions") or {}, present.get("versions") or {}
    pairs = {name: (then[name], now[name]) for name in then if name in now}
    for name, part, field in (
        ("processor", "hardware", "cpu"),
        ("GPUs", "hardware", "gpus"),
        ("git commit", "git", "commit"),
    ):
        one, other = ((side.get(part) or {}).get(field) for side in (recorded, present))
        pairs[name] = one, other
    if recorded.get("git") or present.get("git"):
        pairs["uncommitted code"] = _digest(recorded_patch), _digest(present_patch)
    return [_differs(name, *pair) for name, pair in pairs.items() if pair[0] != pair[1]]


def data_differences(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """Return in what a data set differs from the one that a run began with, but for a mean's last digits."""
    before, after = to_flat(recorded), to_flat(present)
    return [
        _differs(key, before.get(key), after.get(key))
        for key in {**before, **after}
        if not _is_close(_plain(before.get(key)), _plain(after.get(key)))
    ]


def patch_without(patch: str, folder: str) -> str:
    """Return a patch without the files of one folder: runs, which aren't code, may lie in the repository."""
    parts = re.split(r"^(?=diff --git |# left out: )", patch, flags=re.MULTILINE)
    head = re.compile(rf"diff --git a/{re.escape(folder)}/|# left out: {re.escape(folder)}/")
    return "".join(part for part in parts if not head.match(part))


def _check_allowed_names(allow: Collection[str], keys: Collection[str]) -> None:
    known = {*keys, *(key.rpartition(".")[0] for key in keys), *(key.partition(".")[0] for key in keys)}
    mistakes = [
        f"--allow {name} (command line): there is no such key.{did_you_mean(name, known)}"
        for name in allow
        if name not in known
    ]
    if mistakes:
        raise ConfigError(*mistakes)


def _is_allowed(key: str, allow: Collection[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in allow)


def _told(key: str, change: Mapping[str, Any]) -> str:
    return _differs(key, change["old"], change["new"])


def _differs(name: str, before: Any, after: Any) -> str:
    return f"{name} was {_short(before)} and is now {_short(after)}"


def _typed(key: str, change: Mapping[str, Any]) -> str:
    return f"{key}={shown(change['new']).strip(chr(39))}"


def _short(value: Any) -> str:
    text = shown(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _is_close(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_close, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-12)
    return bool(one == other)


def _chosen(group: str, node: Any, values: Mapping[str, Any]) -> Any:
    """Return the node of a component that was chosen when the data was known, with its defaults."""
    is_open = group in CHOSEN_BY_DATA and isinstance(node, Mapping) and node.get("name") == "auto"
    if not is_open or f"{group}.name" not in values:
        return node
    chosen = {"name": values[f"{group}.name"]}
    schema = schema_of(group, chosen)
    return chosen | (defaults_of(schema) if schema else {})


def _is_derived(key: str) -> bool:
    return key.partition(".")[0] in _DERIVED


def _is_within_epoch(progress: Mapping[str, Any]) -> bool:
    return progress.get("phase") == "training"


def _digest(patch: str) -> str:
    return hashlib.sha256(patch.encode()).hexdigest()[:12] if patch else "none"
