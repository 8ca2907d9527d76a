"""Leaving secrets out of what is recorded.

Two rules: a value whose name says that it is secret (`api_key`, `HF_TOKEN`, `db_password`), and text
that has the shape of a known credential, whatever its name. When in doubt the value is left
out: a config that needs one more key on the command line is a smaller loss than a published key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from rootflow.config.schema import REDACTED

_SECRET_NAME = re.compile(
    r"passw(?:or)?d|passphrase|secret|credential|(?:api|access|private|auth|signing)[_-]?key", re.IGNORECASE
)
# `tokens` and `tokenizer` are words of the trade, and a `pad_token` is "<pad>": the value must fit too.
_TOKEN_NAME = re.compile(r"token(?![a-z])", re.IGNORECASE)
_OPAQUE = re.compile(r"[\w.+/=~-]{8,}")

# Every part is bounded and starts at the edge of a word, so that the time is linear in the text.
_ASSIGNMENT = re.compile(
    r"""(?<![\w.-])(?P<name>[\w.-]{1,100}+)                         # api_key
        (?P<sign>["']?[ \t]*(?:(?::[ \t]*[\w.|\[\] ]{1,60}?)?=|:)[ \t]*)   # = or : or : str =
        (?P<value>"[^"\n]{1,500}"|'[^'\n]{1,500}'                  # quoted,
                 |[\w.+/~-]{8,500}={0,2}(?![\w(\[=]))              # or one opaque word""",
    re.VERBOSE,
)
_CREDENTIAL = re.compile(
    r"\b(?:gh[opsu]_|github_pat_|glpat-|hf_|sk-|xox[bp]-)[\w-]{16,}|\bAKIA[0-9A-Z]{16}\b|(?<=://)[^/\s@]+(?=@)"
)


def is_secret(name: str, value: object) -> bool:
    """Whether ``value``, found under ``name``, should not be recorded."""
    if not isinstance(value, str) or not value:
        return False
    if _SECRET_NAME.search(name):
        return True
    return bool(_TOKEN_NAME.search(name) and _OPAQUE.fullmatch(value))


def redact_values(value: Any, name: str = "") -> Any:
    """Return a copy of nested plain data in which no secret is left."""
    if isinstance(value, Mapping):
        return {key: redact_values(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_values(item, name) for item in value]
    if is_secret(name, value):
        return REDACTED
    return _CREDENTIAL.sub(REDACTED, value) if isinstance(value, str) else value


def redact_argv(argv: Iterable[str]) -> list[str]:
    """Return command line words with the values of secret `key=value` words left out."""
    words = []
    for word in argv:
        name, sign, value = word.partition("=")
        words.append(
            f"{name}={REDACTED}" if sign and is_secret(name, value) else _CREDENTIAL.sub(REDACTED, word)
        )
    return words


def redact_text(text: str) -> str:
    """Return source, YAML or a patch with secrets left out; lines keep their number and order."""
    return _CREDENTIAL.sub(REDACTED, _ASSIGNMENT.sub(_without_secret, text))


def _without_secret(match: re.Match[str]) -> str:
    value = match["value"]
    quote = value[0] if value[0] in "\"'" else ""
    # with the sign, for in `error: db_password=x` it is the sign that holds the name
    if not is_secret(match["name"] + match["sign"], value.strip(quote) if quote else value):
        return match[0]
    return f"{match['name']}{match['sign']}{quote}{REDACTED}{quote}"
