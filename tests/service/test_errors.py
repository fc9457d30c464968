"""Every refusal of the proxy: status, wording, envelope, headers, and that nothing was sent."""

import json
import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from llmproxy import accounts
from llmproxy.clock import Clock
from llmproxy.logs import FLUSH_INTERVAL_S
from llmproxy.vault import new_api_key
from tests.service.helpers import (
    BODY_BYTES_MAX,
    CHAT,
    MESSAGES,
    Books,
    ask,
    bearer,
    chat_body,
    closed_provider,
)
from tests.support.proxy import Answered, RunningProxy
from tests.support.raw_client import RawClient
from tests.support.stub_provider import StubProvider

GROQ, XAI, MISTRAL = (f"/v1/{name}/chat/completions" for name in ("groq", "xai", "mistral"))
WEBSOCKET = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    402: "billing_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    426: "invalid_request_error",
    429: "rate_limit_error",
    502: "api_error",
    503: "api_error",
}


class Case(NamedTuple):
    """A request and the refusal that it must get."""

    status: int
    code: str
    message: str
    """A pattern that the whole message matches."""
    path: str = CHAT
    body: bytes | dict[str, Any] | None = None
    method: str = "POST"
    headers: dict[str, str] | None = None
    should_retry: str | None = "false"
    is_chunked: bool = False


def bad(body: bytes | dict[str, Any], message: str) -> Case:
    return Case(400, "invalid_request", message, body=body)


def key_refused(given: str) -> Case:
    return Case(
        401,
        "invalid_api_key",
        r"Invalid API key\. It is unknown, expired or revoked\.",
        headers={"authorization": given},
    )


def nowhere(path: str, method: str = "POST") -> Case:
    return Case(404, "unknown_path", r"There is nothing at this path\. .+", path, method=method)


def not_metered(path: str, method: str = "POST") -> Case:
    message = r'".+" of openai cannot be metered and is not forwarded(: .+)?\. Available: .+'
    return Case(400, "endpoint_not_metered", message, path, method=method)


def wrong_method(method: str, path: str, allowed: str) -> Case:
    return Case(405, "invalid_request", rf"Use {allowed} for this path\.", path, method=method)


MAX_TOKENS = r"`max_tokens` must be a whole number from 0 to \d+\."
NO_KEY = r"No API key given\. Send it as `Authorization: Bearer <key>` or `x-api-key: <key>`\."
TOO_LARGE = rf"The request body is larger than {BODY_BYTES_MAX} bytes\."
UNKNOWN_MODEL = (
    r'Unknown model pricing: "gpt-4-o" is not in the model catalog\. Nearest: .*gpt-4o.*'
)
TWICE = r"The request body is ambiguous JSON: the key 'model' stands twice in one object\."
NOT_JSON = r"The request body is not valid JSON\."

CASES = {
    "unknown model": Case(
        400, "unknown_model_pricing", UNKNOWN_MODEL, body=chat_body(model="gpt-4-o")
    ),
    "unknown model of anthropic": Case(
        400,
        "unknown_model_pricing",
        r'Unknown model pricing: "claude" is not in the model catalog\..*',
        MESSAGES,
        chat_body(model="claude"),
    ),
    "no key": Case(401, "invalid_api_key", NO_KEY, headers={"authorization": ""}),
    "basic authentication": Case(
        401, "invalid_api_key", NO_KEY, headers={"authorization": "Basic YTpi"}
    ),
    "unknown key": key_refused(f"Bearer {new_api_key()}"),
    "malformed key": key_refused("Bearer sk-proj-secret-of-somebody"),
    "huge key": key_refused("Bearer llmp_" + "a" * 5000),
    "key with a quote": key_refused("Bearer llmp_' OR 1=1 --"),
    "revoked key": key_refused("Bearer {revoked}"),
    "key of a disabled user": Case(
        403,
        "user_disabled",
        r"This API key's user is disabled\. An administrator can enable them again\.",
        headers={"authorization": "Bearer {disabled}"},
    ),
    "paused provider": Case(
        429,
        "provider_paused",
        r"Provider xai is paused: invoice unpaid\. An administrator can resume it\.",
        XAI,
        chat_body(model="grok-3"),
    ),
    "provider without keys": Case(
        503,
        "no_active_provider_keys",
        r"No active API keys for provider groq\. An administrator must add one\.",
        GROQ,
        chat_body(model="llama-3.1-8b-instant"),
    ),
    "unreachable provider": Case(
        502,
        "upstream_unreachable",
        r"Proxy error: mistral cannot be reached\. Request id req_[0-9a-f]{32}\.",
        MISTRAL,
        chat_body(model="mistral-tiny"),
        should_retry="true",
    ),
    "unknown path": nowhere("/v2/openai/chat/completions"),
    "only v1": nowhere("/v1"),
    "only v1 and a slash": nowhere("/v1/"),
    "only a provider": nowhere("/v1/openai"),
    "only a provider and a slash": nowhere("/v1/openai/"),
    "unknown provider": nowhere("/v1/nobody/chat/completions"),
    "double slash in front": nowhere("//v1/openai/chat/completions"),
    "double slash before the provider": nowhere("/v1//openai/chat/completions"),
    "double slash behind the provider": nowhere("/v1/openai//chat/completions"),
    "slash at the end": nowhere("/v1/openai/chat/completions/"),
    "encoded slash": nowhere("/v1/openai%2Fchat/completions"),
    "encoded slash in the endpoint": not_metered("/v1/openai/chat%2Fcompletions"),
    "encoded letter": not_metered("/v1/openai/ch%61t/completions"),
    "encoded question mark": not_metered("/v1/openai/chat/completions%3F"),
    "dots": nowhere("/v1/../v1/openai/chat/completions"),
    "dots across providers": not_metered("/v1/openai/../anthropic/messages"),
    "encoded dots": not_metered("/v1/openai/%2e%2e/openai/chat/completions"),
    "capital letters": nowhere("/V1/openai/chat/completions"),
    "endpoint that cannot be metered": not_metered("/v1/openai/fine_tuning/jobs"),
    "administration": not_metered("/v1/openai/organization/admin_api_keys", "GET"),
    "GET of a POST path": wrong_method("GET", CHAT, "POST"),
    "OPTIONS": wrong_method("OPTIONS", CHAT, "POST"),
    "POST of a GET path": wrong_method("POST", "/v1/openai/models", "GET"),
    "too large": Case(413, "request_too_large", TOO_LARGE, body=b"x" * (BODY_BYTES_MAX + 1)),
    "too large, chunked": Case(
        413,
        "request_too_large",
        TOO_LARGE,
        body=b"x" * (BODY_BYTES_MAX + 1),
        headers={"transfer-encoding": "chunked"},
        is_chunked=True,
    ),
    "compressed": Case(
        415,
        "invalid_request",
        r"Compressed request bodies are not read\. Send it plain\.",
        body=b"\x1f\x8b",
        headers={"content-encoding": "gzip"},
    ),
    "empty body": bad(b"", NOT_JSON),
    "broken JSON": bad(b'{"model": "gpt-4o"', NOT_JSON),
    "trailing data": bad(b'{"model": "gpt-4o"} {}', NOT_JSON),
    "not an object": bad(b"[]", r"The request body must be a JSON object\."),
    "not UTF-8": bad(b'{"model": "\xff"}', r"The request body is not UTF-8\."),
    "UTF-16": bad('{"model": "gpt-4o"}'.encode("utf-16"), r"The request body is not UTF-8\."),
    "nested too deeply": bad(b"[" * 99_000, r"The request body is nested too deeply\."),
    "duplicate key": bad(b'{"model": "gpt-4o", "model": "gpt-4o-mini"}', TWICE),
    "duplicate key by an escape": bad(b'{"model": "gpt-4o", "mod\\u0065l": "x"}', TWICE),
    "another case": bad(
        b'{"model": "gpt-4o", "MAX_tokens": 1}', r"The field 'MAX_tokens' must be .+\."
    ),
    "no model": bad({"messages": []}, r"`model` must be in the body, .+"),
    "half of a surrogate pair": bad(b'{"model": "\\ud800"}', r"`model` must be text .+"),
    "NaN": bad(b'{"model": "gpt-4o", "x": NaN}', r".+ambiguous JSON: NaN is not JSON\."),
    "negative max_tokens": bad(chat_body(-1), MAX_TOKENS),
    "float max_tokens": bad(chat_body() | {"max_tokens": 5.0}, MAX_TOKENS),
    "text max_tokens": bad(chat_body() | {"max_tokens": "5"}, MAX_TOKENS),
    "bool max_tokens": bad(chat_body() | {"max_tokens": True}, MAX_TOKENS),
    "max_tokens of 2^63": bad(chat_body(2**63), MAX_TOKENS),
    "no choices": bad(chat_body(n=0), r"`n` must be a whole number from 1 to 128\."),
    "WebSocket": Case(
        426,
        "websocket_unsupported",
        r"WebSocket is not served here\. Use HTTP\.",
        "/v1/openai/responses",
        method="GET",
        headers=WEBSOCKET,
    ),
}


@pytest.fixture(scope="module")
def keys(proxy: RunningProxy, books: Books) -> dict[str, str]:
    """API keys by what is wrong with them; `xai` is paused, `mistral` does not exist."""
    books.pause("xai", "invoice unpaid")
    closed_provider(proxy, "mistral")
    good_user, good = books.user()
    revoked_user, revoked = books.user()
    disabled_user, disabled = books.user()
    with books.write() as tx:
        user = accounts.find_user(tx, revoked_user)
        accounts.revoke_api_key(tx, user, "test", now_ms=Clock().now_ms())
        accounts.set_user(tx, disabled_user, now_ms=Clock().now_ms(), is_disabled=True)
    return {"user": good_user, "good": good, "revoked": revoked, "disabled": disabled}


@pytest.fixture
def nothing_happens(keys: dict[str, str], books: Books, stub: StubProvider) -> Iterator[None]:
    """Afterwards: nothing was sent to the provider, nothing is charged, nothing is held."""
    before = books.wallet(keys["user"]), len(stub.requests)
    yield
    # The hold of an unreachable provider is released just before the answer leaves.
    books.settled_wallet(keys["user"])
    assert (books.wallet(keys["user"]), len(stub.requests)) == before
    assert books.count("SELECT count(*) FROM holds WHERE state = 'open'") == 0


def check_refusal(answered: Answered, case: Case) -> None:
    assert answered.status == case.status, answered.body
    envelope = answered.json()
    assert set(envelope) == {"type", "error", "message", "request_id"}
    assert envelope["type"] == "error"
    assert set(envelope["error"]) >= {"type", "message", "param", "code"}
    assert envelope["message"] == envelope["error"]["message"]
    assert re.fullmatch(case.message, envelope["message"]), envelope["message"]
    assert envelope["error"]["code"] == case.code
    assert envelope["error"]["type"] == TYPES[case.status]
    assert answered.headers["content-type"] == "application/json"
    assert re.fullmatch(r"req_[0-9a-f]{32}", envelope["request_id"])
    for name in ("x-request-id", "request-id", "x-llmproxy-request-id"):
        assert answered.headers[name] == envelope["request_id"]
    assert answered.headers.get("x-should-retry") == case.should_retry


@pytest.mark.usefixtures("nothing_happens")
@pytest.mark.parametrize("name", CASES)
def test_a_refusal_says_what_is_wrong_in_the_shape_that_sdks_show(
    name: str, proxy: RunningProxy, keys: dict[str, str]
) -> None:
    case = CASES[name]
    headers = bearer(keys["good"]) | (case.headers or {})
    headers = {header: value.format(**keys) for header, value in headers.items()}
    body = chat_body() if case.body is None and case.method == "POST" else case.body or b""
    answered = ask(proxy.port, case.method, case.path, body, headers, is_chunked=case.is_chunked)
    check_refusal(answered, case)
    given = headers["authorization"].rpartition(" ")[2]
    assert not given or given.encode() not in answered.body


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", CHAT, "POST"), ("PUT", "/v1/openai/models", "GET"), ("POST", "/healthz", "GET, HEAD")],
)
def test_a_wrong_method_is_told_the_right_one(
    method: str, path: str, allowed: str, proxy: RunningProxy
) -> None:
    assert ask(proxy.port, method, path).headers["allow"] == allowed


def test_a_websocket_upgrade_names_http_and_leaves_no_noise_in_the_log(
    proxy: RunningProxy, keys: dict[str, str]
) -> None:
    logged = quiet_log_bytes(proxy)
    paths = (CHAT, "/v1/openai/responses", "/v1/nobody/here", "/", "/readyz", "/nowhere")
    for path in (*paths, "/v1/key", "/v1/usage"):
        answered = ask(proxy.port, "GET", path, b"", bearer(keys["good"]) | WEBSOCKET)
        assert (answered.status, answered.headers["upgrade"]) == (426, "HTTP/1.1"), path
        assert answered.json()["error"]["code"] == "websocket_unsupported"
    assert quiet_log_bytes(proxy) == logged


def quiet_log_bytes(proxy: RunningProxy) -> int:
    """How much is logged once the lines of requests before have been written."""
    before = -1
    while before != (now := proxy.log.stat().st_size):
        before = now
        time.sleep(3 * FLUSH_INTERVAL_S)
    return now


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz"])
def test_a_look_whether_anybody_is_there_needs_no_key(proxy: RunningProxy, path: str) -> None:
    got, headed = (ask(proxy.port, method, path) for method in ("GET", "HEAD"))
    assert (got.status, headed.status, headed.body) == (200, 200, b"")
    assert (path == "/") == (got.body == b"")


@pytest.mark.parametrize("body_in_parts", [False, True])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_an_offer_of_http2_is_declined_and_the_request_served_with_its_body(
    body_in_parts: bool,
    is_chunked: bool,
    proxy: RunningProxy,
    keys: dict[str, str],
    stub: StubProvider,
) -> None:
    # Java's HttpClient sends this with every request to an http URL.
    body = json.dumps(chat_body()).encode()
    framing = "transfer-encoding: chunked" if is_chunked else f"content-length: {len(body)}"
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {keys['good']}\r\n{framing}"
        "\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAE\r\n\r\n"
    ).encode()
    raw_body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if is_chunked else body
    parts = [head, raw_body[:20], raw_body[20:]] if body_in_parts else [head + raw_body]
    with RawClient(proxy.port) as client:
        for _ in range(2):  # the connection stays usable
            for part in parts:
                client.send(part)
                time.sleep(0.02 * body_in_parts)
            assert client.recv_head().status == 200
            client.body()
            assert stub.requests[-1].body == body
            assert not stub.requests[-1].header("upgrade")


NO_HTTP = {
    b"EHLO example.com\r\n\r\n": r"This is not a valid HTTP request\.",
    b"CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\n\r\n": r"The request line has no path .+",
    b"GET / HTTP/2.0\r\nhost: x\r\n\r\n": r"Only HTTP/1\.1 and HTTP/1\.0 are spoken here\.",
    b"GET / HTTP/1.1\r\n\r\n": r"A request has exactly one Host header\.",
    b"GET / HTTP/1.1\r\nhost: x/y\r\n\r\n": r"The Host header is not a host\.",
}


@pytest.mark.parametrize("said", NO_HTTP)
def test_what_is_no_http_is_refused_in_the_same_shape(proxy: RunningProxy, said: bytes) -> None:
    with RawClient(proxy.port) as client:
        client.send(said)
        head = client.recv_head()
        headers = {name.decode(): value.decode() for name, value in head.headers}
        answered = Answered(head.status, headers, client.body())
    check_refusal(answered, bad(b"", NO_HTTP[said]))


def test_a_request_that_is_too_large_is_refused_before_its_body_has_come(
    proxy: RunningProxy, keys: dict[str, str]
) -> None:
    with RawClient(proxy.port) as client:
        client.send(
            f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {keys['good']}\r\n"
            "content-length: 999999999\r\n\r\n".encode()
        )
        assert client.recv_head().status == 413


@pytest.mark.parametrize("place", ["authorization", "x-api-key", "api-key", "x-goog-api-key"])
def test_a_key_is_taken_from_every_place_where_clients_put_it(
    place: str, proxy: RunningProxy, keys: dict[str, str], stub: StubProvider
) -> None:
    value = f"Bearer {keys['good']}" if place == "authorization" else keys["good"]
    answered = ask(proxy.port, "POST", CHAT, chat_body(), {place: value})
    assert answered.status == 200
    assert keys["good"].encode() not in stub.requests[-1].raw_head


def test_the_402_names_what_is_missing_and_the_max_tokens_that_would_fit(
    proxy: RunningProxy, books: Books, stub: StubProvider
) -> None:
    name, key = books.user("0.0125")
    time.sleep(1.1)  # only so many refusals a second leave a row

    def body(max_tokens: int) -> bytes:
        """As long for every number, so that only the number changes the bound."""
        return json.dumps(chat_body(max_tokens)).encode().ljust(200)

    sent = len(stub.requests)
    refused = ask(proxy.port, "POST", CHAT, body(1200), bearer(key))
    # Input: (200 // 3 + 600) × 2.50 / 1e6; the rest is for output at 10.00 / 1e6.
    message = (
        "Insufficient credit balance — top up or lower max_tokens. "
        "Needed 0.013665 USD, available 0.0125 USD; max_tokens up to 1083 would fit."
    )
    check_refusal(refused, Case(402, "insufficient_credit", re.escape(message)))
    told = refused.json()["error"]
    fields = ("needed_usd", "available_usd", "held_usd", "max_tokens_affordable")
    assert [told[field] for field in fields] == ["0.013665", "0.0125", "0.00", 1083]
    one_more = ask(proxy.port, "POST", CHAT, body(1084), bearer(key))
    assert one_more.status == 402
    assert len(stub.requests) == sent
    assert ask(proxy.port, "POST", CHAT, body(1083), bearer(key)).status == 200
    # 12 × 2.50 / 1e6 + 3 × 10.00 / 1e6
    assert books.settled_wallet(name) == 12_500_000 - 60_000
    states = [row["state"] for row in books.rows(name)]
    assert states == ["refused", "refused", "settled"]
    proxy.verify_ledger()


def test_the_402_of_an_empty_wallet_promises_nothing(proxy: RunningProxy, books: Books) -> None:
    _, key = books.user("0")
    refused = ask(proxy.port, "POST", CHAT, chat_body(), bearer(key)).json()["error"]
    assert refused["message"].endswith("available 0.00 USD; no max_tokens would fit.")
    assert refused["max_tokens_affordable"] == 0


def test_refused_requests_leave_a_row_that_says_why_and_costs_nothing(
    proxy: RunningProxy, books: Books
) -> None:
    name, key = books.user()
    time.sleep(1.1)  # only so many refusals a second leave a row
    answered = ask(proxy.port, "POST", CHAT, chat_body(model="nonsense"), bearer(key))
    assert answered.status == 400
    row = proxy.request_row(answered.request_id)
    assert (row["state"], row["status"], row["model"]) == ("refused", 400, "nonsense")
    assert (row["cost_usd"], row["charged_usd"]) == ("0.00", "0.00")
    assert books.wallet(name) == (5_000_000_000, 0)
