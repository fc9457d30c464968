"""The families of endpoints, a request to each, and what every error of our own is like."""

import json
import re
from typing import Any, NamedTuple

from tests.proxy.helpers import CREDIT_NANOUSD, Got, Site, Visitor

BODY_BYTES_MAX = 50_000
USER = [{"role": "user", "content": "hi"}]


class Family(NamedTuple):
    """An endpoint, a request to it, and an option that it cannot meter."""

    path: str
    body: dict[str, Any]
    option: dict[str, Any] | None = None
    is_free: bool = False

    @property
    def provider(self) -> str:
        return self.path.split("/")[2]

    def request(self, **fields: object) -> bytes:
        return json.dumps({**self.body, **fields}).encode()


PAID = {
    "chat": Family(
        "/v1/openai/chat/completions",
        {"model": "gpt-4o", "max_tokens": 100, "messages": USER},
        {"web_search_options": {}},
    ),
    "responses": Family(
        "/v1/openai/responses",
        {"model": "gpt-5.6-luna", "max_output_tokens": 100, "input": "hi"},
        {"background": True},
    ),
    "compact": Family(
        "/v1/openai/responses/compact",
        {"model": "gpt-5.6-luna", "input": "hi"},
        {"conversation": "conv_1"},
    ),
    "completions": Family(
        "/v1/openai/completions",
        {"model": "gpt-3.5-turbo-instruct", "max_tokens": 100, "prompt": "hi"},
        {"models": ["another"]},
    ),
    "embeddings": Family(
        "/v1/openai/embeddings",
        {"model": "text-embedding-3-small", "input": "hi"},
        {"stream": True},
    ),
    "messages": Family(
        "/v1/anthropic/messages",
        {"model": "claude-sonnet-4-6", "max_tokens": 100, "messages": USER},
        {"container": "container_1"},
    ),
}
FREE = {
    "moderations": Family("/v1/openai/moderations", {"input": "hi"}, None, is_free=True),
    "input_tokens": Family(
        "/v1/openai/responses/input_tokens",
        {"model": "gpt-5.6-luna", "input": "hi"},
        {"conversation": "conv_1"},
        is_free=True,
    ),
    "count_tokens": Family(
        "/v1/anthropic/v1/messages/count_tokens",
        {"model": "claude-sonnet-4-6", "messages": USER},
        {"container": "container_1"},
        is_free=True,
    ),
}
FAMILIES = PAID | FREE


RETRIES = {True: b"true", False: b"false", None: None}


def check(got: Got, status: int, kind: str, code: str, *, should_retry: bool | None) -> str:
    """Check an error's envelope and headers; return its message."""
    assert got.status == status, got.body
    assert got.clean_end
    envelope = json.loads(got.body)
    error = envelope["error"]
    assert set(envelope) == {"type", "error", "message", "request_id"}
    assert envelope["type"] == "error"
    assert {"type", "message", "param", "code"} <= set(error)
    assert (error["type"], error["code"]) == (kind, code)
    message: str = error["message"]
    assert message
    assert message == envelope["message"]
    assert got.header("content-type") == b"application/json"
    assert re.fullmatch(r"req_[0-9a-f]{32}", envelope["request_id"])
    for name in ("x-request-id", "request-id", "x-llmproxy-request-id"):
        assert got.header(name) == envelope["request_id"].encode()
    assert got.header("x-should-retry") == RETRIES[should_retry]
    return message


def check_rest(got: Got) -> int:
    """Check what an error says of the time to wait; return it in seconds."""
    told, told_ms = got.header("retry-after"), got.header("retry-after-ms")
    assert told is not None
    assert told_ms == told + b"000"
    assert 1 <= int(told) <= 60
    return int(told)


def check_no_rest(got: Got) -> None:
    assert got.header("retry-after") is None
    assert got.header("retry-after-ms") is None


def check_free(site: Site, visitor: Visitor) -> None:
    """Nothing is charged and nothing is held."""
    assert site.books.settled_wallet(visitor.name) == CREDIT_NANOUSD
