"""Tables: what becomes of columns, and what a wrong cell is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from rootflow.data.csv_table import csv_table
from rootflow.data.facts import describe
from rootflow.data.splits import Split, Splits
from rootflow.errors import DataError

ALL = Split(val_frac=0, test_frac=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def tensors(part: Any) -> tuple[Tensor, ...]:
    assert isinstance(part, TensorDataset)
    return part.tensors


def load(path: Path, text: str, target: str = "y", **more: Any) -> Splits:
    path.write_text(text, encoding="utf-8")
    return csv_table(str(path), target, split=more.pop("split", ALL), **more)


def test_numbers_are_standardised_and_words_become_one_column_a_level(path: Path) -> None:
    splits = load(path, "a,colour,y\n1,red,no\n2,blue,yes\n3,red,no\n")
    inputs, targets = tensors(splits.train)
    expected = torch.tensor([[-(1.5**0.5), 0, 1], [0, 1, 0], [1.5**0.5, 0, 1]])
    torch.testing.assert_close(inputs, expected)
    assert targets.tolist() == [0, 1, 0]
    assert splits.class_names == ("no", "yes")
    assert splits.record["columns"] == {
        "a": {"mean": 2.0, "std": pytest.approx((2 / 3) ** 0.5)},
        "colour": {"levels": ["blue", "red"]},
    }


def test_statistics_and_levels_are_those_of_the_training_rows(path: Path) -> None:
    rows = "".join(f"{i * i},{'rare' if i == 7 else 'usual'},{i / 3}\n" for i in range(100))
    for seed in range(20):
        splits = load(path, "a,kind,y\n" + rows, split=Split(seed=seed))
        inputs, _ = tensors(splits.train)
        assert float(inputs[:, 0].mean()) == pytest.approx(0, abs=1e-6)
        assert float(inputs[:, 0].std(correction=0)) == pytest.approx(1)
        if splits.record["columns"]["kind"]["levels"] == ["usual"]:
            held_out = torch.cat([tensors(splits.val)[0], tensors(splits.test)[0]])
            assert int((held_out[:, 1] == 0).sum()) == 1
            return
    pytest.fail("the rare level was never held out")


def test_rows_keep_their_targets_whatever_part_they_are_in(path: Path) -> None:
    splits = load(path, "a,y\n" + "".join(f"{i},{i + 0.5}\n" for i in range(50)), split=Split())
    column = splits.record["columns"]["a"]
    for part in (splits.train, splits.val, splits.test):
        inputs, targets = tensors(part)
        torch.testing.assert_close(inputs[:, 0] * column["std"] + column["mean"] + 0.5, targets)


@pytest.mark.parametrize("missing", ["", "NA", "nan", "?", " null "])
def test_a_missing_cell_is_the_mean_or_no_level_at_all(path: Path, missing: str) -> None:
    inputs, _ = tensors(load(path, f"a,c,y\n1,u,0\n{missing},{missing},1\n3,v,0\n").train)
    assert inputs[1].tolist() == [0, 0, 0]
    assert inputs[:, 0].tolist() == [-1, 0, 1]


@pytest.mark.parametrize(
    ("cells", "class_names", "targets"),
    [
        (["b", "a", "b"], ("a", "b"), [1, 0, 1]),
        (["10", "9", "10"], ("9", "10"), [1, 0, 1]),
        (["1.0", "2.0", "1.0"], ("1", "2"), [0, 1, 0]),
        (["0.5", "1", "2"], None, [0.5, 1.0, 2.0]),
        ([str(i) for i in range(21)], None, list(range(21))),
        ([str(i) for i in range(20)], tuple(map(str, range(20))), list(range(20))),
    ],
)
def test_targets_are_classes_or_numbers(path: Path, cells: list[str], class_names: Any, targets: Any) -> None:
    splits = load(path, "a,y\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
    assert splits.class_names == class_names
    assert tensors(splits.train)[1].tolist() == targets
    facts = describe(splits)
    assert facts.target == ("number" if class_names is None else "class")
    assert facts.num_classes == (None if class_names is None else len(class_names))


def test_numbers_can_be_declared_categories(path: Path) -> None:
    splits = load(path, "zip,y\n8000,0.5\n9000,1.5\n8000,0.5\n", categorical=("zip", "y"))
    inputs, targets = tensors(splits.train)
    assert inputs.tolist() == [[1, 0], [0, 1], [1, 0]]
    assert targets.tolist() == [0, 1, 0]
    assert splits.class_names == ("0.5", "1.5")


@pytest.mark.parametrize(
    "text", ["a;y\n1,5;0\n2,5;1\n", "a\ty\nx y\t0\nz\t1\n", '"a, b","y"\n1,"0"\n"3",1\n']
)
def test_other_separators_quotes_and_marks_are_understood(path: Path, text: str) -> None:
    assert tensors(load(path, "\ufeff" + text).train)[1].tolist() == [0, 1]


def test_a_constant_or_empty_column_is_zero(path: Path) -> None:
    inputs, _ = tensors(load(path, "a,b,y\n5,,0\n5,,1\n").train)
    assert inputs.tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"table\.csv has 0 rows; it needs a header"),
        ("a,y\n", "has 1 rows"),
        ("a,why\n1,2\n", r"has no column 'y'\. .*Columns: a, why"),
        ("y\n1\n2\n", "no column but the target 'y'"),
        ("a,a,y\n1,2,3\n", "two columns 'a'"),
        ("a,y\n1,0\n\n1,2,3\n", "line 4 has 3 cells and the header has 2"),
        ("a,y\n1,0\n2,1\nx,0\n", "line 4, column 'a' holds 'x', which is not a finite number"),
        ("a,y\n1,0\n2,1\ninf,0\n", "line 4, column 'a' holds 'inf'"),
        ("a,y\n1,0\n2,\n", "line 3, column 'y': the target is missing"),
        ("a,y\n1,0.5\n2,2\n3,q\n", "line 4, column 'y' holds 'q'"),
        ('a,y\n"x\ny",0\n1,2,3\n', "line 4 has 3 cells"),
    ],
)
def test_what_is_wrong_with_a_table_is_named_with_its_place(path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(path, text)


def test_a_wrong_column_name_gets_the_nearest(path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'quality'\. Did you mean 'qualty'\?"):
        load(path, "a,qualty\n1,2\n2,3\n", target="quality")
    with pytest.raises(DataError, match="no column 'colour'"):
        load(path, "a,y\n1,2\n2,3\n", categorical=("colour",))


def test_a_file_that_is_no_text_or_not_there_is_named(path: Path) -> None:
    with pytest.raises(DataError, match=r"table\.csv can't be read as a table: .*No such file"):
        csv_table(str(path), "y")
    path.write_bytes(b"\xff\xfe\x00,y\n")
    with pytest.raises(DataError, match="can't be read as a table"):
        csv_table(str(path), "y")


def test_a_column_that_only_names_the_rows_is_refused(path: Path) -> None:
    text = "id,y\n" + "".join(f"row{i},{i % 2}\n" for i in range(1200))
    with pytest.raises(DataError, match=r"column 'id' holds 1,200 different words, and 1,000 is the most"):
        load(path, text)


def test_what_rounding_leaves_of_a_constant_column_is_no_variation(path: Path) -> None:
    for odd in range(0, 100, 5):  # where it is held out, the training column is constant
        rows = "".join(f"{0.2 if i == odd else 0.1},{i % 2}\n" for i in range(100))
        splits = load(path, "x,y\n" + rows, split=Split(val_frac=0.1, test_frac=0.2))
        parts = [tensors(part)[0] for part in (splits.train, splits.val, splits.test)]
        assert max(float(part.abs().max()) for part in parts) < 100
