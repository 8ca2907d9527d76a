from __future__ import annotations

import io
import logging
import subprocess
import sys

import pytest

from rootflow.tracking.output_log import OutputLog


@pytest.fixture
def path(tmp_path):
    return tmp_path / "output.log"


@pytest.fixture
def log(path):
    log = OutputLog(path)
    yield log
    log.close()


def test_what_is_printed_goes_on_and_is_copied(path, log, capsys):
    before = sys.stdout, sys.stderr
    with log.capturing():
        print("to stdout")
        print("to stderr", file=sys.stderr)
        sys.stdout.writelines(["a\n", "b\n"])
    print("after")
    assert (sys.stdout, sys.stderr) == before
    assert path.read_text() == "to stdout\nto stderr\na\nb\n"
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("to stdout\na\nb\nafter\n", "to stderr\n")


def test_warnings_and_the_tracebacks_of_threads_are_copied(path):
    code = """
import pathlib, sys, threading, warnings
from rootflow.tracking.output_log import OutputLog
with OutputLog(pathlib.Path(sys.argv[1])).capturing():
    warnings.warn("watch out")
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
"""
    subprocess.run([sys.executable, "-W", "always", "-c", code, str(path)], capture_output=True, check=True)
    assert "UserWarning: watch out" in path.read_text()
    assert "ZeroDivisionError: division by zero\n" in path.read_text()


def test_log_records_of_handlers_made_before_are_copied_and_the_handlers_given_back(path, log):
    root, stream = logging.getLogger(), sys.stderr
    handler = logging.StreamHandler(stream)
    root.addHandler(handler)
    try:
        with log.capturing():
            root.warning("from a logger")
    finally:
        root.removeHandler(handler)
    assert path.read_text() == "from a logger\n"
    assert handler.stream is stream


def test_a_line_is_copied_when_it_is_whole_or_the_block_ends(path, log):
    with log.capturing():
        print("half", end="")
        assert path.read_text() == ""
        print(" and half")
        assert path.read_text() == "half and half\n"
        print("the end", end="")
    assert path.read_text() == "half and half\nthe end\n"


def test_of_an_overwritten_line_only_the_last_state_is_copied(path, log):
    with log.capturing():
        for percent in range(0, 101, 10):
            sys.stderr.write(f"\r{percent}%|####|")
        sys.stderr.write("\nwindows line\r\n")
    assert path.read_text() == "100%|####|\nwindows line\n"


def test_a_bar_that_never_ends_its_line_takes_no_memory(log):
    with log.capturing():
        for _ in range(100):
            sys.stdout.write("\r" + "x" * 100)
        assert len(sys.stdout._line) <= 202


def test_text_that_the_terminal_can_not_show_stops_nothing(path, log, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    with log.capturing():
        print("é \udcff")
        sys.stdout.flush()
    assert terminal.buffer.getvalue() == b"\\xe9 \\udcff\n"
    assert path.read_text(encoding="utf-8") == "é ?\n"


def test_the_copy_answers_for_the_stream_it_stands_for(log, open_terminal, monkeypatch):
    terminal = open_terminal()
    monkeypatch.setattr(sys, "stdout", terminal.stream)
    with log.capturing():
        assert sys.stdout.isatty()
        assert sys.stdout.fileno() == terminal.stream.fileno()
        assert sys.stdout.encoding == "utf-8"


def test_a_stream_put_in_place_meanwhile_is_left_there(log, monkeypatch):
    mine = io.StringIO()
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    with log.capturing():
        sys.stdout = mine
    assert sys.stdout is mine


def test_printing_after_the_log_was_closed_still_prints(log, capsys):
    with log.capturing():
        copy = sys.stdout
        log.close()
        print("late", file=copy)
    assert capsys.readouterr().out == "late\n"
