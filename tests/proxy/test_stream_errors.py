"""Streams that go wrong, in every dialect: no client takes a part for the whole.

What the provider itself says passes as it is; where it says nothing, an error event of ours ends
the stream. What was seen is paid by the estimate, and the row says why.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.fixtures import CATALOG
from tests.proxy.conftest import running_site
from tests.proxy.helpers import Got, Site
from tests.support.answers import (
    anthropic_stream,
    anthropic_usage,
    broken_stream,
    data_event,
    named_event,
    openai_chat_stream,
    stream,
)
from tests.support.stub_provider import Handler, Out, SeenRequest

PIECES = ("Hello", " there", "!")
OUTPUT = 4
"""`Hello there!` has twelve bytes: four tokens by the estimate."""
USER = [{"role": "user", "content": "hi"}]


class Family(NamedTuple):
    """A dialect: a request for a stream, and how its stream begins."""

    path: str
    body: dict[str, Any]
    empty: list[bytes]
    """Events before any text."""
    text: list[bytes]
    """The events with PIECES."""
    rates: tuple[int, int]
    """Of input and output, in nano-USD per token."""
    input_nanousd: int | None = None
    """What the input costs when the stream's beginning has told it exactly."""

    @property
    def request(self) -> bytes:
        return json.dumps({**self.body, "stream": True}, separators=(",", ":")).encode()

    def estimate(self) -> int:
        """Bytes / 3 of the request, unless its input is known, and of what was seen."""
        input_rate, output_rate = self.rates
        by_bytes = -(-len(self.request) // 3) * input_rate
        known = self.input_nanousd
        return (by_bytes if known is None else known) + OUTPUT * output_rate


def response(status: str = "in_progress", **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    head = {"id": "resp_1", "object": "response", "status": status, "model": "gpt-5.6-luna"}
    return {**head, "output": [], "usage": None, "error": None, **fields}


def completion(text: str) -> bytes:
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": None}
    return data_event({"id": "cmpl-1", "object": "text_completion", "choices": [choice]})


CHAT = openai_chat_stream(PIECES)
MESSAGE = anthropic_stream(PIECES, anthropic_usage(12, 90, cache_read=1000))
FAMILIES = {
    "chat": Family(
        "/v1/openai/chat/completions",
        {"model": "gpt-4o", "max_tokens": 100, "messages": USER},
        CHAT[:1],
        CHAT[1:4],
        (2_500, 10_000),
    ),
    "completions": Family(
        "/v1/openai/completions",
        {"model": "gpt-3.5-turbo-instruct", "max_tokens": 100, "prompt": "hi"},
        [completion("")],
        [completion(piece) for piece in PIECES],
        (1_500, 2_000),
    ),
    "responses": Family(
        "/v1/openai/responses",
        {"model": "gpt-5.6-luna", "max_output_tokens": 100, "input": "hi"},
        [named_event(f"response.{name}", response=response()) for name in ("created", "queued")],
        [named_event("response.output_text.delta", delta=piece) for piece in PIECES],
        (200, 1_200),
    ),
    "messages": Family(
        "/v1/anthropic/messages",
        {"model": "claude-sonnet-4-6", "max_tokens": 100, "messages": USER},
        MESSAGE[:3],
        MESSAGE[3:6],
        (3_000, 15_000),
        12 * 3_000 + 1000 * 300,
    ),
}
ENDS = (b"[DONE]", b"message_stop", b"response.completed")
"""What a complete answer ends with, in one dialect or another."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy that waits a second for the next event."""
    environ = {
        "LLMPROXY_CATALOG_FILE": str(CATALOG),
        "LLMPROXY_IDLE_TIMEOUT_S": "1",
        "LLMPROXY_FIRST_BYTE_TIMEOUT_S": "1",
    }
    with running_site(tmp_path_factory.mktemp("streams"), environ) as site:
        yield site


def check_incomplete(got: Got) -> None:
    assert got.status == 200
    assert not any(end in got.body for end in ENDS)


def check_told(got: Got, passed: bytes) -> None:
    """The client got what came, and then our error event as its last."""
    check_incomplete(got)
    assert got.body.startswith(passed)
    name, data = got.last_event()
    assert name == b"error"
    assert (data["type"], data["error"]["type"]) == ("error", "api_error")
    assert data["error"]["code"] == "upstream_interrupted"
    assert data["message"] == data["error"]["message"]
    assert data["message"].endswith(f"Request id {data['request_id']}.")
    assert data["request_id"].encode() == got.header("x-llmproxy-request-id")
    assert got.body.endswith(b"\n\n")
    assert got.clean_end


# --- the provider says what went wrong ---

OVERLOADED = {"type": "overloaded_error", "message": "Overloaded"}
REFUSED = {"message": "The server had an error\u2028while processing", "type": "server_error"}
CHUNK = {"id": "gen-1", "object": "chat.completion.chunk", "provider": "Example"}
BROKE_OFF = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
TYPED = {"code": "server_error", "message": "Try again", "param": None, "sequence_number": 5}
FAILED = {"code": "server_error", "message": "The model failed"}
GROQ = (
    b'event: error\ndata: {"error":{"message":"Failed to call a function","status_code":400}}\n\n'
)
ERRORS = {
    "OpenAI's chunk": ("chat", data_event({"error": REFUSED})),
    "Groq's event": ("chat", GROQ),
    "OpenRouter's chunk": (
        "chat",
        data_event({**CHUNK, "error": {"code": 502, "message": "x"}, "choices": [BROKE_OFF]}),
    ),
    "a legacy chunk": ("completions", data_event({"error": REFUSED})),
    "an event of responses": ("responses", named_event("error", **TYPED)),
    "OpenAI's chunk in responses": ("responses", data_event({"error": REFUSED})),
    "a failed response": (
        "responses",
        named_event("response.failed", response=response("failed", error=FAILED)),
    ),
    "Anthropic overloaded": ("messages", named_event("error", error=OVERLOADED)),
    "Anthropic's other errors": (
        "messages",
        named_event("error", error={"type": "api_error", "message": "Internal server error"}),
    ),
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("has_end", [True, False], ids=["ended", "broken off"])
def test_a_providers_error_passes_and_what_was_seen_before_it_is_paid(
    site: Site, name: str, has_end: bool
) -> None:
    family, error = FAMILIES[ERRORS[name][0]], ERRORS[name][1]
    events = [*family.empty, *family.text, error]
    site.stub.handle = stream(events) if has_end else broken_stream(events)
    visitor = site.visitor()
    got = site.ask(visitor, family.path, family.request)
    check_incomplete(got)
    assert got.body.startswith(b"".join(events))
    is_last_word = name == "a failed response"
    if has_end or is_last_word:
        assert (got.body, got.clean_end) == (b"".join(events), True)
    nanousd = family.estimate()
    row = site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)
    assert (row["status"], row["upstream_status"]) == (200, 200)
    if has_end or is_last_word:
        assert row["reason"] == "the provider ended the answer with an error"
    else:
        assert row["reason"].startswith("openai broke off: " if "openai" in family.path else "anth")


@pytest.mark.parametrize("name", [name for name in ERRORS if ERRORS[name][0] != "messages"])
def test_a_providers_error_before_any_text_is_free(site: Site, name: str) -> None:
    family, error = FAMILIES[ERRORS[name][0]], ERRORS[name][1]
    site.stub.handle = stream([*family.empty, error])
    visitor = site.visitor()
    got = site.ask(visitor, family.path, family.request)
    assert got.body == b"".join([*family.empty, error])
    row = site.assert_released(visitor)
    assert row["reason"] == "the provider ended the answer with an error"


def test_the_row_of_an_answer_that_is_free_has_what_it_told_all_the_same(site: Site) -> None:
    """An operator who asks why it was free finds the provider's own record, and the model."""
    family, usage = FAMILIES["chat"], {"prompt_tokens": -1, "completion_tokens": 20}
    last = {**CHUNK, "model": "gpt-4o-2024-11-20", "choices": [], "usage": usage}
    site.stub.handle = stream([*family.empty, data_event(last), ERRORS["OpenAI's chunk"][1]])
    visitor = site.visitor()
    site.ask(visitor, family.path, family.request)
    row = site.assert_released(visitor)
    assert row["model_served"] == "gpt-4o-2024-11-20"
    assert json.loads(row["raw_usage"]) == usage
    assert row["reason"] == "absurd token count -1"


def test_anthropics_error_before_any_text_costs_the_input_that_its_beginning_told(
    site: Site,
) -> None:
    family, error = FAMILIES["messages"], ERRORS["Anthropic overloaded"][1]
    site.stub.handle = stream([*family.empty, error])
    visitor = site.visitor()
    site.ask(visitor, family.path, family.request)
    # message_start counts one token of output
    nanousd = 12 * 3_000 + 1000 * 300 + 1 * 15_000
    row = site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)
    assert row["reason"] == "the provider ended the answer with an error"


def test_a_failed_response_with_usage_is_paid_by_it(site: Site) -> None:
    family = FAMILIES["responses"]
    usage = {
        "input_tokens": 50,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 30,
        "output_tokens_details": {"reasoning_tokens": 26},
        "total_tokens": 80,
    }
    failed = response("failed", error=FAILED, usage=usage)
    site.stub.handle = stream(
        [*family.empty, *family.text, named_event("response.failed", response=failed)]
    )
    visitor = site.visitor()
    site.ask(visitor, family.path, family.request)
    nanousd = 50 * 200 + 30 * 1_200
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=nanousd)


# --- the provider says nothing ---


async def silent_after(out: Out, events: list[bytes]) -> None:
    await out.head(200, [("content-type", "text/event-stream")])
    for event in events:
        await out.chunk(event)
    await out.client_gone.wait()


@pytest.mark.parametrize("how", ["clean end", "FIN", "RST"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_stream_that_breaks_off_ends_in_an_error_of_ours(site: Site, name: str, how: str) -> None:
    family = FAMILIES[name]
    events = [*family.empty, *family.text]
    handlers: dict[str, Handler] = {
        "clean end": stream(events),
        "FIN": broken_stream(events),
        "RST": reset_after_it_was_read(events),
    }
    site.stub.handle = handlers[how]
    visitor = site.visitor()
    got = site.ask(visitor, family.path, family.request)
    check_told(got, b"".join(events))
    nanousd = family.estimate()
    row = site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)
    provider = "anthropic" if name == "messages" else "openai"
    reasons = {
        "clean end": f"{provider} ended the stream before the answer was complete",
        "FIN": f"{provider} broke off: ",
        "RST": f"{provider} broke off: ",
    }
    assert row["reason"].startswith(reasons[how])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("most", [100, 5000], ids=["held at once", "held as it grows"])
def test_an_event_that_is_whole_but_for_its_blank_line_counts_before_it_breaks_off(
    site: Site, name: str, most: int
) -> None:
    """`Hello there` is four tokens as well, `Hello` would be two."""
    family = FAMILIES[name]
    maximum = next(each for each in family.body if each.startswith("max_"))
    family = family._replace(body={**family.body, maximum: most})
    *events, last = [*family.empty, *family.text[:2]]
    site.stub.handle = broken_stream([*events, last.removesuffix(b"\n\n")])
    visitor = site.visitor()
    got = site.ask(visitor, family.path, family.request)
    check_incomplete(got)
    assert b"upstream_interrupted" in got.body
    nanousd = family.estimate()
    row = site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)
    assert "broke off: " in row["reason"]


def reset_after_it_was_read(events: list[bytes]) -> Handler:
    """A reset overtakes what was sent before it, so that must have been read."""

    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "text/event-stream")])
        for event in events:
            await out.chunk(event)
        await asyncio.sleep(0.1)
        out.abort()

    return handle


def test_a_stream_that_falls_silent_ends_in_an_error_of_ours(site: Site) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        path = request.target.decode().rpartition("/")[2]
        name = {"completions": "chat"}.get(path, path)
        if b'"prompt"' in request.body:
            name = "completions"
        await silent_after(out, [*FAMILIES[name].empty, *FAMILIES[name].text])

    site.stub.handle = handle
    started = time.monotonic()
    waiting = []
    for family in FAMILIES.values():
        visitor = site.visitor()
        waiting.append((family, visitor, site.send(visitor, family.path, family.request)))
    for family, visitor, client in waiting:
        with client:
            got = site.take(client)
        check_told(got, b"".join([*family.empty, *family.text]))
        nanousd = family.estimate()
        row = site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)
        assert row["reason"] == "the provider was silent for 1 s"
    assert 1.0 <= time.monotonic() - started < 4.0
