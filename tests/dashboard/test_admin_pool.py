"""The pool on the dashboard: entered, estimated, warned of."""

import re
from html import unescape

import pytest

from llmproxy import accounts
from llmproxy.clock import Clock
from tests.dashboard.helpers import Desk, Visitor
from tests.dashboard.operators import ADMIN, acts_count, assert_sound, last_act, operator
from tests.dashboard.test_safety import XSS
from tests.support.waiting import wait_until

POOL = f"{ADMIN}/pool"


@pytest.fixture
def olga(own_desk: Desk) -> Visitor:
    return operator(own_desk)


def sold(desk: Desk) -> str:
    """What all users hold, as a page shows it: two decimals, the rest is left out."""
    return in_dollars(desk.books.count("SELECT sum(balance_nanousd) FROM wallets"))


def in_dollars(nanousd: int) -> str:
    return f"${nanousd // 10**9}.{nanousd // 10**7 % 100:02d}"


def amounts(html: str) -> list[str]:
    """The two large amounts: users' credit, and what is left at providers."""
    return re.findall(r'<p class="amount"[^>]*>([^<]*)</p>', html)


def row(html: str, provider: str) -> list[str]:
    """The cells of a provider."""
    found = re.search(rf'<td class="main">{provider}</td>(.*?)</tr>', html, re.DOTALL)
    assert found, html
    return [unescape(each) for each in re.findall(r"<td[^>]*>(?:<time[^>]*>)?([^<]*)", found[1])]


def test_more_sold_than_held_is_warned_of(own_desk: Desk, olga: Visitor) -> None:
    """The first test of this file: there is one user, with 5 USD."""
    assert sold(own_desk) == "$5.00"
    olga.submit(f"{POOL}/set", provider="openai", usd="1")
    html = olga.text(POOL)
    assert "More was sold than is held" in html
    assert "users hold $5.00 of credit, $4.00 more than the estimated $1.00" in html
    assert "oversold" in olga.text("/dashboard/admin")
    assert "users hold $5.00 of credit, $4.00 more" in olga.text("/dashboard/admin")
    olga.submit(f"{POOL}/set", provider="anthropic", usd="4")
    assert "More was sold than is held" not in olga.text(POOL)
    assert "oversold" not in olga.text("/dashboard/admin")


def test_what_is_entered_is_compared_with_what_was_sold(own_desk: Desk, olga: Visitor) -> None:
    html = olga.text(POOL)
    assert amounts(html) == [sold(own_desk), "–"]
    assert row(html, "openai")[0] == "not entered"
    answer = olga.submit(f"{POOL}/set", provider="openai", usd="200")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{POOL}?said=set")
    assert last_act(own_desk) == (f"dashboard:{olga.name}", "pool set", "openai 200.00")
    assert "What you hold there is saved." in olga.text(f"{POOL}?said=set")
    html = olga.text(POOL)
    assert 'role="status"' not in html
    assert amounts(html) == [sold(own_desk), "$200.00"]
    assert 'role="alert"' not in html
    assert "estimate" in html

    assert own_desk.ask(olga.api_key) == 200
    wait_until(lambda: row(olga.text(POOL), "openai")[3] != "$0.00")
    entered, _, by, spent, left = row(olga.text(POOL), "openai")
    assert (entered, by) == ("$200.00", f"dashboard:{olga.name}")
    cost = own_desk.books.rows(olga.name)[0]["cost_nanousd"]
    assert spent == f"${cost / 10**9:.6f}"
    assert left == "$199.99"
    shown = own_desk.json("pool", "show")
    assert shown["providers"][0]["spent_usd"] == f"{cost / 10**9:f}".rstrip("0")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"provider": "openai"}, "is no amount"),
        ({"provider": "openai", "usd": "much"}, "is no amount"),
        ({"provider": "openai", "usd": "-1"}, "below zero"),
        ({"provider": "nobody", "usd": "1"}, "There is no provider 'nobody'"),
        ({"usd": "1"}, "There is no provider"),
        ({"provider": "openai", "usd": "9" * 19}, "amount"),
    ],
)
def test_what_cannot_be_entered_is_told(
    own_desk: Desk, olga: Visitor, fields: dict[str, str], said: str
) -> None:
    acts = acts_count(own_desk)
    answer = olga.submit(f"{POOL}/set", **fields)
    assert answer.status_code == 422
    assert_sound(answer)
    assert said in unescape(answer.text)
    assert acts_count(own_desk) == acts
    assert amounts(olga.text(POOL))[1] == "–"


@pytest.mark.parametrize("text", XSS)
def test_whatever_is_written_is_text(own_desk: Desk, olga: Visitor, text: str) -> None:
    answer = olga.submit(f"{POOL}/set", provider=text, usd=text)
    assert answer.status_code == 422
    assert_sound(answer)
    with own_desk.books.write() as tx:  # names that no command would take
        tx.execute(
            "INSERT INTO provider_funds(provider, amount_nanousd, actor, created_at_ms) "
            "VALUES(?, 1, ?, 0)",
            (text, text),
        )
        tx.execute(
            "INSERT INTO providers(name, dialect, base_url, injects_usage, created_at_ms) "
            "VALUES(?, 'openai', 'http://127.0.0.1:9/v1', 0, 0)",
            (text + "2",),
        )
    answer = olga.get(POOL)
    assert_sound(answer)
    assert unescape(answer.text).count(text) >= 4


def test_a_page_of_many_providers_is_short(own_desk: Desk, olga: Visitor) -> None:
    with own_desk.books.write() as tx:
        for number in range(80):
            tx.execute(
                "INSERT INTO providers(name, dialect, base_url, injects_usage, created_at_ms) "
                "VALUES(?, 'openai', 'http://127.0.0.1:9/v1', 0, 0)",
                (f"provider-{number:02d}" + "x" * 50,),
            )
            tx.execute(
                "INSERT INTO provider_funds(provider, amount_nanousd, actor, created_at_ms) "
                "VALUES(?, 1, 'dashboard:somebody', 0)",
                (f"provider-{number:02d}" + "x" * 50,),
            )
    answer = olga.get(POOL)
    assert_sound(answer)


def test_credit_of_disabled_users_is_sold_too(own_desk: Desk, olga: Visitor) -> None:
    before = own_desk.books.count("SELECT sum(balance_nanousd) FROM wallets")
    name, _ = own_desk.books.user("7")
    with own_desk.books.write() as tx:
        accounts.set_user(tx, name, now_ms=Clock().now_ms(), is_disabled=True)
    assert amounts(olga.text(POOL))[0] == in_dollars(before + 7_000_000_000)
