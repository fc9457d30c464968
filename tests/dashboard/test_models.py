"""The Models pages: what a million tokens cost this user, exactly, and what can be used now."""

import re
from html import unescape

import pytest

from llmproxy.catalog_parser import load_catalog
from tests.dashboard.helpers import Desk
from tests.dashboard.test_requests import link
from tests.support.waiting import wait_until

MODELS = "/dashboard/models"


def prices(html: str) -> dict[str, list[str]]:
    """The prices of each model of a page, by its name."""
    found = {}
    for row in re.findall(r"<tr>\s*<td class=\"main\">.*?</tr>", html, re.DOTALL):
        name = re.search(r'href="[^"]*">([^<]*)</a>', row)
        assert name
        found[unescape(name[1])] = re.findall(r'<td class="n"[^>]*>([^<]*)</td>', row)
    return found


def available(html: str) -> set[str]:
    without = set(re.findall(r">([^<]+)</a> <span class=\"state\">not available", html))
    return set(prices(html)) - without


def test_prices_are_those_of_the_catalog_times_the_users_multiplier(desk: Desk) -> None:
    ann, other = desk.sign_in(*desk.books.user(multiplier_micro=1_234_567)), desk.signed_in()
    # gpt-4o: 2.50 in, 1.25 cached, 10 out.
    found = prices(ann.text(f"{MODELS}?search=openai/gpt-4o"))
    assert found["openai/gpt-4o"] == ["3.0864175", "1.54320875", "12.34567"]
    assert prices(other.text(f"{MODELS}?search=gpt-4o"))["openai/gpt-4o"] == [
        "2.50",
        "1.25",
        "10.00",
    ]
    html = ann.text(f"{MODELS}/openai/gpt-4o")
    assert "× 1.234567" in html
    for price in ("3.0864175", "12.34567"):
        assert price in html


def test_a_models_own_multiplier_counts_too_and_at_once(desk: Desk) -> None:
    ann = desk.sign_in(*desk.books.user(multiplier_micro=1_500_000))
    desk.run(
        *("catalog", "set", "openai", "own-model", "--in-price", "0.000000007"),
        *("--out-price", "3", "--multiplier", "1.1"),
    )
    # 7 nano-dollars × 1.5 × 1.1, and 3 × 1.65.
    wait_until(lambda: bool(prices(ann.text(f"{MODELS}?search=own-model"))))
    found = prices(ann.text(f"{MODELS}?search=own-model"))
    assert [found["openai/own-model"][place] for place in (0, 2)] == ["0.00000001155", "4.95"]
    html = ann.text(f"{MODELS}/openai/own-model")
    assert "Rate of this model" in html
    assert "× 1.1<" in html


def test_every_model_is_there_once(desk: Desk) -> None:
    ann = desk.signed_in()
    pages, path = [], MODELS
    while path:
        answer = ann.get(path)
        assert len(answer.content) < 50_000
        pages.append(prices(answer.text))
        path = link(answer.text, "Next")
    names = [name for page in pages for name in page]
    wanted = {f"{each.provider}/{each.id}" for each in load_catalog(None).models()}
    assert len(names) == len(set(names))
    assert set(names) - {"openai/own-model"} == wanted
    second = ann.text(f"{MODELS}?page=2")
    assert prices(ann.text(link(second, "Previous"))) == pages[0]


def test_models_are_found_by_a_part_of_their_names_aliases_and_provider(desk: Desk) -> None:
    ann = desk.signed_in()
    by_alias = ann.text(f"{MODELS}?search=GPT-4o-2024-08-06")
    assert list(prices(by_alias)) == ["openai/gpt-4o"]
    assert "also gpt-4o-2024-08-06" in by_alias
    groq = prices(ann.text(f"{MODELS}?provider=groq"))
    assert groq
    assert all(name.startswith("groq/") for name in groq)
    assert prices(ann.text(f"{MODELS}?provider=groq&search=gpt-4o")) == {}
    assert "No model fits." in ann.text(f"{MODELS}?search=zzzz")
    assert "There are no further models." in ann.text(f"{MODELS}?page=9999")


def test_what_has_no_key_that_works_is_not_marked_as_available(desk: Desk) -> None:
    ann = desk.signed_in()
    html = ann.text(MODELS)
    assert available(html) == set(prices(html))  # those come first
    assert available(ann.text(f"{MODELS}?provider=groq")) == set()
    openai = f"{MODELS}?provider=openai"
    assert available(ann.text(openai))
    try:
        desk.books.set_key_states("openai", "disabled")
        assert available(ann.text(openai)) == set()
        assert "no key that works" in ann.text(f"{MODELS}/openai/gpt-4o")
        desk.books.set_key_states("openai", "active")
        desk.books.pause("openai", "a test")
        assert available(ann.text(openai)) == set()
    finally:
        desk.books.set_key_states("openai", "active")
        desk.books.resume("openai")
    assert available(ann.text(openai))


def test_a_model_has_a_page_with_all_that_its_price_depends_on(desk: Desk) -> None:
    ann = desk.signed_in()
    slashes = ann.text(f"{MODELS}/groq/meta-llama/llama-guard-4-12b")
    assert "groq/meta-llama/llama-guard-4-12b" in slashes
    assert ann.text(f"{MODELS}/openai/gpt-4o-2024-08-06").count("<h1>openai/gpt-4o</h1>") == 1
    html = ann.text(f"{MODELS}/openai/gpt-4o")
    assert "Web searches, per 1,000" in html
    for name in ("openai/nothing", "nobody/gpt-4o", "openai", "openai/", "%00/x", "a/../b"):
        assert ann.get(f"{MODELS}/{name}").status_code == 404, name


@pytest.mark.parametrize("query", ["page=0", "page=x", "page=-1", "page=99999999999", "search=%ff",
                                   "search=" + "x" * 201, "provider=" + "x" * 201])  # fmt: skip
def test_a_wrong_value_is_told(desk: Desk, query: str) -> None:
    answer = desk.signed_in().get(f"{MODELS}?{query}")
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
