"""Every error that rootflow raises on purpose.

RootflowError            printed as `error: ...` without a traceback, exit 1
    ConfigError          the experiment cannot be run as written, exit 2
    DataError            a data set is missing, damaged or not what it says
    RunError             a run folder, or the run in it, is not usable
    CheckpointError      a checkpoint is missing, damaged or of another model
    DivergedError        the loss stopped being finite

A message states the fact with its value and place, then what is allowed, then what to do.
Anything else that escapes is a bug in rootflow and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RootflowError(Exception):
    """An error whose message is all that the user needs."""

    exit_code = 1


class ConfigError(RootflowError):
    """The experiment cannot be run as it is written; no update was made. Its `args` are all the mistakes."""

    exit_code = 2

    def __str__(self) -> str:
        """Return the mistake, or a list of them."""
        mistakes = [str(mistake) for mistake in self.args]
        if len(mistakes) < 2:
            return "".join(mistakes)
        listed = (mistake.replace("\n", "\n    ") for mistake in mistakes)
        return "\n".join([f"the config has {len(mistakes)} mistakes:", *(f"  - {m}" for m in listed)])


class DataError(RootflowError):
    """A data set is missing, damaged or not what its settings say."""


class RunError(RootflowError):
    """A run folder is not usable, or a run cannot go on."""


class CheckpointError(RootflowError):
    """A checkpoint is missing, damaged, or was saved by another model."""


class DivergedError(RootflowError):
    """The loss is no longer a finite number."""


def shown(value: object) -> str:
    """Return a value as YAML and the command line spell it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the names nearest to ``word``, or an empty string."""
    likeness = {name: difflib.SequenceMatcher(a=_plain(word), b=_plain(name)).ratio() for name in names}
    best = max(likeness.values(), default=0.0)
    near = [name for name, ratio in likeness.items() if ratio >= max(0.55, best - 0.05)][:2]
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def _plain(word: str) -> str:
    """Return a word without what people spell differently: AdamW, adam_w."""
    return word.lower().replace("_", "").replace("-", "")
