"""The pages of the books are for operators alone, and so is whatever they change."""

import re

import pytest

from tests.dashboard.helpers import Desk
from tests.dashboard.operators import acts_count, operator
from tests.dashboard.table import routes

SECTIONS = ("audit", "catalog", "ledger", "pool")
ROUTES = {
    ("route", "/admin/audit"),
    ("route", "/admin/audit.csv"),
    ("route", "/admin/audit.jsonl"),
    ("route", "/admin/catalog"),
    ("route", "/admin/catalog.csv"),
    ("route", "/admin/catalog.jsonl"),
    ("route", "/admin/catalog/model"),
    ("route", "/admin/catalog/new"),
    ("post", "/admin/catalog/preview"),
    ("post", "/admin/catalog/set"),
    ("post", "/admin/catalog/remove"),
    ("route", "/admin/ledger"),
    ("post", "/admin/ledger/check"),
    ("route", "/admin/pool"),
    ("post", "/admin/pool/set"),
}


def paths(kind: str) -> list[str]:
    """The paths of one kind of routes, with something in the place of what varies."""
    found = [path for each, path in sorted(ROUTES) if each == kind]
    return ["/dashboard" + path.replace("/model", "/model?name=openai/gpt-4o") for path in found]


def test_the_table_of_routes_is_exactly_this() -> None:
    found = {
        ("route" if method == "GET" else method.lower(), path.removeprefix("/dashboard"))
        for method, path in routes()
        if re.match(rf"/dashboard/admin/({'|'.join(SECTIONS)})\b", path)
    }
    assert found == ROUTES


@pytest.mark.parametrize("path", paths("route"))
def test_a_page_is_shown_to_operators_and_to_nobody_else(desk: Desk, path: str) -> None:
    nobody = desk.visitor().get(path)
    assert (nobody.status_code, nobody.headers["location"]) == (303, "/dashboard/sign-in")
    refused = desk.signed_in().get(path)
    assert refused.status_code == 403
    assert "For operators" in refused.text
    olga = operator(desk)
    answer, head = olga.get(path), olga.head(path)
    assert (answer.status_code, head.status_code, head.content) == (200, 200, b"")
    assert head.headers["content-type"] == answer.headers["content-type"]
    assert head.headers["content-security-policy"].startswith("default-src 'none'")


def test_who_is_no_operator_any_more_is_refused(desk: Desk) -> None:
    olga = operator(desk)
    with desk.books.write() as tx:
        tx.execute("UPDATE users SET is_admin = 0 WHERE name = ?", (olga.name,))
    for path in paths("route"):
        assert olga.get(path).status_code == 403


@pytest.mark.parametrize("path", paths("post") or ["/dashboard/admin/none"])
def test_a_form_of_anybody_else_changes_nothing(desk: Desk, path: str) -> None:
    olga, ann = operator(desk), desk.signed_in()
    before = acts_count(desk)
    fields = {"usd": "1", "provider": "openai", "in_price": "9", "do": "apply", "yes": "1"}
    assert ann.submit(path, **fields).status_code in {403, 404}
    assert desk.visitor().submit(path, **fields).status_code in {401, 404}
    foreign = olga.post(path, data=fields, headers={"sec-fetch-site": "cross-site"})
    assert foreign.status_code in {403, 404}
    assert acts_count(desk) == before
