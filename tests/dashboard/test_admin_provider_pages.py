"""A provider's keys that are more than a page, as operators see them and act on them."""

import re
from html import unescape
from itertools import chain

import pytest

from llmproxy.dashboard.admin.providers import KEYS_SHOWN
from tests.dashboard.helpers import Desk, Visitor
from tests.dashboard.operators import assert_sound
from tests.dashboard.test_admin_provider_checks import models
from tests.dashboard.test_admin_providers import OPENAI, SECRET, key_ids, rows_of
from tests.dashboard.test_key_pages import link

COUNT = 2 * KEYS_SHOWN + 1
NAMES = ["key-1", *(f"more-{number}" for number in range(COUNT - 1))]
"""In the order in which they are added: so they stand on the pages."""


@pytest.fixture
def boss(own_desk: Desk) -> Visitor:
    """An operator whose provider has three pages of keys, the last of them with a single one."""
    boss = own_desk.operator()
    for name in NAMES[1:]:
        boss.submit(f"{OPENAI}/keys", secret=f"{SECRET}-{name}", name=name)
    return boss


def names(html: str) -> list[str]:
    return [row.split()[0] for row in rows_of(html, "Keys")]


def button(html: str, act: str, key_id: int) -> str:
    """Where a button about a key leads."""
    (action,) = re.findall(rf'action="({OPENAI}/keys/{key_id}/{act}[^"]*)"', html)
    return unescape(action)


def test_operators_page_through_the_keys_of_a_provider(boss: Visitor) -> None:
    found, path = [], OPENAI
    while path:
        answer = boss.get(path)
        assert_sound(answer)
        found.append(names(answer.text))
        path = link(answer.text, "next", "")
    assert [len(page) for page in found] == [KEYS_SHOWN, KEYS_SHOWN, 1]
    assert list(chain(*found)) == NAMES
    second = boss.text(f"{OPENAI}?page=2")
    assert f"{KEYS_SHOWN + 1}–{2 * KEYS_SHOWN} of {COUNT}" in second
    for which in ("prev", "first"):
        assert names(boss.text(link(second, which, ""))) == found[0]
    assert names(boss.text(f"{OPENAI}?page=99999999")) == found[-1]
    for query in ("page=0", "page=x", "page="):
        assert names(boss.text(f"{OPENAI}?{query}")) == found[0]


def test_a_button_about_a_provider_key_leads_back_to_where_it_was_pressed(
    own_desk: Desk, boss: Visitor
) -> None:
    here = f"{OPENAI}?page=2"
    shown = names(boss.text(here))
    key_id = key_ids(own_desk)[shown[3]]
    for act, left in (
        ("disable", shown),
        ("enable", shown),
        ("remove", [*shown[:3], *shown[4:], NAMES[-1]]),
    ):
        led = boss.submit(button(boss.text(here), act, key_id))
        assert (led.status_code, led.headers["location"]) == (303, f"{here}&said={act}")
        landed = boss.text(led.headers["location"])
        assert 'role="status"' in landed
        assert names(landed) == left
    # So do the forms that are about no key of the page; a mistake in one shows that page again.
    actions = set(re.findall(rf'action="({OPENAI}[^"]*)"', boss.text(here)))
    assert {action for action in actions if not action.endswith("?page=2")} == set()
    again = boss.submit(f"{OPENAI}/keys?page=2", secret=f"{SECRET}-x", name=NAMES[2])
    assert (again.status_code, "is taken; choose another" in again.text) == (422, True)
    assert names(again.text) == names(boss.text(here))
    # From the first page they lead back by an address without anything.
    assert boss.submit(f"{OPENAI}/pause", reason="x").headers["location"] == f"{OPENAI}?said=pause"


def test_the_last_key_of_a_page_leaves_one_on_the_page_before(
    own_desk: Desk, boss: Visitor
) -> None:
    here = f"{OPENAI}?page=3"
    led = boss.submit(button(boss.text(here), "remove", key_ids(own_desk)[NAMES[-1]]))
    assert led.headers["location"] == f"{here}&said=remove"
    landed = boss.text(led.headers["location"])
    assert names(landed) == NAMES[KEYS_SHOWN:-1]
    assert "The key is removed." in landed
    assert link(landed, "next", "") == ""


def test_a_provider_is_asked_with_the_keys_of_the_page_that_is_shown(
    own_desk: Desk, boss: Visitor
) -> None:
    own_desk.site.stub.handle = models
    asked = boss.submit(f"{OPENAI}/check?page=3")
    assert rows_of(asked.text, "What it said") == [
        f"{NAMES[-1]} refused 401: Incorrect API key provided"
    ]
    assert names(asked.text) == NAMES[-1:]
    first = boss.submit(f"{OPENAI}/check")
    assert len(rows_of(first.text, "What it said")) == KEYS_SHOWN
    assert ">Check these keys</button>" in first.text
