from __future__ import annotations

import subprocess
import sys
import time

import pytest

from rootflow.tracking import console as console_module
from rootflow.tracking.console import Console
from rootflow.tracking.output_log import OutputLog


@pytest.fixture
def at_once(monkeypatch):
    """Both faces show each call of `progress`."""
    monkeypatch.setattr(console_module, "_PAUSE_PER_DRAWING", 0)
    monkeypatch.setattr(console_module._Bars, "every_s", 0.0)
    monkeypatch.setattr(console_module._Heartbeat, "every_s", 0.0)


@pytest.fixture
def log(tmp_path):
    log = OutputLog(tmp_path / "output.log")
    yield log
    log.close()


def step(console: Console, number: int, *, batch_size: int | None = 32) -> None:
    console.progress(2, 40, step=number, steps_per_epoch=100, loss=0.25, batch_size=batch_size)


def test_an_epoch_is_one_plain_line(capsys):
    with Console.open() as console:
        console.epoch(
            3, 40, metrics={"train/loss": 0.12341, "val/accuracy": 0.9123, "lr": 1e-4}, seconds=1.23
        )
        console.epoch(4, None, metrics={}, seconds=200)
    assert capsys.readouterr().out == (
        "epoch 3/40  train/loss 0.1234  val/accuracy 0.9123  lr 1.00e-04  1.2 s\nepoch 4  3 min 20 s\n"
    )


def test_an_auto_setting_is_one_line_with_its_reason(capsys):
    Console.open().setting("trainer.batch_size", 32, "the largest that fits")
    Console.open().setting("optimizer.lr", 0.0123456, "steepest descent")
    assert capsys.readouterr().out == (
        "trainer.batch_size=32  the largest that fits\noptimizer.lr=0.0123  steepest descent\n"
    )


def test_plain_lines_are_ascii_without_escape_sequences(capsys):
    Console.open().line("é \x1b[31m\r")
    assert capsys.readouterr().out == "\\xe9 \\x1b[31m\\r\n"


def test_a_line_is_there_at_once_also_in_a_buffered_file(tmp_path, monkeypatch):
    with (tmp_path / "job.out").open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        Console.open().line("x" * 300)
        assert (tmp_path / "job.out").read_text() == "x" * 300 + "\n"


def test_plain_progress_is_silent_until_the_heartbeat(capsys):
    console = Console.open()
    for number in range(1, 101):
        step(console, number)
    assert capsys.readouterr().out == ""


def test_a_heartbeat_says_where_the_run_is_and_how_fast(capsys, at_once):
    console = Console.open()
    step(console, 1)
    step(console, 2)
    step(console, 3, batch_size=None)
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "epoch 2/40  step 1/100  loss 0.2500"
    assert second.startswith("epoch 2/40  step 2/100  loss 0.2500  ")
    assert second.endswith(" samples/s")
    assert third.endswith(" steps/s")


def test_the_speed_is_over_the_steps_since_the_last_one_shown(capsys, monkeypatch):
    console = Console.open()
    step(console, 10)
    console._next_s = 0.0
    step(console, 20, batch_size=None)
    line = capsys.readouterr().out
    assert "step 20/100" in line
    assert "steps/s" in line


@pytest.mark.parametrize("variable", [("CI", "true"), ("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_can_be_told_to_be_plain(open_terminal, monkeypatch, at_once, variable):
    terminal = open_terminal()
    monkeypatch.setenv(*variable)
    monkeypatch.setattr(sys, "stdout", terminal.stream)
    with Console.open() as console:
        step(console, 1)
    assert terminal.shown() == "epoch 2/40  step 1/100  loss 0.2500\r\n"


def test_plain_consoles_never_load_rich():
    code = (
        "import sys; from rootflow.tracking.console import Console; Console.open().line('a');"
        "assert 'rich' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""


def test_a_terminal_gets_bars_and_the_cursor_back(open_terminal, monkeypatch, at_once):
    terminal = open_terminal()
    monkeypatch.setattr(sys, "stdout", terminal.stream)
    with Console.open() as console:
        step(console, 50)
        shown = terminal.shown()
    for part in ("epoch", "/40", "step", "50/100", "loss 0.2500", "\x1b[?25l"):
        assert part in shown
    assert "\x1b[?25h" in terminal.shown()
    assert sys.stdout is terminal.stream


def test_the_cursor_comes_back_when_the_block_is_interrupted(open_terminal, monkeypatch, at_once):
    terminal = open_terminal()
    monkeypatch.setattr(sys, "stdout", terminal.stream)
    console = Console.open()
    step(console, 50)
    assert "\x1b[?25h" not in terminal.shown()
    with pytest.raises(KeyboardInterrupt), console:
        raise KeyboardInterrupt
    assert "\x1b[?25h" in terminal.shown()


def test_the_log_gets_lines_and_prints_but_never_a_bar(open_terminal, monkeypatch, at_once, log, tmp_path):
    terminal = open_terminal()
    monkeypatch.setattr(sys, "stdout", terminal.stream)
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    with log.capturing(), Console.open() as console:
        console.line("before")
        for number in range(1, 5):
            step(console, number)
        console.epoch(2, 40, metrics={"val/loss": 0.5}, seconds=1)
        print("mine [bold] é")
        print("an error", file=sys.stderr)
        step(console, 5)
    lines = "before\nepoch 2/40  val/loss 0.5000  1.0 s\nmine [bold] é\nan error\n"
    assert (tmp_path / "output.log").read_text(encoding="utf-8") == lines
    shown = terminal.shown()
    assert all(line in shown for line in lines.splitlines())
    assert "5/100" in shown


def test_bars_are_drawn_a_few_times_a_second(open_terminal, monkeypatch):
    terminal = open_terminal()
    monkeypatch.setattr(sys, "stdout", terminal.stream)
    with Console.open() as console:
        for number in range(1, 10_001):
            step(console, number)
    assert len(terminal.shown()) < 3_000


def test_bars_cost_at_most_a_hundredth_of_the_time(open_terminal, monkeypatch):
    monkeypatch.setattr(console_module._Bars, "every_s", 0.0)
    monkeypatch.setattr(console_module._Bars, "show", lambda *_: time.sleep(0.005))
    monkeypatch.setattr(sys, "stdout", open_terminal().stream)
    console = Console.open()
    started = time.monotonic()
    step(console, 1)
    step(console, 2)
    assert time.monotonic() - started < 0.3  # the second call drew nothing
    assert console._next_s - started >= 0.5


def test_a_terminal_of_few_characters_stops_nothing(open_terminal, monkeypatch, at_once):
    terminal = open_terminal("ascii")
    monkeypatch.setattr(sys, "stdout", terminal.stream)
    with Console.open() as console:
        console.line("é 日本")
        step(console, 1)
        console.line("é above the bars")
    shown = terminal.shown()
    assert "\\xe9 \\u65e5\\u672c" in shown
    assert "\\xe9 above the bars" in shown


def test_a_run_of_unknown_length_has_a_bar_too(open_terminal, monkeypatch, at_once):
    terminal = open_terminal()
    monkeypatch.setattr(sys, "stdout", terminal.stream)
    with Console.open() as console:
        console.progress(3, None, step=1, steps_per_epoch=10, loss=float("nan"))
    shown = terminal.shown()
    assert "1/10" in shown
    assert "/?" not in shown
    assert "None" not in shown
    assert "nan" not in shown


def test_closing_twice_or_before_anything_was_shown_is_fine(open_terminal, monkeypatch):
    terminal = open_terminal()
    monkeypatch.setattr(sys, "stdout", terminal.stream)
    console = Console.open()
    console.close()
    console.close()
    assert terminal.shown() in ("", "\x1b[?25h")
