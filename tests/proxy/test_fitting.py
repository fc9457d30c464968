"""Holds that are made to fit: the largest maximum that the credit pays for is written in."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from llmproxy.dialects.json_gate import with_output_max
from tests.proxy.helpers import CHAT, MESSAGES, Got, Site, Visitor, chat, message
from tests.support.answers import anthropic_message, openai_chat, openai_usage, plain

CLAMP = {"x-llmproxy-clamp": "1"}
RATE = 10_000
"""Nano-USD per token of gpt-4o's output: 10 USD per million."""


def visitor(site: Site, credit: str) -> Visitor:
    return Visitor(*site.books.user(credit))


def unlimited(**fields: Any) -> bytes:  # noqa: ANN401
    """A chat request without a maximum; null counts as none."""
    return chat(max_tokens=None, **fields)


def allowed(got: Got) -> int:
    found = got.header("x-llmproxy-max-tokens")
    assert found is not None
    return int(found)


def held(site: Site, who: Visitor) -> int:
    return int(site.ended(who)["hold_nanousd"])


# --- requests that set no maximum ---


def test_a_maximum_is_written_into_a_request_that_sets_none(site: Site) -> None:
    site.stub.handle = plain(openai_chat(usage=openai_usage(10, 5)))
    ann = visitor(site, "0.05")  # gpt-4o may answer with 16,384 tokens: 0.16 USD
    body = unlimited()
    got = site.ask(ann, CHAT, body)
    assert got.status == 200
    written = site.last_request().json()["max_completion_tokens"]
    assert written == allowed(got)
    # As much as there is room for, and not a token more.
    assert 50_000_000 - RATE < held(site, ann) <= 50_000_000
    assert 1024 <= written < 5000
    assert site.last_request().body == with_output_max(
        body, ("max_completion_tokens",), written, read=("max_completion_tokens",)
    )


def test_nothing_is_written_where_the_whole_bound_fits(site: Site) -> None:
    site.stub.handle = plain(openai_chat())
    body = unlimited()
    got = site.ask(site.visitor(), CHAT, body)
    assert got.header("x-llmproxy-max-tokens") is None
    assert site.last_request().body == body


@pytest.mark.parametrize(
    ("path", "body", "member"),
    [
        ("/v1/openai/responses", b'{"model":"gpt-4o","input":"hi"}', "max_output_tokens"),
        ("/v1/openai/chat/completions", b'{"model":"gpt-4o"}', "max_completion_tokens"),
    ],
)
def test_each_endpoint_has_its_own_word_for_it(
    site: Site, path: str, body: bytes, member: str
) -> None:
    site.stub.handle = plain(openai_chat())
    got = site.ask(visitor(site, "0.05"), path, body)
    assert site.last_request().json()[member] == allowed(got)


def test_so_little_that_an_answer_would_be_cut_off_is_a_402(site: Site) -> None:
    seen = len(site.stub.requests)
    got = site.ask(visitor(site, "0.01"), CHAT, unlimited())
    assert (got.status, got.error()["code"]) == (402, "insufficient_credit")
    assert len(site.stub.requests) == seen


def test_an_endpoint_without_a_maximum_is_a_402(site: Site) -> None:
    path, body = "/v1/openai/responses/compact", b'{"model":"gpt-4o","input":"hi"}'
    assert site.ask(visitor(site, "0.05"), path, body).status == 402


def test_several_choices_share_what_there_is(site: Site) -> None:
    site.stub.handle = plain(openai_chat())
    one = allowed(site.ask(visitor(site, "0.08"), CHAT, unlimited()))
    two = allowed(site.ask(visitor(site, "0.08"), CHAT, unlimited(n=2)))
    assert 2 * two <= one < 2 * two + 10


# --- requests that set one ---


def test_a_maximum_that_does_not_fit_is_a_402_that_says_what_would(site: Site) -> None:
    ann = visitor(site, "0.05")
    got = site.ask(ann, CHAT, chat(max_tokens=9000))
    assert got.status == 402
    fitting = got.error()["max_tokens_affordable"]
    site.stub.handle = plain(openai_chat())
    assert site.ask(ann, CHAT, chat(max_tokens=fitting)).status == 200


@pytest.mark.parametrize("value", ["0", "yes", ""])
def test_only_a_clear_word_clamps(site: Site, value: str) -> None:
    got = site.ask(visitor(site, "0.05"), CHAT, chat(max_tokens=9000), {"x-llmproxy-clamp": value})
    assert got.status == 402


def test_a_maximum_is_lowered_when_the_client_says_so(site: Site) -> None:
    site.stub.handle = plain(openai_chat())
    got = site.ask(visitor(site, "0.05"), CHAT, chat(max_tokens=9000), CLAMP)
    assert (got.status, site.last_request().json()["max_tokens"]) == (200, allowed(got))
    assert site.last_request().header("x-llmproxy-clamp") is None
    assert allowed(got) < 9000


def test_a_lowered_maximum_may_be_small_but_never_nothing(site: Site) -> None:
    site.stub.handle = plain(openai_chat())
    got = site.ask(visitor(site, "0.0016"), CHAT, chat(max_tokens=9000), CLAMP)
    assert 0 < allowed(got) < 100
    assert site.ask(visitor(site, "0.0001"), CHAT, chat(max_tokens=9000), CLAMP).status == 402


def test_of_two_maxima_neither_is_raised(site: Site) -> None:
    site.stub.handle = plain(openai_chat())
    body = chat(max_tokens=5, max_completion_tokens=9000)
    got = site.ask(visitor(site, "0.05"), CHAT, body, CLAMP)
    sent = site.last_request().json()
    assert (sent["max_tokens"], sent["max_completion_tokens"]) == (5, allowed(got))


def test_messages_are_lowered_too(site: Site) -> None:
    site.stub.handle = plain(anthropic_message())
    got = site.ask(visitor(site, "0.05"), MESSAGES, message(max_tokens=64_000), CLAMP)
    assert (got.status, site.last_request().json()["max_tokens"]) == (200, allowed(got))


# --- money ---


def test_several_at_once_never_hold_more_than_there_is(site: Site) -> None:
    usage = openai_usage(10, 1500)
    site.stub.handle = plain(openai_chat(usage=usage))
    ann = visitor(site, "0.05")
    with ThreadPoolExecutor(5) as threads:
        answered = list(threads.map(lambda _: site.ask(ann, CHAT, unlimited()), range(5)))
    statuses = sorted(got.status for got in answered)
    assert statuses[0] == 200
    assert set(statuses) <= {200, 402}
    site.books.settled_wallet(ann.name)
    rows = site.books.rows(ann.name)
    assert sum(row["shortfall_nanousd"] for row in rows) == 0
    assert all(row["cost_nanousd"] <= row["hold_nanousd"] for row in rows if row["status"] == 200)


def test_a_client_that_leaves_meanwhile_leaves_no_hold(site: Site) -> None:
    site.stub.handle = plain(openai_chat())
    ann = visitor(site, "0.05")
    for _ in range(20):
        site.send(ann, CHAT, unlimited()).abort()
    site.books.settled_wallet(ann.name)


def test_only_the_maximum_is_touched() -> None:
    body = b' { "a" : [1, {"max_tokens": 7}], "max_tokens" : 900 , "n":1}'
    assert with_output_max(body, ("max_tokens",), 50, read=("max_tokens",)) == body.replace(
        b"900", b"50"
    )
    assert json.loads(with_output_max(b"{}", ("x",), 50, read=("x",))) == {"x": 50}
    null = b'{"max_tokens":null,"max_completion_tokens":7}'
    members = ("max_completion_tokens", "max_tokens")
    assert with_output_max(null, members, 5, read=members) == null.replace(b"7", b"5")


def test_what_is_written_in_is_what_the_provider_reads() -> None:
    members = ("max_completion_tokens", "max_tokens")
    zero = b'{"max_tokens":0,"n":1}'
    assert with_output_max(zero, members, 5, read=("max_tokens",)) == zero.replace(b"0", b"5")
    other = b'{"max_completion_tokens":9}'
    written = with_output_max(other, members, 5, read=("max_tokens",))
    assert json.loads(written) == {"max_tokens": 5, "max_completion_tokens": 5}
    assert with_output_max(other, members, 7, read=members) == other.replace(b"9", b"7")
