"""Whatever is asked of the proxy's own endpoints: an answer of the documented shape, or a refusal.

There is no OpenAPI description for a tool to go by (S26: none is served), so the table of paths,
parameters and members stands here.
"""

import http.client
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llmproxy.server.usage_query import FORMATS, GROUPS, PARAMETERS
from tests.service.helpers import CHAT, Books, ask, bearer, chat_body
from tests.support.proxy import RunningProxy
from tests.support.stub_provider import StubProvider

MONEY = re.compile(r"-?\d+\.\d{2,9}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z")
OWN = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    database=None,
)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
MOMENTS = st.sampled_from(
    [
        *("2026-11-23", "2026-11-23T09:30:00Z", "2026-11-23T09:30:00.123456+01:00", "1970-01-01"),
        *("9999-12-31", "0001-01-01", "2026-02-30", "2026-11-23T25:00", "now", "", "-1", "1e9"),
        *("2026-11-23T09:30:00+99:99", "२०२६-११-२३", "2026-11-23 09:30", "2026-11-23T09:30:00 01"),
    ]
)
WORDS = st.text(max_size=12) | st.sampled_from(["none", "day", "model", "json", "csv", "0", "1000"])
VALUES = {
    "from": MOMENTS | WORDS,
    "to": MOMENTS | WORDS,
    "group": st.sampled_from(GROUPS) | WORDS,
    "format": st.sampled_from(FORMATS) | WORDS,
    "limit": st.integers(-2, 2000).map(str) | WORDS,
    "cursor": WORDS | st.integers(0, 2**128 - 1).map(lambda number: f"req_{number:032x}"),
}


@st.composite
def queries(draw: st.DrawFn) -> str:
    """Some parameters, most of them known, in any order; now and then one twice, or raw bytes."""
    names = draw(st.lists(st.sampled_from([*PARAMETERS, "x"]), max_size=4))
    pairs = [(name, draw(VALUES.get(name, WORDS))) for name in names]
    text = "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)
    return text + draw(st.sampled_from(["", "", "", "&", "&&=", "%", "%ff=%fe", ";", "&key=x"]))


@pytest.fixture(scope="module")
def key(proxy: RunningProxy, books: Books, shared_stub: StubProvider) -> str:
    """A user with a few requests to be told of."""
    del shared_stub
    _, key = books.user()
    for model in ("gpt-4o", "=1+1", "no\u202ename"):
        ask(proxy.port, "POST", CHAT, chat_body(model=model), bearer(key))
    return key


@pytest.fixture(scope="module")
def connection(proxy: RunningProxy) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)
    yield connection
    connection.close()


def asked(
    connection: http.client.HTTPConnection, method: str, path: str, headers: dict[str, str]
) -> tuple[int, str, bytes]:
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.headers.get_content_type(), answer.read()


def check_refusal(status: int, kind: str, body: bytes) -> None:
    assert 400 <= status < 500
    assert kind == "application/json"
    envelope = json.loads(body)
    assert set(envelope) == {"type", "error", "message", "request_id"}
    assert set(envelope["error"]) >= {"type", "message", "param", "code"}


def check_page(page: dict[str, Any]) -> None:
    assert set(page) == {"from", "to", "group", "data", "next_cursor", "pruned_before"}
    assert page["group"] in GROUPS
    assert MOMENT.fullmatch(page["from"])
    assert MOMENT.fullmatch(page["to"])
    assert page["from"] < page["to"]
    for row in page["data"]:
        money = {name: value for name, value in row.items() if name.endswith("_usd")}
        assert {"cost_usd", "charged_usd"} <= set(money)
        assert all(value is None or MONEY.fullmatch(value) for value in money.values())


@given(queries(), st.sampled_from(["", "text/csv", "application/json", "*/*", "\xff"]))
@example("group=day&limit=1", "")
@example("from=2026-02-30", "")
@example("to=0001-01-01T00:00:00%2B23:59", "")
@example("from=9999-12-31&to=0001-01-01", "")
@OWN
def test_usage_is_a_page_a_table_or_a_refusal(
    connection: http.client.HTTPConnection, key: str, query: str, accept: str
) -> None:
    headers = {"x-api-key": key, "accept": accept}
    status, kind, body = asked(connection, "GET", f"/v1/usage?{query}", headers)
    if status != 200:
        check_refusal(status, kind, body)
    elif kind == "text/csv":
        lines = body.decode().splitlines()
        assert "cost_usd" in lines[0].split(",")
    else:
        assert kind == "application/json"
        check_page(json.loads(body))


@given(METHODS, st.sampled_from(["/v1/key", "/v1/usage", "/healthz", "/readyz", "/"]), queries())
@OWN
def test_every_method_is_answered_or_refused(
    connection: http.client.HTTPConnection, key: str, method: str, path: str, query: str
) -> None:
    status, kind, body = asked(connection, method, f"{path}?{query}", {"x-api-key": key})
    is_own = path in {"/v1/key", "/v1/usage"}
    if method not in {"GET", "HEAD"}:
        assert status == 405 or (method == "OPTIONS" and not is_own and status == 204)
    elif path != "/v1/usage":
        assert status == 200
    assert status < 500
    if method == "HEAD":
        assert body == b""
    elif status >= 400:
        check_refusal(status, kind, body)


@given(st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=80), queries())
@OWN
def test_nobody_gets_in_by_any_text(
    connection: http.client.HTTPConnection, text: str, query: str
) -> None:
    headers = {"authorization": f"Bearer {text}", "x-api-key": text}
    for path in ("/v1/key", f"/v1/usage?{query}"):
        status, kind, body = asked(connection, "GET", path, headers)
        assert status == 401
        check_refusal(status, kind, body)


def test_the_key_tells_what_is_documented(connection: http.client.HTTPConnection, key: str) -> None:
    status, kind, body = asked(connection, "GET", "/v1/key", {"x-api-key": key})
    assert (status, kind) == (200, "application/json")
    told = json.loads(body)
    money = {name: value for name, value in told.items() if name.endswith("_usd")}
    assert {"balance_usd", "held_usd", "available_usd"} <= set(money)
    assert all(MONEY.fullmatch(value) for value in money.values())
    assert MOMENT.fullmatch(told["created_at"])
