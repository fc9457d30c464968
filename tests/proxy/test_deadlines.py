"""What takes too long: on a proxy that waits one second for anything."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from tests.proxy.conftest import running_site
from tests.proxy.helpers import CHAT, MESSAGES, Site, chat, estimate_nanousd, message
from tests.support.answers import (
    anthropic_stream,
    anthropic_usage,
    openai_chat,
    openai_chat_stream,
    openai_usage,
    plain,
    silent,
)
from tests.support.limits import limit_key
from tests.support.raw_client import RawClient
from tests.support.stub_provider import Handler, Out, SeenRequest

USAGE = openai_usage(1000, 200, cached=600)
COST = 400 * 2_500 + 600 * 1_250 + 200 * 10_000
EVENTS = openai_chat_stream(usage=USAGE)
SEEN = len("Hello there!")
SONNET_EVENTS = anthropic_stream(usage=anthropic_usage(12, 90, cache_read=1000))
LATEST_S = 1.0 + 0.25 + 1.0
"""The limit, the watchdog's tick, and a busy machine."""


def chat_estimate(body: bytes, seen_bytes: int) -> int:
    return estimate_nanousd(body, seen_bytes, input_rate=2_500, output_rate=10_000)


def then_silent(*parts: bytes, content_type: str = "text/event-stream") -> Handler:
    """Send some parts and nothing more."""

    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", content_type)])
        for part in parts:
            await out.chunk(part)
        await out.client_gone.wait()

    return handle


# --- a provider that is silent ---


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_answer_that_never_begins_is_a_504_and_free(hasty_site: Site, is_stream: bool) -> None:
    hasty_site.stub.handle = silent
    visitor = hasty_site.visitor()
    started = time.monotonic()
    got = hasty_site.ask(visitor, CHAT, chat(stream=is_stream))
    assert 1.0 <= time.monotonic() - started < LATEST_S
    assert (got.status, got.header("x-should-retry")) == (504, b"false")
    assert got.error()["code"] == "upstream_timeout"
    assert "silent for 1 s" in got.error()["message"]
    row = hasty_site.assert_released(visitor)
    assert (row["status"], row["upstream_status"]) == (504, None)


def test_a_stream_that_falls_silent_ends_in_an_error_event_and_is_estimated(
    hasty_site: Site,
) -> None:
    hasty_site.stub.handle = then_silent(*EVENTS[:4])
    visitor, body = hasty_site.visitor(), chat(stream=True)
    started = time.monotonic()
    got = hasty_site.ask(visitor, CHAT, body)
    assert 1.0 <= time.monotonic() - started < LATEST_S
    assert got.body.startswith(b"".join(EVENTS[:4]))
    name, data = got.last_event()
    assert (name, data["error"]["code"]) == (b"error", "upstream_interrupted")
    assert b"[DONE]" not in got.body
    nanousd = chat_estimate(body, SEEN)
    row = hasty_site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)
    assert row["reason"] == "the provider was silent for 1 s"


def test_a_plain_answer_that_falls_silent_is_a_504_and_free(hasty_site: Site) -> None:
    answer = openai_chat(usage=USAGE)
    hasty_site.stub.handle = then_silent(answer[:100], content_type="application/json")
    visitor = hasty_site.visitor()
    got = hasty_site.ask(visitor, CHAT, chat())
    assert (got.status, got.error()["code"]) == (504, "upstream_timeout")
    hasty_site.assert_released(visitor)


def test_a_large_answer_that_falls_silent_has_no_clean_end_and_is_estimated(
    hasty_site: Site,
) -> None:
    part = b"x" * 10_000_000
    hasty_site.stub.handle = then_silent(part, b"y", content_type="application/json")
    visitor, body = hasty_site.visitor(), chat(max_tokens=50)
    got = hasty_site.ask(visitor, CHAT, body)
    assert not got.clean_end
    assert got.body.strip(b"xy") == b""
    nanousd = -(-len(body) // 3) * 2_500 + 50 * 10_000
    hasty_site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)


def test_a_slow_stream_that_is_never_silent_is_not_cut(hasty_site: Site) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        await out.sse(EVENTS, gap_s=0.3)

    hasty_site.stub.handle = handle
    visitor = hasty_site.visitor()
    got = hasty_site.ask(visitor, CHAT, chat(stream=True))
    assert got.body.endswith(b"data: [DONE]\n\n")
    hasty_site.assert_paid(visitor, state="settled", basis="usage", nanousd=COST)


# --- a client that left, and an answer that does not end ---


async def endless(request: SeenRequest, out: Out) -> None:
    """Events for ever: three with text, then comments."""
    await out.head(200, [("content-type", "text/event-stream")])
    for event in EVENTS[:4]:
        await out.chunk(event)
    while True:
        await out.chunk(b": still thinking\n\n")
        await asyncio.sleep(0.1)


async def endless_messages(request: SeenRequest, out: Out) -> None:
    await out.head(200, [("content-type", "text/event-stream")])
    for event in SONNET_EVENTS[:6]:
        await out.chunk(event)
    while True:
        await out.chunk(b'event: ping\ndata: {"type":"ping"}\n\n')
        await asyncio.sleep(0.1)


def leave_after_first_bytes(client: RawClient) -> None:
    client.recv_head()
    next(client.recv_chunks())
    client.abort()


def test_a_drain_that_takes_too_long_is_estimated(hasty_site: Site) -> None:
    hasty_site.stub.handle = endless
    visitor, body = hasty_site.visitor(), chat(stream=True)
    leave_after_first_bytes(hasty_site.send(visitor, CHAT, body))
    nanousd = chat_estimate(body, SEEN)
    row = hasty_site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)
    assert row["reason"] == "the client left and the answer did not end within 1 s"
    assert 1_000 <= row["duration_ms"] < 1_000 * LATEST_S


@pytest.mark.parametrize(
    ("path", "handle", "body", "hold"),
    [
        # (bytes / 3 + 600) of input and the 100 tokens of output that were allowed:
        # o3 at 2 and 8 USD, claude-sonnet-4-6 at 3 and 15 USD per million
        (CHAT, endless, chat(model="o3", stream=True), (2_000, 8_000)),
        (MESSAGES, endless_messages, message(stream=True), (3_000, 15_000)),
    ],
    ids=["openai", "anthropic"],
)
def test_the_whole_hold_is_paid_where_hidden_reasoning_may_have_been_made(
    hasty_site: Site, path: str, handle: Handler, body: bytes, hold: tuple[int, int]
) -> None:
    hasty_site.stub.handle = handle
    visitor = hasty_site.visitor()
    leave_after_first_bytes(hasty_site.send(visitor, path, body))
    nanousd = (len(body) // 3 + 600) * hold[0] + 100 * hold[1]
    row = hasty_site.assert_paid(visitor, state="settled", basis="hold", nanousd=nanousd)
    assert row["hold_nanousd"] == nanousd


def test_of_a_whole_hold_its_input_and_its_output_count_for_the_limit_of_tokens(
    hasty_site: Site,
) -> None:
    """They may all have been generated: the limit is reached by exactly so many."""
    hasty_site.stub.handle = endless
    body = chat(model="o3", stream=True)
    most = len(body) // 3 + 600 + 100
    for limit, status in ((most, 429), (most + 1, 200)):
        visitor = hasty_site.visitor()
        limit_key(hasty_site.books, visitor.name, tokens_per_minute=limit)
        leave_after_first_bytes(hasty_site.send(visitor, CHAT, body))
        assert hasty_site.ended(visitor)["basis"] == "hold"
        with hasty_site.send(visitor, CHAT, body) as client:
            assert client.recv_head().status == status


def test_a_drain_of_a_reasoning_model_that_ends_in_time_is_exact(hasty_site: Site) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        await out.sse(EVENTS, gap_s=0.05)

    hasty_site.stub.handle = handle
    visitor = hasty_site.visitor()
    leave_after_first_bytes(hasty_site.send(visitor, CHAT, chat(model="o3", stream=True)))
    nanousd = 400 * 2_000 + 600 * 500 + 200 * 8_000
    hasty_site.assert_paid(visitor, state="settled", basis="usage", nanousd=nanousd)


# --- a client that does not read ---


@pytest.fixture(scope="module")
def patient_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy that waits one second for a client to read, and long for the end of its answer."""
    with running_site(
        tmp_path_factory.mktemp("patient"), {"LLMPROXY_STALL_TIMEOUT_S": "1"}
    ) as site:
        yield site


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_client_that_does_not_read_is_hung_up_on_and_its_answer_read_to_the_end(
    patient_site: Site, is_stream: bool
) -> None:
    """30 MB: more than all buffers on the way hold."""
    was_read = threading.Event()
    usage = b"".join(EVENTS[-3:]) if is_stream else openai_chat(usage=USAGE)
    piece = b": " + b"x" * 999_996 + b"\n\n" if is_stream else b" " * 1_000_000

    async def handle(request: SeenRequest, out: Out) -> None:
        kind = "text/event-stream" if is_stream else "application/json"
        await out.head(200, [("content-type", kind)])
        for _ in range(30):
            await out.chunk(piece)
        await out.chunk(usage)
        await out.end()
        was_read.set()

    patient_site.stub.handle = handle
    visitor = patient_site.visitor()
    started = time.monotonic()
    with patient_site.send(visitor, CHAT, chat(stream=is_stream)) as client:
        client.recv_head()
        assert was_read.wait(50)
        assert time.monotonic() - started >= 1.0
        patient_site.assert_paid(visitor, state="settled", basis="usage", nanousd=COST)
        client.body()
        assert not client.clean_end


def test_a_client_that_reads_slowly_but_reads_gets_everything(hasty_site: Site) -> None:
    answer = openai_chat(text="x" * 12_000_000, usage=USAGE)
    hasty_site.stub.handle = plain(answer)
    visitor = hasty_site.visitor()
    with hasty_site.send(visitor, CHAT, chat()) as client:
        client.recv_head()
        taken = 0
        for _, data in client.recv_chunks():
            taken += len(data)
            time.sleep(0.01)
    assert (taken, client.clean_end) == (len(answer), True)
    hasty_site.assert_paid(visitor, state="settled", basis="usage", nanousd=COST)
