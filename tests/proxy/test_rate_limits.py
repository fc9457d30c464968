"""Requests and tokens per minute, and concurrent requests, of API keys and of users."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from time import sleep

import openai
import pytest

from tests.proxy.helpers import CHAT, MESSAGES, Got, Site, Visitor, chat, message
from tests.service.helpers import either
from tests.support.answers import openai_chat, openai_chat_stream, openai_usage, plain, stream
from tests.support.limits import (
    Held,
    another_key,
    limit_key,
    limit_user,
    make_seen,
    rate_limits,
    refused_row,
)
from tests.support.waiting import wait_until

FREE = "/v1/anthropic/messages/count_tokens"


def assert_too_many(got: Got, what: str) -> None:
    assert got.status == 429
    error = got.error()
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert what in error["message"]
    wait = got.header("retry-after")
    assert wait is not None
    assert 1 <= int(wait) <= 60
    assert got.header("retry-after-ms") == wait + b"000"
    assert got.header("x-should-retry") is None
    assert f"Try again in {int(wait)} s." in error["message"]


def test_a_key_makes_as_many_requests_in_a_minute_as_it_may(site: Site) -> None:
    site.stub.handle = either
    ann = site.visitor()
    limit_key(site.books, ann.name, requests_per_minute=3)
    for left in (2, 1, 0):
        got = site.ask(ann, CHAT, chat())
        assert got.status == 200
        assert rate_limits(got.header("ratelimit-policy")) == {"requests": {"q": "3", "w": "60"}}
        assert rate_limits(got.header("ratelimit"))["requests"]["r"] == str(left)
    refused = site.ask(ann, CHAT, chat())
    assert_too_many(refused, "This API key may make 3 requests per minute.")
    state = rate_limits(refused.header("ratelimit"))["requests"]
    assert state["r"] == "0"
    assert state["t"].encode() == refused.header("retry-after")
    # What is refused is not counted, sent, or charged, but has its row.
    row = refused_row(site, ann, CHAT, chat())
    assert (row["status"], row["cost_nanousd"]) == (429, 0)
    assert "3 requests per minute" in row["reason"]
    assert [row["state"] for row in site.books.rows(ann.name)].count("settled") == 3
    # Another user does not notice.
    assert site.ask(site.visitor(), CHAT, chat()).status == 200


def test_a_change_of_the_operator_counts_for_the_next_request(site: Site) -> None:
    site.stub.handle = either
    ann = site.visitor()
    assert site.ask(ann, CHAT, chat()).header("ratelimit") is None
    limit_key(site.books, ann.name, requests_per_minute=1)
    assert site.ask(ann, CHAT, chat()).status == 200
    assert site.ask(ann, CHAT, chat()).status == 429
    limit_key(site.books, ann.name, requests_per_minute=2)
    assert site.ask(ann, CHAT, chat()).status == 200
    assert site.ask(ann, CHAT, chat()).status == 429
    limit_key(site.books, ann.name, requests_per_minute=None)
    for _ in range(3):
        assert site.ask(ann, CHAT, chat()).status == 200


def test_a_users_limits_hold_for_all_their_keys_together(site: Site) -> None:
    site.stub.handle = either
    ann = site.visitor()
    both = [ann, Visitor(ann.name, another_key(site.books, ann.name))]
    limit_user(site.books, ann.name, requests_per_minute=2)
    limit_key(site.books, ann.name, requests_per_minute=5)
    got = site.ask(both[0], CHAT, chat())
    assert rate_limits(got.header("ratelimit")).keys() == {"requests", "user-requests"}
    assert site.ask(both[1], MESSAGES, message()).status == 200
    for each in both:
        refused = site.ask(each, CHAT, chat())
        assert_too_many(refused, "The user of this API key may make 2 requests per minute.")


def test_free_requests_count_and_lists_of_models_do_not(site: Site) -> None:
    site.stub.handle = plain(b'{"input_tokens": 5}')
    ann = site.visitor()
    limit_key(site.books, ann.name, requests_per_minute=1)
    make_seen(site)
    bearer = {"authorization": f"Bearer {ann.key}"}
    for _ in range(3):
        connection = HTTPConnection("127.0.0.1", site.proxy.port, timeout=10)
        connection.request("GET", "/v1/openai/models", headers=bearer)
        assert connection.getresponse().status == 200
        connection.close()
    assert site.ask(ann, FREE, message()).status == 200
    assert site.ask(ann, FREE, message()).status == 429


def test_streams_tell_what_is_left_as_well(site: Site) -> None:
    site.stub.handle = stream(openai_chat_stream(usage=openai_usage(10, 5)))
    ann = site.visitor()
    limit_key(site.books, ann.name, requests_per_minute=2, tokens_per_minute=100, concurrent_max=4)
    got = site.ask(ann, CHAT, chat(stream=True))
    assert rate_limits(got.header("ratelimit-policy")) == {
        "requests": {"q": "2", "w": "60"},
        "tokens": {"q": "100", "qu": '"tokens"', "w": "60"},
        "concurrent": {"q": "4", "qu": '"concurrent-requests"'},
    }
    state = rate_limits(got.header("ratelimit"))
    assert [state[name]["r"] for name in ("requests", "tokens", "concurrent")] == ["1", "100", "3"]


@pytest.mark.parametrize("is_limited", [False, True])
def test_a_providers_own_fields_of_this_name_do_not_pass(site: Site, is_limited: bool) -> None:
    """They tell of the operator's account, under names that clients pace themselves by."""
    headers = [
        ("RateLimit", '"theirs";r=5'),
        ("RateLimit-Policy", '"theirs";q=9;w=1'),
        ("x-ratelimit-remaining-requests", "99"),
    ]
    site.stub.handle = plain(openai_chat(), headers=headers)
    ann = site.visitor()
    if is_limited:
        limit_key(site.books, ann.name, requests_per_minute=9)
    got = site.ask(ann, CHAT, chat())
    names = [name.lower() for name, _ in got.headers]
    expected = 1 if is_limited else 0
    assert (names.count(b"ratelimit"), names.count(b"ratelimit-policy")) == (expected, expected)
    assert b"theirs" not in (got.header("ratelimit") or b"")
    assert got.header("x-ratelimit-remaining-requests") == b"99"


def test_the_sdk_waits_as_told_and_raises_its_own_error(site: Site) -> None:
    ann = site.visitor()
    limit_key(site.books, ann.name, requests_per_minute=1)
    site.stub.handle = either
    with openai.OpenAI(
        base_url=f"{site.proxy.url}/v1/openai", api_key=ann.key, max_retries=0
    ) as client:
        ask = client.chat.completions.create
        ask(model="gpt-4o", max_tokens=10, messages=[{"role": "user", "content": "hi"}])
        with pytest.raises(openai.RateLimitError, match="1 requests per minute") as raised:
            ask(model="gpt-4o", max_tokens=10, messages=[{"role": "user", "content": "hi"}])
    assert raised.value.code == "rate_limit_exceeded"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_after_the_told_time_there_is_room_again(site: Site) -> None:
    site.stub.handle = either
    ann = site.visitor()
    limit_key(site.books, ann.name, requests_per_minute=1)
    assert site.ask(ann, CHAT, chat()).status == 200
    wait = site.ask(ann, CHAT, chat()).header("retry-after")
    assert wait is not None
    sleep(int(wait) + 1)
    assert site.ask(ann, CHAT, chat()).status == 200


# --- tokens ---


def test_tokens_of_settled_answers_count_and_the_next_request_is_refused(site: Site) -> None:
    usage = openai_usage(60, 50, cached=30)
    site.stub.handle = plain(openai_chat(usage=usage))
    ann = site.visitor()
    limit_key(site.books, ann.name, tokens_per_minute=220)
    first = site.ask(ann, CHAT, chat())
    assert rate_limits(first.header("ratelimit"))["tokens"]["r"] in {"220", "110"}
    # 110 are below the limit; the second answer reaches it.
    assert site.ask(ann, CHAT, chat()).status == 200
    refused = site.ask(ann, CHAT, chat())
    assert_too_many(refused, "This API key may use 220 tokens per minute.")
    limit_key(site.books, ann.name, tokens_per_minute=221)
    assert site.ask(ann, CHAT, chat()).status == 200


def test_a_running_request_may_pass_over_the_limit_of_tokens(site: Site) -> None:
    site.stub.handle = stream(openai_chat_stream(usage=openai_usage(10, 5000)))
    ann = site.visitor()
    limit_key(site.books, ann.name, tokens_per_minute=100)
    assert site.ask(ann, CHAT, chat(stream=True, max_tokens=6000)).clean_end
    assert_too_many(site.ask(ann, CHAT, chat()), "100 tokens per minute")


# --- requests at once ---


def test_only_so_many_requests_run_at_once(site: Site) -> None:
    site.stub.handle = held = Held()
    ann = site.visitor()
    limit_key(site.books, ann.name, concurrent_max=2)
    with site.send(ann, CHAT, chat()) as one, site.send(ann, CHAT, chat()) as two:
        wait_until(lambda: held.begun == 2)
        refused = site.ask(ann, CHAT, chat())
        assert_too_many(refused, "This API key may have 2 requests running at once.")
        assert rate_limits(refused.header("ratelimit")) == {"concurrent": {"r": "0"}}
        held.let_go()
        assert [site.take(one).status, site.take(two).status] == [200, 200]
    assert site.ask(ann, CHAT, chat()).status == 200


def test_a_client_that_left_counts_until_its_answer_has_been_read(site: Site) -> None:
    site.stub.handle = held = Held()
    ann = site.visitor()
    limit_key(site.books, ann.name, concurrent_max=1)
    with site.send(ann, CHAT, chat()):
        wait_until(lambda: held.begun == 1)
    assert site.ask(ann, CHAT, chat()).status == 429
    held.let_go()
    wait_until(lambda: any(r["state"] == "settled" for r in site.books.rows(ann.name)))
    wait_until(lambda: site.ask(ann, CHAT, chat()).status == 200)


def upstream_fails(site: Site) -> None:
    site.stub.handle = plain(b'{"error": {"message": "no"}}', status=400)


WAYS_OUT: dict[str, Callable[[Site, Visitor], int]] = {
    "an unknown model": lambda site, ann: site.ask(ann, CHAT, chat(model="none")).status,
    "no JSON": lambda site, ann: site.ask(ann, CHAT, b"{").status,
    "no credit": lambda site, ann: site.ask(ann, CHAT, chat(max_tokens=10_000_000)).status,
    "too large": lambda site, ann: site.ask(ann, CHAT, b"x" * 33_554_433).status,
    "served": lambda site, ann: site.ask(ann, CHAT, chat()).status,
    "a stream": lambda site, ann: site.ask(ann, CHAT, chat(stream=True)).status,
}


@pytest.mark.parametrize("name", [name for name in WAYS_OUT if name != "too large"])
def test_every_way_out_gives_the_place_back(site: Site, name: str) -> None:
    site.stub.handle = either
    ann = site.visitor()
    limit_key(site.books, ann.name, concurrent_max=1)
    for _ in range(3):
        assert WAYS_OUT[name](site, ann) != 429


def test_a_failing_provider_and_a_repeat_give_the_place_back(site: Site) -> None:
    ann = site.visitor()
    limit_key(site.books, ann.name, concurrent_max=1)
    upstream_fails(site)
    for _ in range(3):
        assert site.ask(ann, CHAT, chat()).status == 400
    site.stub.handle = either
    statuses = [site.ask(ann, CHAT, chat(), {"idempotency-key": "once"}).status for _ in range(3)]
    assert statuses == [200, 409, 409]


def test_a_body_that_never_comes_gives_the_place_back(site: Site) -> None:
    site.stub.handle = either
    ann = site.visitor()
    limit_key(site.books, ann.name, concurrent_max=1)
    for _ in range(2):
        with site.send(ann, CHAT, chat()[:-20] + b" " * 20) as client:
            client.recv_head()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ann.key}\r\n"
        "content-length: 100\r\n\r\n{"
    ).encode()
    with site.send(ann, CHAT, b"{") as client:
        client.recv_head()
        client.body()
        client.send(head)
        wait_until(lambda: site.ask(ann, CHAT, chat()).status == 429)
    wait_until(lambda: site.ask(ann, CHAT, chat()).status == 200)


def test_a_request_that_is_admitted_anew_is_counted_once(site: Site) -> None:
    """While its body comes, the operator changes something: it enters a second time."""
    site.stub.handle = either
    ann = site.visitor()
    limit_key(site.books, ann.name, requests_per_minute=2, concurrent_max=1)
    body = chat()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ann.key}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode()
    with site.send(ann, CHAT, b"{") as client:  # the first of the minute: refused as no JSON
        client.recv_head()
        client.body()
        client.send(head + body[:10])
        wait_until(lambda: site.ask(ann, CHAT, body).status == 429)
        limit_key(site.books, ann.name, daily_budget_nanousd=4_000_000_000)
        site.ask(site.visitor(), CHAT, chat())  # the change is known
        client.send(body[10:])
        got = site.take(client)
    assert got.status == 200
    assert rate_limits(got.header("ratelimit"))["requests"]["r"] == "0"


def test_many_at_once_get_exactly_the_places_that_there_are(site: Site) -> None:
    site.stub.handle = held = Held()
    ann = site.visitor()
    limit_key(site.books, ann.name, concurrent_max=5)
    with ThreadPoolExecutor(30) as threads:
        asked = [threads.submit(site.ask, ann, CHAT, chat()) for _ in range(30)]
        wait_until(lambda: sum(each.done() for each in asked) == 25)
        held.let_go()
        statuses = sorted(each.result(20).status for each in asked)
    assert statuses == [200] * 5 + [429] * 25
    assert held.begun == 5


def test_a_flood_beyond_a_limit_reaches_no_provider(site: Site) -> None:
    site.stub.handle = either
    ann = site.visitor()
    limit_key(site.books, ann.name, requests_per_minute=10)
    before = len(site.stub.requests)
    with ThreadPoolExecutor(20) as threads:
        asked = [threads.submit(site.ask, ann, CHAT, chat()) for _ in range(100)]
        statuses = sorted(each.result(20).status for each in asked)
    assert statuses == [200] * 10 + [429] * 90
    assert len(site.stub.requests) == before + 10
