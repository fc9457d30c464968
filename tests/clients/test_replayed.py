"""Requests of programs that are too large to be installed here, or have only windows.

aider's were recorded from aider 0.86.2, which was run once by hand. Continue's and Open WebUI's
are those of their sources, as far as they decide anything here: the request line, where the key
stands, the members of the body.
"""

import json
from typing import Any, NamedTuple

import pytest

from tests.clients.checks import MESSAGES, tokens
from tests.clients.conftest import Place
from tests.support.raw_client import RawClient

JOKE = "Tell me a joke."
MESSAGE = {"role": "user", "content": JOKE}
BLOCKS = {"role": "user", "content": [{"type": "text", "text": JOKE}]}
STAINLESS = (
    "Accept: application/json\r\n"
    "User-Agent: OpenAI/Python 2.20.0\r\n"
    "X-Stainless-Lang: python\r\n"
    "X-Stainless-Package-Version: 2.20.0\r\n"
    "X-Stainless-Async: false\r\n"
    "X-Stainless-Raw-Response: true\r\n"
    "x-stainless-retry-count: 0\r\n"
    "x-stainless-read-timeout: 600.0\r\n"
)
OPEN_WEBUI_USER = (
    "X-OpenWebUI-User-Name: Ann\r\n"
    "X-OpenWebUI-User-Id: 9e2f\r\n"
    "X-OpenWebUI-User-Email: ann@example.org\r\n"
    "X-OpenWebUI-User-Role: user\r\n"
)
ANTHROPIC = "anthropic-version: 2023-06-01\r\naccept: application/json\r\n"


class Request(NamedTuple):
    """A request: its path, its headers with `KEY` for the key, its body."""

    path: str
    headers: str
    body: dict[str, Any]


PAID = {
    "aider, OpenAI": Request(
        "/v1/openai/chat/completions",
        "Accept-Encoding: gzip, deflate\r\nAuthorization: Bearer KEY\r\n" + STAINLESS,
        {"messages": [MESSAGE], "model": "gpt-4o", "stream": True, "temperature": 0},
    ),
    "aider, Anthropic": Request(
        "/v1/anthropic/v1/messages",
        "Accept-Encoding: gzip, deflate\r\nUser-Agent: litellm/1.81.10\r\nx-api-key: KEY\r\n"
        + ANTHROPIC,
        {
            "model": "claude-sonnet-5-5",
            "messages": [BLOCKS],
            "temperature": 0,
            "system": [{"type": "text", "text": "Act as an expert software developer."}],
            "max_tokens": 4096,
            "stream": True,
        },
    ),
    "Continue, OpenAI": Request(
        "/v1/openai/chat/completions",
        "Authorization: Bearer KEY\r\napi-key: KEY\r\n",
        {"messages": [BLOCKS], "model": "gpt-4o", "max_tokens": 4096, "stream": True},
    ),
    "Continue, Anthropic": Request(
        "/v1/anthropic/v1/messages",
        "x-api-key: KEY\r\nanthropic-beta: prompt-caching-2024-07-31\r\n" + ANTHROPIC,
        {
            "model": "claude-sonnet-5-5",
            "messages": [BLOCKS],
            "max_tokens": 8192,
            "system": [
                {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
            ],
            "stream": True,
        },
    ),
    "Open WebUI, chat": Request(
        "/v1/openai/chat/completions",
        "Authorization: Bearer KEY\r\nAccept: */*\r\nUser-Agent: Python/3.11 aiohttp/3.12.15\r\n"
        + OPEN_WEBUI_USER,
        {
            "stream": True,
            "model": "gpt-4o",
            "messages": [MESSAGE],
            "stream_options": {"include_usage": True},
        },
    ),
    "Open WebUI, titles": Request(
        "/v1/openai/chat/completions",
        "Authorization: Bearer KEY\r\nAccept: */*\r\n",
        {
            "model": "gpt-4o",
            "messages": [MESSAGE],
            "stream": False,
            "max_completion_tokens": 1000,
        },
    ),
    "Open WebUI, responses": Request(
        "/v1/openai/responses",
        "Authorization: Bearer KEY\r\nAccept: */*\r\n",
        {
            "model": "gpt-4o",
            "input": [
                {
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_text", "text": JOKE}],
                }
            ],
            "stream": True,
        },
    ),
}


class Answer(NamedTuple):
    """An answer, whole."""

    status: int
    body: bytes

    def json(self) -> dict[str, Any]:
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found

    def text(self) -> str:
        """All text of an answer, or of the deltas of a stream, of any dialect."""
        lines = self.body.split(b"\n")
        data = [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: {")]
        return "".join(map(text_of, map(json.loads, data or [self.body])))


def text_of(part: dict[str, Any]) -> str:
    if part.get("choices"):
        choice = part["choices"][0]
        return choice.get("message", choice.get("delta", {})).get("content") or ""
    delta = part.get("delta") or ""
    return delta if isinstance(delta, str) else str(delta.get("text", ""))


def send(place: Place, line: str, headers: str, body: bytes = b"") -> Answer:
    """Send a request as it is written here; return the answer."""
    head = f"{line} HTTP/1.1\r\nHost: 127.0.0.1:{place.proxy.port}\r\n{headers}"
    if body:
        head += f"Content-Length: {len(body)}\r\n"
        head += "" if "content-type" in headers.lower() else "Content-Type: application/json\r\n"
    with RawClient(place.proxy.port) as client:
        client.send(head.encode() + b"\r\n" + body)
        status = client.recv_head().status
        is_head = line.startswith("HEAD ")
        return Answer(status, b"" if is_head else client.body())


def ask(place: Place, request: Request, key: str) -> Answer:
    headers = request.headers.replace("KEY", key)
    return send(place, f"POST {request.path}", headers, json.dumps(request.body).encode())


@pytest.mark.parametrize("name", PAID)
def test_it_is_answered_and_paid_by_its_usage(name: str, places: dict[str, Place]) -> None:
    place = places["serving"]
    user, key = place.books.user("5")
    answer = ask(place, PAID[name], key)
    assert answer.status == 200, answer.body
    text = answer.text()
    assert len(text) > 40
    place.books.settled_wallet(user)
    (row,) = place.books.rows(user)
    assert row["basis"] == "usage"
    assert tokens(row)[1] == -(-len(text) // 4)


@pytest.mark.parametrize("situation", ["poor", "unknown", "wrong", "paused", "keyless"])
@pytest.mark.parametrize("name", PAID)
def test_a_refusal_stands_where_each_looks_for_it(
    name: str, situation: str, places: dict[str, Place]
) -> None:
    place = places.get(situation, places["serving"])
    key = place.books.user("0.00001" if situation == "poor" else "5")[1]
    key = "llmp_wrong" if situation == "wrong" else key
    request = PAID[name]
    if situation == "unknown":
        request = request._replace(body={**request.body, "model": "gpt-4o-x"})
    refused = ask(place, request, key).json()
    # Continue reads the first where `type` is error, Open WebUI and LiteLLM the second.
    assert refused["type"] == "error"
    assert MESSAGES[situation] in refused["message"] == refused["error"]["message"]


@pytest.mark.parametrize(
    "headers",
    [
        "Authorization: Bearer KEY\r\n" + OPEN_WEBUI_USER,  # it verifies, and lists
        "Authorization: Bearer KEY\r\napi-key: KEY\r\n",  # Continue
    ],
)
def test_the_models_are_listed_as_open_webui_and_continue_read_them(
    headers: str, places: dict[str, Place]
) -> None:
    place = places["serving"]
    key = place.books.user("0")[1]
    listed = send(place, "GET /v1/openai/models", headers.replace("KEY", key)).json()
    assert "gpt-4o" in [model["id"] for model in listed["data"]]


def test_claude_code_finds_the_base_and_lists_its_models(places: dict[str, Place]) -> None:
    place = places["serving"]
    key = place.books.user("0")[1]
    assert send(place, "HEAD /v1/anthropic", "").status == 200
    headers = f"Authorization: Bearer {key}\r\nanthropic-version: 2023-06-01\r\n"
    listed = send(place, "GET /v1/anthropic/v1/models?limit=1000", headers).json()
    ids = [model["id"] for model in listed["data"]]
    assert "claude-sonnet-5-5" in ids
    assert {each.startswith(("claude", "anthropic")) for each in ids} == {True}


def test_codex_is_sent_back_from_websocket_at_once(places: dict[str, Place]) -> None:
    place = places["serving"]
    headers = (
        f"Authorization: Bearer {place.books.user('0')[1]}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "openai-beta: responses_websockets=2026-02-06\r\n"
    )
    refused = send(place, "GET /v1/openai/responses", headers)
    assert (refused.status, refused.json()["error"]["code"]) == (426, "websocket_unsupported")


def test_what_is_not_served_is_told_and_costs_nothing(places: dict[str, Place]) -> None:
    """Continue's autocomplete, and Cursor's own models: a body of responses sent to chat."""
    place = places["serving"]
    user, key = place.books.user("5")
    headers = f"Authorization: Bearer {key}\r\napi-key: {key}\r\nx-api-key: {key}\r\n"
    fim = json.dumps({"model": "gpt-4o", "prompt": "a", "suffix": "b", "stream": True}).encode()
    refused = send(place, "POST /v1/openai/fim/completions", headers, fim)
    assert (refused.status, refused.json()["error"]["code"]) == (400, "endpoint_not_metered")
    cursor = json.dumps({"model": "gpt-5", "input": [MESSAGE], "stream": True}).encode()
    refused = send(place, "POST /v1/openai/chat/completions", headers, cursor)
    assert refused.status == 400
    assert place.books.settled_wallet(user) == 5_000_000_000


def test_curl_without_a_content_type_is_read_as_json(places: dict[str, Place]) -> None:
    place = places["serving"]
    headers = f"Authorization: Bearer {place.books.user('5')[1]}\r\n"
    headers += "Content-Type: application/x-www-form-urlencoded\r\n"
    body = json.dumps({"model": "gpt-4o", "messages": [MESSAGE]}).encode()
    assert send(place, "POST /v1/openai/chat/completions", headers, body).status == 200
