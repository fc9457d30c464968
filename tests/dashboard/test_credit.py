"""The Credit page: what was added and corrected, what it comes to, and nothing of the operator."""

import re
from html import unescape

import pytest

from llmproxy import accounts, crediting
from tests.dashboard.helpers import Desk
from tests.dashboard.test_requests import link

CREDIT = "/dashboard/credit"
AT_MS = 1_700_000_000_000


def change(desk: Desk, name: str, amount_nanousd: int, reason: str | None, n: int = 0) -> None:
    with desk.books.write() as tx:
        wallet_id = accounts.find_user(tx, name).wallet_id
        move = crediting.credit if amount_nanousd > 0 and reason is None else crediting.adjust
        move(
            *(tx, wallet_id, amount_nanousd),
            actor="root@secret-machine",
            reason=reason,  # type: ignore[arg-type]
            now_ms=AT_MS + n * 1000,
        )


def entries(html: str) -> list[tuple[str, str]]:
    """Reason and amount of each row."""
    found = re.findall(
        r'<td class="main">(.*?)</td>.*?<td class="n cost">(.*?)</td>', html, re.DOTALL
    )
    return [(unescape(reason), unescape(amount)) for reason, amount in found]


def test_credits_and_corrections_are_told_with_reason_and_amount_newest_first(desk: Desk) -> None:
    ann, other = desk.signed_in(), desk.signed_in()
    change(desk, ann.name, 20_000_000_001, None)
    change(desk, ann.name, -1_250_000_000, "paid out")
    change(desk, other.name, 7_000_000_000, "somebody else's")
    html = ann.text(CREDIT)
    assert entries(html) == [("paid out", "−1.25"), ("–", "+20.000000001"), ("–", "+5.00")]
    assert "secret-machine" not in html
    # 5 + 20.000000001 − 1.25, rounded down to the cent.
    figures = re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", html)
    assert figures == [
        ("Available now", "$23.75"),
        ("Balance", "$23.75"),
        ("Held by running requests", "$0.00"),
    ]


def test_charges_count_into_the_balance_and_are_not_in_the_list(desk: Desk) -> None:
    ann = desk.signed_in()
    assert desk.ask(ann.api_key) == 200
    balance = desk.books.settled_wallet(ann.name)
    assert balance == 5_000_000_000 - 60_000
    html = ann.text(CREDIT)
    assert len(entries(html)) == 1
    assert "$4.99" in html


def test_pages_can_be_walked_both_ways(desk: Desk) -> None:
    ann, other = desk.signed_in(), desk.signed_in()
    for n in range(89):
        change(desk, ann.name, n + 1, f"number {n}", n)
        if n % 10 == 0:
            change(desk, other.name, 1, "somebody else's")
    pages, path, last = [], CREDIT, CREDIT
    while path:
        html = ann.text(path)
        pages.append(entries(html))
        last, path = path, link(html, "Older")
    reasons = [reason for page in pages for reason, _ in page]
    assert reasons == [*(f"number {n}" for n in reversed(range(89))), "–"]
    assert [len(page) for page in pages] == [40, 40, 10]
    again = []
    while last:
        html = ann.text(last)
        again.append(entries(html))
        last = link(html, "Newer")
    assert again == pages[::-1]


def test_somebody_without_credit_reads_who_adds_it(desk: Desk) -> None:
    ann = desk.sign_in(*desk.books.user(credit="0"))
    assert "None yet. The operator of this proxy adds credit." in ann.text(CREDIT)


@pytest.mark.parametrize("query", ["before=x", "after=-1", "before=0", "before=" + "9" * 30,
                                   "before=%ff", "after=1e3"])  # fmt: skip
def test_a_wrong_page_is_told(desk: Desk, query: str) -> None:
    answer = desk.signed_in().get(f"{CREDIT}?{query}")
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text


def test_a_full_page_of_the_longest_reasons_stays_small(desk: Desk) -> None:
    ann = desk.signed_in()
    for n in range(45):
        change(desk, ann.name, 1, "'" * 1000, n)
    assert len(ann.get(CREDIT).content) < 50_000
