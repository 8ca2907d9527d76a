"""Tables from text files with a header: numbers standardised, categories one-hot.

Everything that is learned from the table (means, scales, levels) is learned from the training rows alone
and written into the record of the split, so that new rows can be encoded alike.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset

from rootflow.data.facts import CONSTANT_BELOW
from rootflow.data.splits import Split, Splits, split_dataset
from rootflow.errors import DataError, did_you_mean
from rootflow.registry import register

_MISSING = {"", "?", "na", "n/a", "nan", "none", "null"}
_MAX_CLASSES_OF_NUMBERS = 20
"""Whole-number targets with at most so many values are classes; with more they are quantities."""

_MAX_LEVELS = 1000


@register("dataset", "csv")
def csv_table(
    path: str, target: str, *, categorical: tuple[str, ...] | None = None, split: Split = Split()
) -> Splits:
    """A table in a text file with a header, separated by comma, semicolon or tab.

    A numeric column is standardised, a missing number becomes its mean. A categorical column becomes one
    column for each level; a missing or unseen level is 0 in all of them. Targets that are words, or whole
    numbers of at most 20 values, are classes; other numbers are what a regression predicts.

    Args:
        path: the file
        target: the column to predict
        categorical: columns of categories, the target too if it is to be classes; null: those of words

    Raises:
        DataError: the file can't be read as a table, a column doesn't exist, or a cell is not a number
            in a column of numbers.
    """
    data = read_table(Path(path).expanduser())
    for name in (target, *(categorical or ())):
        data.check_column(name)
    names = [name for name in data.columns if name != target]
    if not names:
        raise DataError(
            f"{data.path} has no column but the target {target!r}; there is nothing to predict it from."
        )

    targets, class_names = _encode_target(data, target, is_class=target in (categorical or ()))
    rows = TensorDataset(torch.arange(len(targets)), targets)
    splits = split_dataset(Splits(train=rows, class_names=class_names, normalize=False), split=split)
    train_rows = splits.train.tensors[0].numpy()  # type: ignore[attr-defined]

    encoded = {name: _encode_column(data, name, train_rows, categorical) for name in names}
    inputs = torch.from_numpy(np.concatenate([block for block, _ in encoded.values()], axis=1))
    parts: dict[str, Any] = {
        part: TensorDataset(inputs[found.tensors[0]], found.tensors[1])
        for part in ("train", "val", "test")
        if (found := getattr(splits, part)) is not None
    }
    source = {data.path.name: {"num_rows": len(targets), "target": target}}
    columns = {name: description for name, (_, description) in encoded.items()}
    return replace(splits, **parts, record={**splits.record, "source": source, "columns": columns})


@dataclass(frozen=True)
class Table:
    """The cells of a table, by column, with the line of each row in its file."""

    path: Path
    columns: dict[str, tuple[str, ...]]
    lines: list[int]

    def check_column(self, name: str) -> None:
        """Raise a `DataError` if there is no such column."""
        if name not in self.columns:
            raise DataError(
                f"{self.path} has no column {name!r}.{did_you_mean(name, self.columns)} "
                f"Columns: {', '.join(self.columns)}."
            )

    def place(self, name: str, row: int) -> str:
        """Return the words for a cell's place in the file."""
        return f"{self.path} line {self.lines[row]}, column {name!r}"


def read_table(path: Path) -> Table:
    """Read a text file with a header.

    Raises:
        DataError: it is missing, empty, or has a row of another length than its header.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=header.count))
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} can't be read as a table: {error}") from error
    if len(rows) < 2:
        raise DataError(f"{path} has {len(rows)} rows; it needs a header and at least one row.")
    names = rows[0][1]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise DataError(f"{path} has two columns {repeated[0]!r}; rename one.")
    for line, row in rows:
        if len(row) != len(names):
            raise DataError(f"{path} line {line} has {len(row)} cells and the header has {len(names)}.")
    cells = zip(*(row for _, row in rows[1:]), strict=True)
    return Table(path, dict(zip(names, cells, strict=True)), [line for line, _ in rows[1:]])


def _encode_target(data: Table, name: str, *, is_class: bool) -> tuple[torch.Tensor, tuple[str, ...] | None]:
    """Return the targets, and the names of the classes if they are classes."""
    cells = data.columns[name]
    for row, cell in enumerate(cells):
        if _is_missing(cell):
            raise DataError(f"{data.place(name, row)}: the target is missing. Fill it in or delete the row.")
    if is_class or not _holds_numbers(cells):
        return _encode_classes(data, name, sorted(set(cells)))
    values = _read_numbers(data, name)
    levels = np.unique(values)
    if len(levels) > _MAX_CLASSES_OF_NUMBERS or (levels % 1).any():
        return torch.from_numpy(values.astype(np.float32)), None
    return torch.from_numpy(np.searchsorted(levels, values)), tuple(str(int(level)) for level in levels)


def _encode_classes(data: Table, name: str, levels: Sequence[str]) -> tuple[torch.Tensor, tuple[str, ...]]:
    _check_levels(data, name, levels)
    numbers = {level: number for number, level in enumerate(levels)}
    return torch.tensor([numbers[cell] for cell in data.columns[name]]), tuple(levels)


def _encode_column(
    data: Table, name: str, train_rows: NDArray[np.int64], categorical: Sequence[str] | None
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Return a column as features (row, feature), and how they came about."""
    cells = data.columns[name]
    is_numeric = _holds_numbers(cells) if categorical is None else name not in categorical
    if is_numeric:
        values = _read_numbers(data, name)
        known = values[train_rows][~np.isnan(values[train_rows])]
        mean, std = (float(known.mean()), float(known.std())) if len(known) else (0.0, 0.0)
        std = std if std > CONSTANT_BELOW * abs(mean) else 1.0  # what rounding leaves is no variation
        scaled = np.nan_to_num((values - mean) / std)  # a missing number becomes 0, the mean
        return scaled[:, None].astype(np.float32), {"mean": mean, "std": std}
    levels = sorted({cells[row] for row in train_rows if not _is_missing(cells[row])})
    _check_levels(data, name, levels)
    one_hot = np.array(cells)[:, None] == np.array(levels)[None, :]
    return one_hot.astype(np.float32), {"levels": levels}


def _check_levels(data: Table, name: str, levels: Sequence[str]) -> None:
    if len(levels) > _MAX_LEVELS:
        raise DataError(
            f"{data.path}, column {name!r} holds {len(levels):,} different words, and {_MAX_LEVELS:,} is the "
            "most that is taken as categories. Delete the column if it only names the rows."
        )


def _holds_numbers(cells: Sequence[str]) -> bool:
    """Whether a column is one of numbers: if at least half of its cells are; the others are then mistakes."""
    known = [cell for cell in cells if not _is_missing(cell)]
    return 2 * sum(_number(cell) is not None for cell in known) >= len(known)


def _read_numbers(data: Table, name: str) -> NDArray[np.float64]:
    """Return a column as numbers, NaN where a cell is empty."""
    values = np.full(len(data.lines), math.nan)
    for row, cell in enumerate(data.columns[name]):
        if not _is_missing(cell):
            value = _number(cell)
            if value is None:
                raise DataError(
                    f"{data.place(name, row)} holds {cell!r}, which is not a finite number. Correct it, "
                    "or name the column in dataset.categorical."
                )
            values[row] = value
    return values


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _is_missing(cell: str) -> bool:
    return cell.lower() in _MISSING
