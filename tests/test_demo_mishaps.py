"""The demo provider misbehaves as it is told, in every dialect, and keeps its own count."""

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from llmproxy.demo.mishaps import ABSURD_TOKENS, MISHAPS
from llmproxy.demo.provider import DemoProvider
from tests.support.demo import RunningDemo

MODELS = {"/v1/messages": "claude-sonnet-5-5", "/v1/completions": "gpt-3.5-turbo-instruct"}
STREAMED = ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/completions")


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoProvider]:
    with RunningDemo() as running:
        yield running.provider


class Sent(NamedTuple):
    """What came back, as far as it came."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool

    def events(self) -> list[dict[str, Any]]:
        lines = [line for line in self.body.split(b"\n") if line.startswith(b"data: {")]
        return [json.loads(line.removeprefix(b"data: ")) for line in lines]


def send(demo: DemoProvider, path: str, mishap: str, *, is_stream: bool = True) -> Sent:
    prompt = f"Write 12 words [demo:{mishap}]"
    body: dict[str, Any] = {"model": MODELS.get(path, "gpt-4o"), "stream": is_stream}
    if path in {"/v1/responses", "/v1/embeddings"}:
        body["input"] = prompt
    elif path == "/v1/completions":
        body["prompt"] = prompt
        body["max_tokens"] = 100
    else:
        body["messages"] = [{"role": "user", "content": prompt}]
        body["max_tokens"] = 100
    if is_stream and "completions" in path:
        body["stream_options"] = {"include_usage": True}
    connection = http.client.HTTPConnection("127.0.0.1", demo.port, timeout=10)
    connection.request("POST", path, json.dumps(body), {"authorization": "Bearer sk-demo"})
    response = connection.getresponse()
    try:
        read, is_whole = response.read(), True
    except http.client.IncompleteRead as cut:
        read, is_whole = cut.partial, False
    finally:
        connection.close()
    return Sent(response.status, dict(response.getheaders()), read, is_whole)


@pytest.mark.parametrize("path", STREAMED)
def test_a_stream_breaks_off_without_an_end(demo: DemoProvider, path: str) -> None:
    whole, cut = send(demo, path, "nothing"), send(demo, path, "break")
    assert whole.is_whole
    assert (cut.status, cut.is_whole) == (200, False)
    assert 0 < len(cut.events()) < len(whole.events())


@pytest.mark.parametrize("path", [*STREAMED, "/v1/embeddings"])
def test_a_plain_answer_breaks_off_before_its_end(demo: DemoProvider, path: str) -> None:
    cut = send(demo, path, "break", is_stream=False)
    assert (cut.status, cut.is_whole) == (200, False)


@pytest.mark.parametrize("path", STREAMED)
def test_a_stream_ends_with_an_error_event_in_its_dialect(demo: DemoProvider, path: str) -> None:
    sent = send(demo, path, "error-event")
    assert sent.is_whole
    last = sent.events()[-1]
    if "completions" in path:
        assert last["error"]["message"] == "The demo provider was told to fail."
    else:
        assert last["type"] == "error"
        assert b"\nevent: error\n" in sent.body
    assert send(demo, path, "error-event", is_stream=False).status == 500


@pytest.mark.parametrize("path", STREAMED)
@pytest.mark.parametrize(("mishap", "status"), [("rate-limit", 429), ("server-error", 500)])
def test_a_request_is_refused_by_the_provider(
    demo: DemoProvider, path: str, mishap: str, status: int
) -> None:
    before = len(demo.counted)
    sent = send(demo, path, mishap)
    assert sent.status == status
    assert len(demo.counted) == before
    assert f"told: {mishap}" in json.loads(sent.body)["error"]["message"]
    assert sent.headers.get("retry-after") == ("2" if status == 429 else None)


def test_each_provider_is_overloaded_in_its_own_way(demo: DemoProvider) -> None:
    claude = send(demo, "/v1/messages", "overloaded")
    assert (claude.status, json.loads(claude.body)["error"]["type"]) == (529, "overloaded_error")
    assert send(demo, "/v1/responses", "overloaded").status == 503


def usages(value: object) -> list[Any]:
    """Every usage in an answer or an event, however deep."""
    if not isinstance(value, dict):
        return []
    mine = [value["usage"]] if value.get("usage") else []
    return mine + [usage for inner in value.values() for usage in usages(inner)]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("path", STREAMED)
def test_usage_is_left_out_or_absurd(demo: DemoProvider, path: str, is_stream: bool) -> None:
    def reported(mishap: str) -> list[Any]:
        sent = send(demo, path, mishap, is_stream=is_stream)
        values = sent.events() if is_stream else [json.loads(sent.body)]
        return [usage for value in values for usage in usages(value)]

    assert reported("nothing")
    counted = demo.counted[-1]
    assert reported("no-usage") == []
    assert demo.counted[-1].output == counted.output > 0
    absurd = reported("absurd-usage")
    assert all(ABSURD_TOKENS in usage.values() for usage in absurd)
    assert absurd


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/v1/chat/completions", "content_filter"),
        ("/v1/completions", "content_filter"),
        ("/v1/messages", "refusal"),
        ("/v1/responses", "content_filter"),
    ],
)
def test_a_filter_ends_an_answer_half_way(demo: DemoProvider, path: str, reason: str) -> None:
    body = json.loads(send(demo, path, "incomplete", is_stream=False).body)
    whole = json.loads(send(demo, path, "nothing", is_stream=False).body)
    assert reason in json.dumps(body)
    assert len(json.dumps(body)) < len(json.dumps(whole))
    streamed = send(demo, path, "incomplete")
    assert streamed.is_whole
    assert reason.encode() in streamed.body


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_response_fails(demo: DemoProvider, is_stream: bool) -> None:
    before = len(demo.counted)
    sent = send(demo, "/v1/responses", "failed", is_stream=is_stream)
    body = sent.events()[-1]["response"] if is_stream else json.loads(sent.body)
    assert (body["status"], body["error"]["code"], body["usage"]) == (
        "failed",
        "server_error",
        None,
    )
    if is_stream:
        assert sent.events()[-1]["type"] == "response.failed"
        assert "response.output_text.delta" in [event["type"] for event in sent.events()]
    assert len(demo.counted) == before
    assert send(demo, "/v1/messages", "failed", is_stream=False).status == 500


def test_a_slow_answer_is_slow(demo: DemoProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmproxy.demo.mishaps.SLOW_DELAY_S", 0.2)
    monkeypatch.setattr("llmproxy.demo.mishaps.SLOW_GAP_S", 0.02)
    started = time.monotonic()
    sent = send(demo, "/v1/chat/completions", "slow")
    gaps = len(sent.events())  # and one more event that ends the stream
    assert time.monotonic() - started >= 0.2 + 0.02 * gaps


def test_every_mishap_is_described_and_does_something(demo: DemoProvider) -> None:
    usual = send(demo, "/v1/responses", "nothing")
    for name in MISHAPS.keys() - {"slow"}:
        sent = send(demo, "/v1/responses", name)
        assert (sent.status, sent.body, sent.is_whole) != (usual.status, usual.body, True), name
