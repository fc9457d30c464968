"""Idempotency keys as the SDKs of OpenAI and Anthropic have them."""

# ruff: noqa: ANN401 - the SDKs' overloads are wider than what the tests need.

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import openai
import pytest

from tests.proxy.helpers import Site, Visitor
from tests.proxy.idempotent import ANSWER, Gate, key, refusals
from tests.support.answers import (
    anthropic_message,
    in_turn,
    plain,
)


class Sdk:
    """Calls through both SDKs as they come, which count what they send."""

    def __init__(self, site: Site, who: Visitor, *, max_retries: int = 2) -> None:
        self.url = f"http://127.0.0.1:{site.proxy.port}/v1"
        self.who = who
        self.max_retries = max_retries
        self.sent = 0

    def _count(self, _request: object) -> None:
        self.sent += 1

    def openai(self, **more: Any) -> Any:
        http = openai.DefaultHttpxClient(event_hooks={"request": [self._count]})
        with openai.OpenAI(
            base_url=f"{self.url}/openai",
            api_key=self.who.key,
            max_retries=self.max_retries,
            http_client=http,
        ) as client:
            messages: Any = [{"role": "user", "content": "hi"}]
            return client.chat.completions.create(
                model="gpt-4o", max_tokens=100, messages=messages, extra_headers=key(), **more
            )

    def anthropic(self) -> Any:
        http = anthropic.DefaultHttpxClient(event_hooks={"request": [self._count]})
        with anthropic.Anthropic(
            base_url=f"{self.url}/anthropic", api_key=self.who.key, http_client=http
        ) as client:
            messages: Any = [{"role": "user", "content": "hi"}]
            return client.messages.create(
                model="claude-sonnet-4-6", max_tokens=100, messages=messages, extra_headers=key()
            )


def test_the_openai_sdk_raises_a_conflict_with_what_it_cost_and_tries_once(site: Site) -> None:
    site.stub.handle = plain(ANSWER)
    sdk = Sdk(site, site.visitor())
    assert sdk.openai().usage.prompt_tokens == 10
    with pytest.raises(openai.ConflictError, match="settled and cost") as raised:
        sdk.openai()
    assert raised.value.code == "idempotency_key_used"
    assert isinstance(raised.value.body, dict)
    assert raised.value.body["first_cost_usd"] == "0.000075"
    assert sdk.sent == 2
    with pytest.raises(openai.UnprocessableEntityError, match="belongs to request req_"):
        sdk.openai(temperature=1)
    assert sdk.sent == 3


def test_the_anthropic_sdk_raises_a_conflict_with_what_it_cost_and_tries_once(site: Site) -> None:
    site.stub.handle = plain(anthropic_message())
    sdk = Sdk(site, site.visitor())
    assert sdk.anthropic().content
    with pytest.raises(anthropic.ConflictError, match="settled and cost") as raised:
        sdk.anthropic()
    assert raised.value.type == "conflict_error"
    assert sdk.sent == 2


def test_an_sdks_own_retry_after_a_failure_is_served_under_the_same_key(site: Site) -> None:
    busy = plain(b'{"error":{"message":"busy"}}', 503, [("retry-after-ms", "1")])
    site.stub.handle = in_turn(busy, plain(ANSWER))
    sdk = Sdk(site, site.visitor())
    assert sdk.openai().usage.prompt_tokens == 10
    assert sdk.sent == 2


def test_an_sdk_that_repeats_a_running_request_is_served_when_that_fails(
    site: Site, gate: Gate
) -> None:
    """The SDK comes back by itself: that is why a running request's 409 says to try again."""
    ann, begun = site.visitor(), len(site.stub.requests)
    site.stub.handle = in_turn(gate.failing, plain(ANSWER))
    first, second = Sdk(site, ann, max_retries=0), Sdk(site, ann)
    with ThreadPoolExecutor() as threads:
        failing_soon = threads.submit(first.openai)
        site.stub.wait_for_requests(begun + 1)
        repeated = threads.submit(second.openai)
        assert "still running" in refusals(site, ann)[0]
        gate.go.set()
        with pytest.raises(openai.InternalServerError):
            failing_soon.result(30)
        assert repeated.result(30).usage.prompt_tokens == 10
    assert second.sent == 2
