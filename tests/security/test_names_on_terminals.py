"""S32: what others have named reaches the operator's terminal and spreadsheet as plain text."""

import csv
import io
import json
import logging
import sys

import pytest

from llmproxy.logs import set_up_logs
from tests.proxy.helpers import CHAT, Site, chat
from tests.support.waiting import wait_until

ESCAPES = "\x1b[2J\x1b]0;evil\x07\x9b31m\x08\r\n\u202e"
NAMES = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0", ESCAPES)
BAD = {chr(code) for code in [*range(0x20), *range(0x80, 0xA0)]} - {"\n"} | {"\u202e"}


def asked_for(site: Site) -> str:
    """A user who has asked for models of all these names."""
    visitor = site.visitor()
    for name in NAMES:  # one at a time: only so many refusals a second leave a row
        seen = len(site.books.rows(visitor.name))
        wait_until(lambda seen=seen, name=name: _leaves_a_row(site, visitor, name, seen))  # type: ignore[misc]
    return visitor.name


def _leaves_a_row(site: Site, visitor: object, name: str, seen: int) -> bool:
    assert site.ask(visitor, CHAT, chat(model=name)).status == 400  # type: ignore[arg-type]
    return len(site.books.rows(visitor.name)) > seen  # type: ignore[attr-defined]


def test_no_name_is_a_command_to_a_terminal_or_a_spreadsheet(site: Site) -> None:
    user = asked_for(site)
    shown = site.proxy.run("usage", "requests", "--user", user)
    assert "1+1" in shown
    assert not BAD & set(shown)
    rows = site.proxy.json("usage", "requests", "--user", user)
    assert {row["model"] for row in rows} == set(NAMES)  # data stays as it is
    escaped, *_ = [row for row in rows if row["model"] == ESCAPES]
    assert not BAD & set(site.proxy.run("explain", escaped["id"]))
    exported = site.proxy.run("usage", "export", "--user", user, "--format", "csv")
    cells = [cell for row in csv.reader(io.StringIO(exported)) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@", "\t", "\r"))]
    assert not [cell for cell in cells if cell.startswith("-") and not cell[1:2].isdigit()]
    log = site.proxy.log.read_text()
    assert not BAD & set(log)
    assert all(json.loads(line) for line in log.splitlines() if line.startswith("{"))


@pytest.mark.parametrize("is_terminal", [True, False])
def test_no_word_of_a_provider_in_the_log_is_a_command(
    is_terminal: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    try:
        set_up_logs("info")
        logging.getLogger("llmproxy.x").warning("key k is now dead: %s", ESCAPES)
        try:
            raise ValueError(ESCAPES)
        except ValueError:
            logging.getLogger("llmproxy.x").exception("oh")
    finally:
        root.handlers, root.level = handlers, level
    said = capfd.readouterr().err
    assert "evil" in said
    assert "ValueError" in said
    assert not BAD & set(said)
