"""The operator's look at anybody's request: found by its id, shown as its user sees it."""

import re

import pytest

from tests.dashboard.helpers import Desk
from tests.dashboard.rows import add_refused, add_settled
from tests.support.limits import limit_key

ADMIN = "/dashboard/admin"
OLD_MS = 1_700_000_000_000
NEVER = "req_" + "0" * 32


def facts(html: str) -> dict[str, str]:
    return dict(re.findall(r"<dt>([^<]*)</dt><dd>(?:<[^>]*>)*([^<]*)<", html))


def cells(html: str) -> list[str]:
    return re.findall(r"<td[^>]*>([^<]*)</td>", html)


def test_an_operator_reads_the_receipt_that_the_user_reads(desk: Desk) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    made = add_settled(desk.books, ann.name, at_ms=OLD_MS)
    page = f"{ADMIN}/users/{desk.user_id(ann.name)}"
    path = f"{ADMIN}/requests/{made}"
    assert f'href="{path}"' in boss.text(page)
    html = boss.text(path)
    assert facts(html)["User"] == ann.name
    assert f'href="{page}"' in html
    own = ann.text(f"/dashboard/requests/{made}")
    assert cells(html) == cells(own)
    assert len(cells(own)) > 10
    assert ("is theirs again" in html, "is yours again" in own) == (True, True)
    assert ann.get(path).status_code == 403
    for nothing in (NEVER, "1", made[:-1]):
        assert boss.get(f"{ADMIN}/requests/{nothing}").status_code == 404


def test_a_refused_request_has_no_empty_table(desk: Desk) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    (refused,) = add_refused(desk.books, ann.name, 1, at_ms=OLD_MS + 99_000_000)
    for visitor, path in ((boss, f"{ADMIN}/requests"), (ann, "/dashboard/requests")):
        html = visitor.text(f"{path}/{refused}")
        assert "Nothing was held for it, and nothing was charged." in html
        assert "<table" not in html


@pytest.mark.parametrize("digits", [36, 18, 12])
def test_a_search_by_id_or_its_beginning_leads_there(desk: Desk, digits: int) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    at_ms = OLD_MS + digits * 1_000_000_000
    (made,) = add_refused(desk.books, ann.name, 1, at_ms=at_ms)
    assert 'name="id"' in boss.text(f"{ADMIN}/users")
    answer = boss.get(f"{ADMIN}/users", params={"id": made[:digits]})
    assert (answer.status_code, answer.headers["location"]) == (303, f"{ADMIN}/requests/{made}")
    assert ann.get(f"{ADMIN}/users", params={"id": made}).status_code == 403


def test_a_search_that_finds_not_just_one_says_so(desk: Desk) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    made = add_refused(desk.books, ann.name, 2, at_ms=OLD_MS + 77_000_000_000, apart_ms=1)
    for text, said in (
        ("hello", "is no request id"),
        (NEVER, "There is no request"),
        (made[0][:12], f"give more of the id: {made[0]}, {made[1]}"),
    ):
        answer = boss.get(f"{ADMIN}/users", params={"id": text})
        assert (answer.status_code, said in answer.text) == (422, True), text
        assert f'value="{text}"' in answer.text


def test_an_operator_sees_the_limits_of_a_key(desk: Desk) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    limit_key(
        *(desk.books, ann.name, "test"),
        requests_per_minute=1000,
        daily_budget_nanousd=2_000_000_000,
        models=("gpt-4o", "claude-*"),
    )
    html = boss.text(f"{ADMIN}/users/{desk.user_id(ann.name)}")
    said = "Budget per day: $2.00; Requests per minute: 1,000; Models: gpt-4o, claude-*"
    assert said in html
