"""What the log shows to a person: nothing that a provider says steers or forges it."""

import logging

import pytest

from llmproxy.logs import _TextLines


@pytest.mark.parametrize(
    "said", ["bad key\n12:00:00 INFO     all is well", "a\rb", "\x1b[2J", "\u202e"]
)
def test_a_message_is_one_line_of_printable_characters(said: str) -> None:
    record = logging.LogRecord("llmproxy", logging.WARNING, "", 0, "it said %s", (said,), None)
    line = _TextLines("%(levelname)s %(message)s").format(record)
    assert line.isprintable()
    assert line.startswith("WARNING it said ")


def test_a_traceback_keeps_its_lines() -> None:
    try:
        raise ValueError("one\ntwo")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("llmproxy", logging.ERROR, "", 0, "failed", (), info)
    lines = _TextLines("%(message)s").format(record).split("\n")
    assert lines[0] == "failed"
    assert lines[1].startswith("Traceback")
