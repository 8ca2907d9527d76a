from __future__ import annotations

import json

from rootflow.runs.table import to_json, to_text, to_tsv

ROWS = [{"id": "a", "what": "lr=0.1"}, {"id": "bbb", "what": "lr=0.01 model=resnet"}]


def test_tsv_has_a_header_and_cuts_nothing():
    assert to_tsv(("id", "what"), ROWS) == "id\twhat\na\tlr=0.1\nbbb\tlr=0.01 model=resnet\n"


def test_a_cell_can_not_add_a_column_or_a_line_to_tsv():
    assert to_tsv(("id",), [{"id": "a\tb\nc"}]) == "id\na\\tb\\nc\n"


def test_text_is_aligned_without_trailing_blanks():
    assert to_text(("id", "what"), ROWS) == "id   what\na    lr=0.1\nbbb  lr=0.01 model=resnet\n"


def test_text_leaves_out_columns_without_cells():
    assert to_text(("id", "test"), [{"id": "a"}]) == "id\na\n"


def test_only_the_flexible_column_is_cut_to_the_width():
    lines = to_text(("what", "id"), ROWS, width=16, flexible="what").splitlines()
    assert lines == ["what         id", "lr=0.1       a", "lr=0.01 ...  bbb"]


def test_a_width_that_can_not_be_kept_leaves_the_columns_names():
    assert to_text(("what", "id"), ROWS, width=1, flexible="what").splitlines()[2] == "l...  bbb"


def test_escape_sequences_are_shown_not_sent():
    assert "\x1b" not in to_text(("id",), [{"id": "\x1b[2J"}])


def test_json_is_always_a_list():
    assert json.loads(to_json([])) == []
    assert json.loads(to_json(ROWS)) == ROWS
