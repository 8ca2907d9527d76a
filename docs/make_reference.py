"""Write docs/reference.md: every option of every group, with its keys. `make docs` runs it.

The text comes from where the code reads it: first lines of the YAML files, signatures, docstrings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rootflow.config.folders import shipped_folder
from rootflow.config.show import keys_of, options_of
from rootflow.registry import GROUPS

TARGET = Path(__file__).with_name("reference.md")
HEAD = """# Reference

Every option that ships and every key it has, written by `make docs` from the sources. `???` must be given,
`auto` is found by the machine. The same in the terminal: `rootflow list GROUP OPTION`.
"""


def reference() -> str:
    """Return the text of the page."""
    return "\n".join([HEAD, *(line for group in GROUPS for line in _group(group))])


def _group(group: str) -> Iterator[str]:
    yield f"## {group}\n"
    for option in options_of(group, extra=shipped_folder("conf")):
        yield f"### `{group}={option['option']}`\n\n{option['about']}\n"
        rows = [row for row in keys_of(group, option["option"]) if not row["key"].endswith(".name")]
        if rows:
            yield "| key | value | meaning |\n|---|---|---|"
            yield from (f"| `{row['key']}` | `{_cell(row['value'])}` | {row['about']} |" for row in rows)
            yield ""


def _cell(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value)).replace("|", "\\|")


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
