"""The Requests page and receipts: what is listed, found, and multiplied out, and for whom."""

import re
import threading
from html import unescape
from urllib.parse import urlencode

import pytest

from llmproxy.clock import Clock
from tests.dashboard.helpers import Desk, Visitor
from tests.dashboard.rows import add_refused, add_settled
from tests.support.answers import openai_chat
from tests.support.stub_provider import Out, SeenRequest
from tests.support.waiting import wait_until

REQUESTS = "/dashboard/requests"
DAY_MS = 86_400_000
OLD_MS = 1_700_000_000_000 - 1_700_000_000_000 % DAY_MS  # 2023-11-14
NEVER = "req_" + "0" * 32


def ids_of(html: str) -> list[str]:
    return re.findall(rf'href="{REQUESTS}/(req_[0-9a-f]{{32}})"', html)


def listed(ann: Visitor, **fields: str) -> list[str]:
    """The ids of the first page under a filter, newest first."""
    return ids_of(ann.text(f"{REQUESTS}?{urlencode(fields)}"))


def link(html: str, word: str) -> str:
    """Where the link with this word leads, empty when there is none."""
    found = re.search(rf'href="([^"]*)">\W*{word}\W*</a>', html)
    return unescape(found[1]) if found else ""


def walked(ann: Visitor, path: str, word: str) -> list[list[str]]:
    """The ids of all pages from one on, by following a link."""
    pages = []
    while path:
        html = ann.text(path)
        pages.append(ids_of(html))
        path = link(html, word)
        assert len(pages) < 50
    return pages


def test_requests_are_listed_newest_first_in_pages_that_can_be_walked_both_ways(desk: Desk) -> None:
    ann, other = desk.signed_in(), desk.signed_in()
    made = add_refused(desk.books, ann.name, 60, at_ms=OLD_MS)
    add_refused(desk.books, other.name, 5, at_ms=OLD_MS)
    pages = walked(ann, REQUESTS, "Older")
    assert [each for page in pages for each in page] == made[::-1]
    assert [len(page) for page in pages] == [25, 25, 10]
    last = f"{REQUESTS}?before={pages[1][-1]}"
    assert ids_of(ann.text(last)) == pages[2]
    assert walked(ann, last, "Newer") == pages[::-1]
    assert link(ann.text(REQUESTS), "Newer") == ""


def test_a_page_keeps_its_filter_and_can_be_kept_as_a_bookmark(desk: Desk) -> None:
    ann = desk.signed_in()
    made = add_refused(desk.books, ann.name, 30, at_ms=OLD_MS, model="gpt-4o-mini")
    add_refused(desk.books, ann.name, 30, at_ms=OLD_MS + 500, model="gpt-4o")
    first = f"{REQUESTS}?model=openai%2Fgpt-4o-mini&state=refused&since=2023-11-14"
    pages = walked(ann, first, "Older")
    assert [each for page in pages for each in page] == made[::-1]
    html = ann.text(first)
    assert "model=openai%2Fgpt-4o-mini&state=refused&since=2023-11-14&before=" in link(
        html, "Older"
    )
    assert '<option value="openai/gpt-4o-mini" selected>' in html
    assert '<option value="refused" selected>' in html
    assert 'name="since" value="2023-11-14"' in html


def test_each_part_of_the_filter_leaves_out_what_does_not_fit(desk: Desk) -> None:
    ann = desk.signed_in()
    ann.create_key("laptop")
    assert desk.ask(ann.api_key) == 200
    desk.books.settled_wallet(ann.name)
    (today,) = [row["id"].hex() for row in desk.books.rows(ann.name)]
    settled = f"req_{today}"
    first, second = add_refused(desk.books, ann.name, 2, at_ms=OLD_MS, apart_ms=DAY_MS)
    (foreign,) = add_refused(
        desk.books, ann.name, 1, at_ms=OLD_MS + 1, provider="groq", model="a/b", key="laptop"
    )
    assert listed(ann) == [settled, second, foreign, first]
    for fields, wanted in [
        ({"state": "settled"}, [settled]),
        ({"state": "refused"}, [second, foreign, first]),
        ({"state": "open"}, []),
        ({"key": "laptop"}, [foreign]),
        ({"key": "nobody's"}, []),
        ({"model": "groq/a/b"}, [foreign]),
        ({"model": "groq/"}, [foreign]),
        ({"model": "gpt-4o"}, [settled, second, first]),
        ({"model": "openai/gpt-5"}, []),
        ({"since": "2023-11-15"}, [settled, second]),
        ({"until": "2023-11-14"}, [foreign, first]),
        ({"since": "2023-11-15", "until": "2023-11-15"}, [second]),
        ({"since": "2023-11-15", "until": "2023-11-15", "state": "settled"}, []),
    ]:
        assert listed(ann, **fields) == wanted, fields
    assert "Nothing fits this filter." in ann.text(f"{REQUESTS}?state=expired")


def test_somebody_without_requests_reads_what_to_do(desk: Desk) -> None:
    ann = desk.signed_in()
    assert "None yet." in ann.text(REQUESTS)
    assert "None yet." in ann.text(f"{REQUESTS}?state=refused")


@pytest.mark.parametrize(("query", "said"), [
    ("state=paid", "State: choose one of open, settled"),
    ("since=2023-13-01", "From: write a day such as"),
    ("until=20231101", "To: write a day such as"),
    ("until=yesterday", "To: write a day such as"),
    ("since=%D9%A1%D9%A9%D9%A7%D9%A0-01-01", "From: write a day such as"),
    ("since=2023-11-15&until=2023-11-14", "From must not lie behind To."),
    ("before=req_1", "This page is not there."),
    ("after=" + "zz" * 16, "This page is not there."),
    ("before=00" + "+" * 28 + "00", "This page is not there."),
    ("model=" + "x" * 301, "The filter is too long."),
    ("model=%ff", "The address cannot be read."),
    ("&".join(["a=1"] * 100), "The address cannot be read."),
    ("id=hello", "is no request id"),
    ("id=req_0193578", "is no request id"),
    ("id=" + "g" * 32, "is no request id"),
    ("id=" + "0" * 33, "is no request id"),
])  # fmt: skip
def test_a_wrong_value_is_told_on_the_page(desk: Desk, query: str, said: str) -> None:
    ann = desk.signed_in()
    answer = ann.get(f"{REQUESTS}?{query}")
    assert answer.status_code == 422
    assert said in unescape(answer.text)
    assert 'name="state"' in answer.text


@pytest.mark.parametrize(
    "query",
    ["before=" + "f" * 32, "after=" + "f" * 32, "before=" + "0" * 32, "after=" + "0" * 32,
     "since=0001-01-01", "until=9999-12-31", "since=9999-12-31", "model=%00&key=%00",
     "nothing=1&before="],
)  # fmt: skip
def test_values_at_their_bounds_are_taken(desk: Desk, query: str) -> None:
    ann = desk.signed_in()
    add_refused(desk.books, ann.name, 1, at_ms=OLD_MS)
    ann.text(f"{REQUESTS}?{query}")
    ann.text(f"{REQUESTS}?state=refused&{query}")


def test_a_search_by_id_leads_straight_to_the_users_own_request(desk: Desk) -> None:
    ann, other = desk.signed_in(), desk.signed_in()
    (own,) = add_refused(desk.books, ann.name, 1, at_ms=OLD_MS)
    (foreign,) = add_refused(desk.books, other.name, 1, at_ms=OLD_MS + 3 * DAY_MS)
    for text in (own, own[4:], own[:12], own[4:20], f" {own.upper().replace('REQ_', 'req_')} "):
        answer = ann.get(REQUESTS, params={"id": text})
        assert answer.status_code == 303
        assert answer.headers["location"] == f"{REQUESTS}/{own}"
    held = add_settled(desk.books, other.name, at_ms=OLD_MS + 3 * DAY_MS)
    for text in (foreign, foreign[:20], held, held[:20], NEVER):
        answer = ann.get(REQUESTS, params={"id": text})
        assert (answer.status_code, "You have no request" in answer.text) == (422, True)


def test_a_beginning_of_several_ids_is_told_with_them(desk: Desk) -> None:
    ann = desk.signed_in()
    made = add_refused(desk.books, ann.name, 3, at_ms=OLD_MS, apart_ms=1)
    answer = ann.get(REQUESTS, params={"id": made[0][:12]})
    assert answer.status_code == 422
    assert all(each in answer.text for each in made)


def test_a_receipt_multiplies_as_explain_does(desk: Desk) -> None:
    ann = desk.sign_in(*desk.books.user(multiplier_micro=1_234_567))
    request_id = add_settled(desk.books, ann.name, at_ms=OLD_MS)
    html = unescape(ann.text(f"{REQUESTS}/{request_id}"))
    rows = [
        re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", row)).strip()
        for row in re.findall(r"<tr.*?</tr>", html, re.DOTALL)
    ]
    # 1,200 × 2.50 + 800 × 1.25 + 350 × 10 = 7,500 USD per million; × 1.234567 = 9,259.2525.
    assert rows[1:] == [
        "Input 1,200 × 2.50 / 1M 0.003",
        "Cached input 800 × 1.25 / 1M 0.001",
        "Output 350 × 10.00 / 1M 0.0035",
        "Sum 0.0075",
        "× user × model multiplier × 1.234567 × 1 0.0092592525",
        "Cost rounded up to 10⁻⁹ 0.009259253",
        "Charged 0.009259253",
        "Held 0.02",
    ]
    assert "0.02 USD was held while it ran, and 0.009259253 USD was charged: the rest is" in html
    for fact in ("streamed", "after 210 ms", "1,234 ms", "the provider reported this usage", ">2<"):
        assert fact in html
    explained = desk.run("explain", request_id)
    for row in rows[1:]:
        assert row.rpartition(" ")[2] in explained


def test_a_cost_above_the_hold_is_told_and_who_bears_what_could_not_be_paid(desk: Desk) -> None:
    rich, poor = desk.signed_in(), desk.sign_in(*desk.books.user(credit="0.005"))
    drawn = add_settled(desk.books, rich.name, at_ms=OLD_MS, held_nanousd=1_000_000)
    html = unescape(rich.text(f"{REQUESTS}/{drawn}"))
    assert "0.001 USD was held while it ran, and 0.0075 USD was charged: more than was" in html
    assert "the operator bears that" not in html
    short = add_settled(desk.books, poor.name, at_ms=OLD_MS, held_nanousd=1_000_000)
    html = unescape(poor.text(f"{REQUESTS}/{short}"))
    assert "0.005 USD was charged: more than was held" in html
    assert "0.0025 USD of its cost could not be paid from your credit; the operator" in html


def test_what_the_provider_reported_is_there_to_be_opened(desk: Desk) -> None:
    ann = desk.signed_in()
    assert desk.ask(ann.api_key) == 200
    desk.books.settled_wallet(ann.name)
    (row,) = desk.books.rows(ann.name)
    html = unescape(ann.text(f"{REQUESTS}/req_{row['id'].hex()}"))
    assert row["raw_usage"]
    assert row["raw_usage"] in html
    # 12 × 2.50 + 3 × 10 = 60 USD per million tokens.
    assert "0.00006 USD was charged" in html


def test_a_running_request_is_listed_and_has_a_page(desk: Desk) -> None:
    ann, may_end = desk.signed_in(), threading.Event()

    async def hold_open(_: SeenRequest, out: Out) -> None:
        import asyncio

        await asyncio.to_thread(may_end.wait, 20)
        await out.json(200, openai_chat())

    desk.site.stub.handle = hold_open
    asking = threading.Thread(target=desk.ask, args=(ann.api_key,))
    asking.start()
    try:
        wait_until(lambda: desk.books.wallet(ann.name)[1] > 0)
        (running,) = listed(ann, state="open")
        assert "so far</small>" in ann.text(REQUESTS)
        assert "so far</small>" in ann.text("/dashboard/live")
        assert listed(ann) == [running]
        held = re.search(r"([\d.]+) USD is held while it runs", ann.text(f"{REQUESTS}/{running}"))
        # 100 tokens of output at 10 USD, and the bound of the input.
        assert held
        assert float(held[1]) > 0.001
    finally:
        may_end.set()
        asking.join()
    desk.books.settled_wallet(ann.name)
    assert "settled" in ann.text(f"{REQUESTS}/{running}")
    assert listed(ann, state="open") == []
    assert "so far" not in ann.text(REQUESTS)


def test_a_refused_request_says_why_and_that_it_cost_nothing(desk: Desk) -> None:
    ann = desk.signed_in()
    assert desk.ask(ann.api_key, model="gpt-nonsense") == 400
    wait_until(lambda: bool(desk.books.rows(ann.name)))
    (refused,) = listed(ann)
    html = unescape(ann.text(f"{REQUESTS}/{refused}"))
    assert 'Unknown model pricing: "gpt-nonsense" is not in the model catalog.' in html
    assert "Nothing was held for it, and nothing was charged." in html


def test_of_a_pruned_request_is_left_what_its_hold_says(desk: Desk) -> None:
    ann = desk.signed_in()
    long_ago_ms = 1_000_000_000_000  # before what any other test here has made
    kept = add_settled(desk.books, ann.name, at_ms=long_ago_ms)
    (gone,) = add_refused(desk.books, ann.name, 1, at_ms=long_ago_ms)
    desk.run("usage", "prune", "--before", "2001-10-01", "--yes")
    html = ann.text(f"{REQUESTS}/{kept}")
    assert "The details of this request have been deleted" in html
    assert "0.0075 USD was charged" in html
    assert ann.get(f"{REQUESTS}/{gone}").status_code == 404


def test_anothers_request_is_as_missing_as_one_that_never_was(desk: Desk) -> None:
    ann, other = desk.signed_in(), desk.signed_in()
    foreign = [add_settled(desk.books, other.name, at_ms=OLD_MS)]
    foreign += add_refused(desk.books, other.name, 1, at_ms=OLD_MS)
    never = ann.get(f"{REQUESTS}/{NEVER}")
    assert never.status_code == 404
    for text in (*foreign, "hello", "req_1", " " * 32, "9" * 40):
        answer = ann.get(f"{REQUESTS}/{text}")
        assert (answer.status_code, answer.text) == (404, never.text), text
    assert other.get(f"{REQUESTS}/{foreign[0]}").status_code == 200


def test_a_full_page_of_the_longest_texts_stays_small(desk: Desk) -> None:
    ann = desk.signed_in()
    now_ms = Clock().now_ms() - DAY_MS
    add_refused(desk.books, ann.name, 30, at_ms=now_ms, model='"' * 5000, reason="'" * 500)
    assert len(ann.get(REQUESTS).content) < 50_000
    raw = add_settled(desk.books, ann.name, at_ms=now_ms, outcome={"raw_usage": "x" * 100_000})
    assert len(ann.get(f"{REQUESTS}/{raw}").content) < 50_000
