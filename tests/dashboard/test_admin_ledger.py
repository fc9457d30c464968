"""The ledger's page: its standing, and a check that runs beside the server and can be ended."""

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from html import unescape
from pathlib import Path

import pytest

from llmproxy import ledger, ledger_check
from llmproxy.clock import Clock
from llmproxy.dashboard.admin.ledger_checks import LedgerChecks
from llmproxy.ledger_check import Report
from tests.dashboard.helpers import Desk, Visitor
from tests.dashboard.operators import ADMIN, acts_count, assert_sound, last_act, operator
from tests.dashboard.test_safety import XSS
from tests.support.books import PRICES, Book
from tests.support.waiting import wait_until

LEDGER = f"{ADMIN}/ledger"
CHECK = f"{LEDGER}/check"


def checked(olga: Visitor) -> str:
    """Let the ledger be checked; return the page that tells of it."""
    answer = olga.submit(CHECK)
    assert (answer.status_code, answer.headers["location"]) == (303, LEDGER)
    wait_until(lambda: "Check the ledger" in olga.text(LEDGER))
    return olga.text(LEDGER)


def facts(html: str) -> dict[str, str]:
    """What the lists of facts say, by their labels."""
    found = re.findall(r"<dt>([^<]*)</dt><dd[^>]*>([^<]*)</dd>", html)
    return {unescape(label): unescape(value) for label, value in found}


def test_the_standing_is_that_of_the_command_and_a_checks_result_stays(plain_desk: Desk) -> None:
    olga = operator(plain_desk)
    assert plain_desk.ask(olga.api_key) == 200
    assert plain_desk.ask(olga.api_key, model="nothing") == 400
    balance = plain_desk.books.settled_wallet(olga.name)
    wait_until(lambda: facts(olga.text(LEDGER))["Requests that ended"] == "1")
    wait_until(lambda: facts(olga.text(LEDGER))["Requests that were refused"] == "1")
    shown = facts(olga.text(LEDGER))
    assert (shown["Balances of 1 user"], balance) == ("$4.99", 4_999_940_000)
    assert shown["Held by 0 running requests"] == "$0.00"
    assert shown["Schema"] == str(plain_desk.json("db", "info")["schema_version"])

    assert "Last check" not in olga.text(LEDGER)
    html = checked(olga)
    assert "The ledger is right." in html
    assert facts(html)["Holds"] == "1"
    assert facts(html)["Usages repriced"] == "1"
    assert f"by {olga.name}" in facts(html)["Begun"]
    assert last_act(plain_desk) == (f"dashboard:{olga.name}", "ledger verify", "")
    assert "The ledger is right." in operator(plain_desk).text(LEDGER)
    assert "refresh" not in html


def test_of_two_who_ask_at_once_only_the_one_whose_check_begins_is_noted(module_desk: Desk) -> None:
    """The note waits while another writes: the second one comes in between."""
    olga, owen, acts = operator(module_desk), operator(module_desk), acts_count(module_desk)
    with ThreadPoolExecutor(2) as pool:
        with module_desk.books.write():
            asked = [pool.submit(each.submit, CHECK) for each in (olga, owen)]
            wait_until(lambda: any(each.done() for each in asked))
        assert [each.result().status_code for each in asked] == [303, 303]
    assert acts_count(module_desk) == acts + 1
    wait_until(lambda: "The ledger is right." in olga.text(LEDGER))


@pytest.mark.parametrize("text", ["a wallet", *XSS])
def test_what_is_wrong_is_told_as_text(module_desk: Desk, text: str) -> None:
    """A balance is made wrong, and right again: the site's own check comes after."""
    desk, olga = module_desk, operator(module_desk)
    wallet_id = desk.books.count(
        f"SELECT wallets.id FROM wallets JOIN users ON users.id = user_id "
        f"WHERE name = '{olga.name}'"
    )
    set_balance = "UPDATE wallets SET balance_nanousd = balance_nanousd + ? WHERE id = ?"
    set_name = "UPDATE users SET name = ? WHERE name = ?"
    with desk.books.write() as tx:
        tx.execute(set_balance, (1, wallet_id))
        tx.execute(set_name, (text, olga.name))
    try:
        olga.submit(CHECK)
        wait_until(lambda: "Check the ledger" in olga.text(LEDGER))
        answer = olga.get(LEDGER)
        assert_sound(answer)
        assert "1 problem found" in answer.text
        told = f"wallet of user {text}</strong>: balance is 5.000000001"
        assert told in unescape(answer.text)
    finally:
        with desk.books.write() as tx:
            tx.execute(set_balance, (-1, wallet_id))
            tx.execute(set_name, (olga.name, text))


def test_a_report_of_very_many_problems_is_a_short_page(module_desk: Desk) -> None:
    olga = operator(module_desk)
    with module_desk.books.write() as tx:
        tx.execute(
            """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
               INSERT INTO users(name, rate_multiplier_micro, created_at_ms)
               SELECT i || replace(hex(zeroblob(500)), '00', '"<'), 1000000, 0 FROM n"""
        )
    try:
        html = checked(olga)
        assert "1,500 problems found" in html
        assert "1,480 more" in html
        assert_sound(olga.get(LEDGER))
    finally:
        with module_desk.books.write() as tx:
            tx.execute("DELETE FROM users WHERE created_at_ms = 0")


# --- the thread, without a server ---------------------------------------------------------------


class Halted:
    """Holds a check up at its first step until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_reached = self.may_go_on = False
        self._verify = ledger_check.verify
        monkeypatch.setattr(ledger_check, "verify", self)

    def __call__(self, tx: object, *, on_progress: object = None) -> Report:
        self.is_reached = True
        wait_until(lambda: self.may_go_on)
        return self._verify(tx, on_progress=on_progress)  # type: ignore[arg-type]


def test_there_is_one_check_at_a_time(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    book.settled()
    halted = Halted(monkeypatch)
    with closing(LedgerChecks(book.path, Clock())) as checks:
        checks.start("olga")
        first = checks.last
        checks.start("ben")
        assert checks.last is first
        assert checks.is_running
        halted.may_go_on = True
        wait_until(lambda: not checks.is_running)
        assert first is not None
        assert (first.by, first.done, first.total, first.percent) == ("olga", 1, 1, 100)
        assert first.report is not None
        assert first.report.is_ok
        checks.start("ben")
        wait_until(lambda: not checks.is_running)
        assert checks.last is not first


def test_a_check_that_is_reserved_keeps_others_out_until_released(book: Book) -> None:
    with closing(LedgerChecks(book.path, Clock())) as checks:
        assert checks.reserve()
        assert not checks.reserve()
        checks.release()
        assert checks.reserve()
        checks.release()
    assert not checks.reserve()


def test_a_stop_ends_a_check_that_would_last(book: Book) -> None:
    """The statement under way would not end by itself."""
    forever = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"
    is_reached = []

    def verify(tx: object, *, on_progress: object) -> Report:
        del on_progress
        is_reached.append(True)
        tx.execute(forever).fetchone()  # type: ignore[attr-defined]
        raise AssertionError("it has ended")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_check, "verify", verify)
        checks = LedgerChecks(book.path, Clock())
        checks.start("olga")
        wait_until(lambda: bool(is_reached))
        checks.close()
    assert not checks.is_running
    assert checks.last is not None
    assert (checks.last.report, checks.last.failure) == (None, "the server was stopped")
    checks.start("ben")
    assert not checks.is_running


def test_a_database_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with closing(LedgerChecks(tmp_path / "none.db", Clock())) as checks:
        checks.start("olga")
        wait_until(lambda: not checks.is_running)
        assert checks.last is not None
        assert "There is no database" in checks.last.failure


def test_a_check_reads_alone(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees one moment, and keeps nobody from writing meanwhile."""
    book.settled()
    halted = Halted(monkeypatch)
    with closing(LedgerChecks(book.path, Clock())) as checks:
        checks.start("olga")
        wait_until(lambda: halted.is_reached)
        book.settled()
        halted.may_go_on = True
        wait_until(lambda: not checks.is_running)
        assert checks.last is not None
        assert checks.last.report is not None
        assert checks.last.report.checked["holds"] == 1


def test_a_server_stops_while_a_check_runs(module_desk: Desk) -> None:
    """Very many rows that cost much to look through: it could not end in time by itself.

    The last test of this file: it stops the server.
    """
    desk, olga = module_desk, operator(module_desk)
    fill_with_holds(desk, 60_000)
    olga.submit(CHECK)
    assert "running" in olga.text(LEDGER)
    assert '<meta http-equiv="refresh" content="2">' in olga.text(LEDGER)
    before = acts_count(desk)
    olga.submit(CHECK)  # one is under way: not begun again, nor noted
    assert acts_count(desk) == before
    assert desk.site.proxy.stop() == 0


def fill_with_holds(desk: Desk, count: int) -> None:
    """Let there be many released holds, as a busy month leaves them."""
    with desk.books.write() as tx:
        version = ledger.pin_prices(tx, "openai", "filler", PRICES.canonical_json(), now_ms=0)
        for number in range(count):
            tx.execute(
                """INSERT INTO holds(id, wallet_id, api_key_id, price_version_id, boot_id, endpoint,
                     user_multiplier_micro, model_multiplier_micro, amount_nanousd, state, basis,
                     cost_nanousd, charged_nanousd, shortfall_nanousd, created_at_ms, ended_at_ms)
                   SELECT ?, (SELECT min(id) FROM wallets), (SELECT min(id) FROM api_keys), ?,
                     (SELECT max(id) FROM boots), 'x', 1000000, 1000000, 1, 'released', 'none',
                     0, 0, 0, 1, 1""",
                (number.to_bytes(16, "big"), version),
            )
