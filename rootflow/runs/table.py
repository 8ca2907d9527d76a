"""A table for people (aligned), for pipes (TSV) and for programs (JSON).

Cells are escaped in every form, so that a name from elsewhere can't move the cursor or add a column.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from rootflow.runs.text import escape

Row = Mapping[str, str]
"""Column name to cell; a missing cell is empty."""


def to_tsv(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """Return a header and one line a row, cells parted by tabs; nothing is cut."""
    lines = [list(columns), *([escape(row.get(name, "")) for name in columns] for row in rows)]
    return "".join("\t".join(line) + "\n" for line in lines)


def to_json(objects: Sequence[Mapping[str, object]]) -> str:
    """Return a JSON list, one object a line, always valid JSON."""
    lines = ",\n".join(json.dumps(dict(item), allow_nan=False) for item in objects)
    return f"[\n{lines}\n]\n" if lines else "[]\n"


def to_text(
    columns: Sequence[str], rows: Sequence[Row], *, width: int | None = None, flexible: str = ""
) -> str:
    """Return aligned columns, two spaces apart.

    Args:
        columns: names, in order; a column with no cell in any row is left out.
        rows: the cells.
        width: characters a line may have; None for as many as it takes.
        flexible: the column that is cut to keep to ``width``; the others never are.
    """
    cells = [{name: escape(row.get(name, "")) for name in columns} for row in rows]
    shown = [name for name in columns if any(row[name] for row in cells)]
    widths = {name: max(len(name), *(len(row[name]) for row in cells)) for name in shown}
    if width is not None and flexible in widths:
        excess = sum(widths.values()) + 2 * (len(shown) - 1) - width
        widths[flexible] = max(len(flexible), min(widths[flexible], widths[flexible] - excess))
    lines = [{name: name for name in shown}, *cells]
    return "".join(_line(line, widths) for line in lines)


def _line(cells: Row, widths: Mapping[str, int]) -> str:
    return "  ".join(_cut(cells[name], size).ljust(size) for name, size in widths.items()).rstrip() + "\n"


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 3] + "..."
