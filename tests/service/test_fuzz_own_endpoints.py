"""What no client made from the OpenAPI description would send to our own endpoints is answered too.

Right and wrong values, methods and keys are schemathesis's (test_schemathesis.py); here are
queries that are no proper queries, parameters given twice, odd Accept headers, and HEAD.
"""

import http.client
import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llmproxy.server.usage_query import PARAMETERS
from tests.service.helpers import CHAT, Books, ask, bearer, chat_body
from tests.support.proxy import RunningProxy
from tests.support.stub_provider import StubProvider

OWN = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    database=None,
)
VALUES = st.text(max_size=12) | st.sampled_from(["2026-11-23", "day", "csv", "1000", "9999-12-31"])


@st.composite
def queries(draw: st.DrawFn) -> str:
    """Some parameters in any order, now and then one twice, and often something behind them."""
    names = draw(st.lists(st.sampled_from([*PARAMETERS, "x"]), max_size=4))
    text = "&".join(f"{name}={quote(draw(VALUES), safe='')}" for name in names)
    return text + draw(st.sampled_from(["", "&", "&&=", "%", "%ff=%fe", ";", "&key=x"]))


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


@given(queries(), st.sampled_from(["", "text/csv", "application/json", "*/*", "\xff"]))
@example("group=day&limit=1", "text/csv")
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
        assert (status, kind) == (400, "application/json")
        assert set(json.loads(body)) == {"type", "error", "message", "request_id"}
    elif kind == "text/csv":
        assert "cost_usd" in body.decode().splitlines()[0].split(",")
    else:
        assert kind == "application/json"
        assert {"group", "data", "next_cursor"} <= set(json.loads(body))


@pytest.mark.parametrize(
    "path", ["/v1/key", "/v1/usage", "/v1/usage?limit=x", "/healthz", "/readyz", "/"]
)
def test_head_is_answered_like_get_without_a_body(
    connection: http.client.HTTPConnection, key: str, path: str
) -> None:
    headers = {"x-api-key": key}
    status, kind, _ = asked(connection, "GET", path, headers)
    assert asked(connection, "HEAD", path, headers) == (status, kind, b"")
