from __future__ import annotations

import pytest

from rootflow.runs.text import escape, format_duration, format_number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.1235"),
        (0.9, "0.9000"),
        (2.302585, "2.303"),
        (1234.5678, "1235"),
        (12345.678, "1.23e+04"),
        (0.0001234, "1.23e-04"),
        (-0.5, "-0.5000"),
        (0.0, "0"),
        (float("nan"), "nan"),
        (7, "7"),
        (True, "True"),
        ("nan", "nan"),
        (None, "None"),
    ],
)
def test_numbers_have_about_four_digits(value, text):
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (18_060, "5 h 01 min"),
        (86_399, "23 h 59 min"),
        (183_600, "2 d 03 h"),
    ],
)
def test_durations_have_two_units(seconds, text):
    assert format_duration(seconds) == text


def test_what_a_terminal_would_obey_is_escaped_and_the_rest_is_kept():
    assert escape("é naïve 日本") == "é naïve 日本"
    assert escape("a\x1b]0;x\x07b\r\n\u202e") == "a\\x1b]0;x\\x07b\\r\\n\\u202e"
