"""Corners of who pays: what was asked but not repeated, errors, and clients that leave early."""

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.conftest import running_site
from tests.proxy.helpers import CHAT, MESSAGES, Site, chat, message
from tests.support.answers import (
    anthropic_message,
    anthropic_usage,
    openai_chat,
    openai_chat_stream,
    openai_usage,
    plain,
)
from tests.support.stub_provider import Out, SeenRequest

GPT_5_5 = {"model": "gpt-5.5", "max_completion_tokens": 1000}
"""5 and 30 USD per million tokens; with priority 12.50 and 75."""


def priority_nanousd(input_tokens: int, output_tokens: int) -> int:
    return input_tokens * 12_500 + output_tokens * 75_000


def test_a_service_tier_that_was_asked_for_is_charged_though_the_answer_does_not_repeat_it(
    site: Site,
) -> None:
    usage = openai_usage(1000, 200)
    site.stub.handle = plain(openai_chat(usage=usage, service_tier=None))
    visitor = site.visitor()
    site.ask(visitor, CHAT, chat(**GPT_5_5, service_tier="priority"))
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=priority_nanousd(1000, 200))


def test_a_service_tier_that_is_reported_counts_more_than_what_was_asked_for(site: Site) -> None:
    site.stub.handle = plain(openai_chat(usage=openai_usage(1000, 200), service_tier="default"))
    visitor = site.visitor()
    site.ask(visitor, CHAT, chat(**GPT_5_5, service_tier="priority"))
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=1000 * 5_000 + 200 * 30_000)


def test_a_service_tier_nobody_knows_is_charged_at_the_dearest(site: Site) -> None:
    site.stub.handle = plain(openai_chat(usage=openai_usage(1000, 200), service_tier="hyper"))
    visitor = site.visitor()
    site.ask(visitor, CHAT, chat(**GPT_5_5))
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=priority_nanousd(1000, 200))


def test_a_speed_that_was_asked_for_is_charged_though_the_answer_does_not_repeat_it(
    site: Site,
) -> None:
    site.stub.handle = plain(anthropic_message(usage=anthropic_usage(1000, 200)))
    visitor = site.visitor()
    site.ask(visitor, MESSAGES, message(model="claude-opus-4-8", speed="fast"))
    # Twice 5 and 25 USD per million tokens.
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=1000 * 10_000 + 200 * 50_000)


@pytest.mark.parametrize(
    ("reported", "input_rate", "output_rate"),
    [
        # 5 and 25 USD per million tokens; in the USA a tenth more.
        ({}, 5_500, 27_500),
        ({"inference_geo": "us"}, 5_500, 27_500),
        ({"inference_geo": "global"}, 5_000, 25_000),
    ],
)
def test_a_region_that_was_asked_for_is_charged_unless_the_answer_tells_another(
    site: Site, reported: dict[str, Any], input_rate: int, output_rate: int
) -> None:
    site.stub.handle = plain(anthropic_message(usage=anthropic_usage(1000, 200, **reported)))
    visitor = site.visitor()
    site.ask(visitor, MESSAGES, message(model="claude-opus-4-7", inference_geo="us"))
    nanousd = 1000 * input_rate + 200 * output_rate
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=nanousd)


def test_an_error_whose_body_stalls_costs_nothing_when_its_client_leaves(
    hasty_site: Site,
) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(500, [("content-type", "application/json")], length=1000)
        await out.send(b'{"error":')
        await out.client_gone.wait()

    hasty_site.stub.handle = handle
    visitor = hasty_site.visitor()
    before = len(hasty_site.stub.requests)
    client = hasty_site.send(visitor, CHAT, chat(model="gpt-5-mini"))
    hasty_site.stub.wait_for_requests(before + 1)
    client.abort()
    row = hasty_site.assert_released(visitor)
    assert row["upstream_status"] == 500


def test_a_client_that_leaves_before_its_request_is_sent_pays_nothing(site: Site) -> None:
    site.stub.handle = plain(openai_chat())
    visitor = site.visitor()
    site.ask(site.visitor(), CHAT, chat())  # the proxy knows both of them now
    before = len(site.stub.requests)
    lock = sqlite3.connect(site.proxy.home / "data" / "llmproxy.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")  # no hold can be made meanwhile
    client = site.send(visitor, CHAT, chat())
    time.sleep(0.3)
    client.abort()
    time.sleep(0.2)
    lock.execute("ROLLBACK")
    lock.close()
    row = site.assert_released(visitor)
    assert row["reason"] == "the client left before the request was sent"
    assert len(site.stub.requests) == before


def test_thinking_before_the_first_event_has_the_time_of_a_first_byte(tmp_path: Path) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "text/event-stream")])
        await asyncio.sleep(2)
        for event in openai_chat_stream(usage=openai_usage(10, 5)):
            await out.chunk(event)
        await out.end()

    limits = {"LLMPROXY_IDLE_TIMEOUT_S": "1", "LLMPROXY_FIRST_BYTE_TIMEOUT_S": "10"}
    with running_site(tmp_path, limits) as site:
        site.stub.handle = handle
        visitor = site.visitor()
        got = site.ask(visitor, CHAT, chat(stream=True))
        assert b"[DONE]" in got.body
        site.assert_paid(visitor, state="settled", basis="usage", nanousd=10 * 2_500 + 5 * 10_000)
