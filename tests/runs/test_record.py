from __future__ import annotations

import pytest

from rootflow.runs.record import is_alive, read_run


def test_a_run_whose_lock_is_held_is_running(make_run):
    assert read_run(make_run("a", alive=True, status="running")).status == "running"


def test_a_run_that_says_running_while_its_lock_is_free_has_crashed(make_run):
    assert read_run(make_run("a", status="running")).status == "crashed"


def test_a_run_without_a_lock_file_has_crashed(make_run):
    folder = make_run("a", status="running")
    (folder / "run.lock").unlink()
    assert read_run(folder).status == "crashed"


def test_asking_whether_a_run_lives_leaves_the_lock_free(make_run):
    record = read_run(make_run("a"))
    assert [is_alive(record.paths), is_alive(record.paths)] == [False, False]


def test_an_ended_run_keeps_its_status_and_fields(make_run):
    record = read_run(make_run("a", status="failed", best={"val/accuracy": 0.9}))
    assert (record.id, record.status, record.summary["best"]) == ("a", "failed", {"val/accuracy": 0.9})


def test_objects_and_lists_that_are_missing_or_null_read_as_empty(make_run):
    summary = read_run(make_run("a", error=None)).summary
    assert (summary["error"], summary["best"], summary["overrides"]) == ({}, {}, [])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ('{"schema": 1, "status": "run', "Unterminated"),
        ("[]", "list, not an object"),
        ("{}", "schema None"),
        ('{"schema": 2}', "schema 2"),
        ('{"schema": "1"}', "schema '1'"),
        ('{"schema": 1, "best": 5}', "best in run.json is not dict"),
        ('{"schema": 1, "overrides": {"a": 1}}', "overrides in run.json is not list"),
        ('{"schema": 1, "best": {"x": NaN}}', "NaN"),
        ('{"schema": 1, "best": {"x": 1e999}}', "1e999"),
        ("[" * 100_000, "recursion"),
        ('{"schema": 1, "name": "\udcff"}'.encode("utf-8", "surrogateescape").decode("latin-1"), None),
    ],
)
def test_a_damaged_run_json_is_a_status_not_an_exception(make_run, text, reason):
    folder = make_run("a", text=text)
    record = read_run(folder)
    if reason is not None:
        assert record.is_corrupt
        assert reason in record.status
        assert record.summary == {}


def test_bytes_that_are_no_text_are_corrupt(make_run):
    folder = make_run("a")
    (folder / "run.json").write_bytes(b'{"schema": 1, "name": "\xff"}')
    assert read_run(folder).is_corrupt


def test_a_folder_without_run_json_is_corrupt(tmp_path):
    assert "No such file" in read_run(tmp_path).status
