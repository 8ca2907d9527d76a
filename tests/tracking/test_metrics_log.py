from __future__ import annotations

import json

import numpy as np
import pytest

from rootflow.tracking.metrics_log import CutRows, MetricsLog, cut_rows


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


@pytest.fixture
def log(path):
    log = MetricsLog(path)
    yield log
    log.close()


def test_a_row_is_in_the_file_when_write_returns(path, log):
    log.write({"step": 1, "train/loss": 0.5, "note": "é"})
    assert path.read_text(encoding="utf-8") == '{"step": 1, "train/loss": 0.5, "note": "é"}\n'


def test_numbers_that_are_not_finite_are_null_and_named(path, log):
    log.write({"a": float("nan"), "b": np.float32("inf"), "c": 1.0})
    assert json.loads(path.read_text()) == {
        "a": None,
        "b": None,
        "c": 1.0,
        "nonfinite": {"a": "nan", "b": "inf"},
    }


def test_numbers_of_other_libraries_are_numbers(path, log):
    log.write({"a": np.float32(0.5), "b": np.int64(2), "c": np.float64(0.25)})
    assert path.read_text() == '{"a": 0.5, "b": 2, "c": 0.25}\n'


def test_two_writers_do_not_mix_their_lines(path, log):
    other = MetricsLog(path)
    for step in range(3):
        log.write({"step": step})
        other.write({"step": -step})
    other.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 0, 1, -1, 2, -2]


def test_a_disk_that_is_full_is_an_error_not_a_lost_row():
    log = MetricsLog("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        log.write({"step": 1})
    log.close()


def test_rows_that_are_cut_off_are_kept_beside(path):
    path.write_text('{"step": 1}\n{"note": "x"}\nbroken\n{"step": 1}\n{"step": 1}')
    assert cut_rows(path, 12) == CutRows(path.with_name("metrics.cut-1.jsonl"))
    assert path.read_text() == '{"step": 1}\n'
    assert (
        path.with_name("metrics.cut-1.jsonl").read_text() == '{"note": "x"}\nbroken\n{"step": 1}\n{"step": 1}'
    )
    assert cut_rows(path, 0).path == path.with_name("metrics.cut-2.jsonl")


def test_there_may_be_nothing_to_cut_or_too_little(path):
    assert cut_rows(path, 3) == CutRows(missing_bytes=3)
    assert not path.exists()
    path.write_text("{}\n")
    assert cut_rows(path, 3) == CutRows()
    assert [other.name for other in path.parent.iterdir()] == ["metrics.jsonl"]
