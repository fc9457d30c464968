"""The table of refusals (reference wire.md D.2), row by row, on every family of endpoints.

What single endpoints do in finer cases stands in tests/service.
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.proxy.families import (
    BODY_BYTES_MAX,
    FAMILIES,
    FREE,
    PAID,
    Family,
    check,
    check_free,
    check_no_rest,
)
from tests.proxy.helpers import Got, Site, Visitor
from tests.support.answers import CannedError, failing
from tests.support.raw_client import RawClient


@pytest.fixture
def site(error_site: Site) -> Site:
    return error_site


class Refusal(NamedTuple):
    """What is wrong with a request, and what it is told."""

    status: int
    kind: str
    code: str
    body: Callable[[Family], bytes] = Family.request
    headers: dict[str, str] | None = None
    method: str = "POST"
    behind_path: str = ""


INVALID = "invalid_request_error"
WEBSOCKET = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
ALL_REFUSALS = {
    "no JSON": Refusal(400, INVALID, "invalid_request", lambda one: one.request()[:-1]),
    "no object": Refusal(400, INVALID, "invalid_request", lambda _: b"[]"),
    "a model that is no text": Refusal(
        400, INVALID, "invalid_request", lambda one: one.request(model=5)
    ),
    "a key that stands twice": Refusal(
        400,
        INVALID,
        "invalid_request",
        lambda one: one.request()[:-1] + b',"model":"x","model":"y"}',
    ),
    "no key": Refusal(401, "authentication_error", "invalid_api_key", headers={}),
    "unknown key": Refusal(
        401, "authentication_error", "invalid_api_key", headers={"x-api-key": "sk-unknown"}
    ),
    "endpoint": Refusal(400, INVALID, "endpoint_not_metered", behind_path="/batches"),
    "method": Refusal(405, INVALID, "invalid_request", method="GET"),
    "too large": Refusal(
        413, "request_too_large", "request_too_large", lambda _: b" " * (BODY_BYTES_MAX + 1)
    ),
    "WebSocket": Refusal(
        426, INVALID, "websocket_unsupported", lambda _: b"", method="GET", headers=WEBSOCKET
    ),
}
PAID_REFUSALS = {
    "no model": Refusal(400, INVALID, "invalid_request", lambda _: b"{}"),
    "unpriced model": Refusal(
        400, INVALID, "unknown_model_pricing", lambda one: one.request(model="gpt-99")
    ),
}
OPTION = Refusal(400, INVALID, "option_not_metered", lambda one: one.request(**(one.option or {})))
TABLE = [
    *((family, name, ALL_REFUSALS[name]) for family in FAMILIES for name in ALL_REFUSALS),
    *((family, name, PAID_REFUSALS[name]) for family in PAID for name in PAID_REFUSALS),
    *((name, "option", OPTION) for name, family in FAMILIES.items() if family.option),
]


def ask_refusal(site: Site, visitor: Visitor, family: Family, refusal: Refusal) -> Got:
    # A key of no use takes the place of the good one; an upgrade comes with the good one.
    is_about_keys = refusal.status == 401
    headers = {} if is_about_keys else {"authorization": f"Bearer {visitor.key}"}
    headers |= refusal.headers or {}
    body = refusal.body(family)
    lines = [f"{refusal.method} {family.path}{refusal.behind_path} HTTP/1.1", "host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"content-length: {len(body)}")
    with RawClient(site.proxy.port) as client:
        client.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return site.take(client)


@pytest.mark.parametrize(
    ("family", "name", "refusal"), TABLE, ids=[f"{family}-{name}" for family, name, _ in TABLE]
)
def test_a_refused_request_is_told_why_and_sends_nothing(
    site: Site, family: str, name: str, refusal: Refusal
) -> None:
    before = len(site.stub.requests)
    visitor = site.visitor()
    got = ask_refusal(site, visitor, FAMILIES[family], refusal)
    message = check(got, refusal.status, refusal.kind, refusal.code, should_retry=False)
    check_no_rest(got)
    if name == "unpriced model":
        assert message.startswith('Unknown model pricing: "gpt-99" is not in the model catalog.')
    if name == "option":
        (option,) = FAMILIES[family].option or {}
        assert option in message
        assert option in got.error()["param"]
    if name == "unknown key":
        assert b"sk-unknown" not in got.body
    if name == "WebSocket":
        assert got.header("upgrade") == b"HTTP/1.1"
    if name == "method":
        assert got.header("allow") == b"POST"
    assert len(site.stub.requests) == before
    check_free(site, visitor)


@pytest.mark.parametrize("family", PAID)
def test_a_request_beyond_the_balance_is_told_the_numbers(site: Site, family: str) -> None:
    before = len(site.stub.requests)
    visitor = Visitor(*site.books.user("0.000001"))
    got = site.ask(visitor, PAID[family].path, PAID[family].request())
    message = check(got, 402, "billing_error", "insufficient_credit", should_retry=False)
    check_no_rest(got)
    error = got.error()
    advice = "send less input" if family == "embeddings" else "lower max_tokens"
    assert message.startswith(f"Insufficient credit balance — top up or {advice}. ")
    assert (error["available_usd"], error["held_usd"]) == ("0.000001", "0.00")
    assert f"Needed {error['needed_usd']} USD, available 0.000001 USD" in message
    assert error["max_tokens_affordable"] == 0
    assert len(site.stub.requests) == before


def test_what_is_free_needs_no_balance(site: Site) -> None:
    site.stub.handle = failing(CannedError(200, [], b"{}"))
    for family in FREE.values():
        visitor = Visitor(*site.books.user("0"))
        assert site.ask(visitor, family.path, family.request()).status == 200
