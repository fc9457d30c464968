"""A provider that fails: what the client is told, and that only what was generated is paid."""

import asyncio
import json
from concurrent.futures import Future

import pytest

from tests.proxy.helpers import CHAT, MESSAGES, Got, Site, chat, estimate_nanousd, message
from tests.service.helpers import closed_provider
from tests.support.answers import (
    anthropic_stream,
    anthropic_usage,
    broken_stream,
    data_event,
    named_event,
    openai_chat,
    openai_chat_stream,
    openai_usage,
    plain,
    stream,
)
from tests.support.stub_provider import Handler, Out, SeenRequest
from tests.support.waiting import wait_until

USAGE = openai_usage(1000, 200, cached=600)
COST = 400 * 2_500 + 600 * 1_250 + 200 * 10_000
SONNET_USAGE = anthropic_usage(12, 90, cache_read=1000, cache_write_5m=100, cache_write_1h=50)
SONNET_INPUT = 12 * 3_000 + 1000 * 300 + 100 * 3_750 + 50 * 6_000
PIECES = ("Hello", " there", "!")
SEEN = len("Hello there!")
EVENTS = openai_chat_stream(PIECES, USAGE)
"""role, three pieces, finish, usage, [DONE]"""
SONNET_EVENTS = anthropic_stream(PIECES, SONNET_USAGE)
"""start, block start, ping, three pieces, block stop, delta, stop"""


def chat_estimate(body: bytes, seen_bytes: int) -> int:
    return estimate_nanousd(body, seen_bytes, input_rate=2_500, output_rate=10_000)


def assert_interrupted(got: Got, passed: bytes) -> None:
    """The client got what came, then an error event that every SDK raises, and no clean end."""
    assert got.status == 200
    assert got.body.startswith(passed)
    assert b"[DONE]" not in got.body
    assert b"message_stop" not in got.body
    name, data = got.last_event()
    request_id = got.header("x-llmproxy-request-id")
    assert request_id is not None
    assert name == b"error"
    assert data["type"] == "error"
    assert data["error"]["code"] == "upstream_interrupted"
    assert data["error"]["type"] == "api_error"
    assert data["request_id"] == request_id.decode()
    assert got.body.endswith(b"\n\n")


# --- before an answer ---


def test_a_provider_that_refuses_connections_may_be_tried_again(site: Site) -> None:
    closed_provider(site.proxy, "groq")
    visitor = site.visitor()
    body = chat(model="llama-3.3-70b-versatile")
    got = site.ask(visitor, "/v1/groq/chat/completions", body)
    assert (got.status, got.header("x-should-retry")) == (502, b"true")
    assert got.error()["code"] == "upstream_unreachable"
    assert "cannot be reached" in got.error()["message"]
    row = site.assert_released(visitor)
    assert (row["status"], row["upstream_status"], row["attempts"]) == (502, None, 1)


async def reset_at_once(request: SeenRequest, out: Out) -> None:
    out.abort()


async def close_at_once(request: SeenRequest, out: Out) -> None:
    out.close()


async def reset_in_the_head(request: SeenRequest, out: Out) -> None:
    await out.send(b"HTTP/1.1 200 OK\r\ncontent-ty")
    out.close()


async def garbage(request: SeenRequest, out: Out) -> None:
    await out.send(b"SSH-2.0-OpenSSH_9.6\r\n\x00\x01\x02\r\n\r\n")
    out.close()


async def huge_head(request: SeenRequest, out: Out) -> None:
    await out.send(b"HTTP/1.1 200 OK\r\nx-big: " + b"x" * 200_000 + b"\r\n\r\n")
    out.close()


async def absurd_chunk(request: SeenRequest, out: Out) -> None:
    await out.head(200, [("content-type", "application/json")])
    await out.send(b"zz\r\n{}\r\n")
    await out.client_gone.wait()


@pytest.mark.parametrize(
    "handle",
    [reset_at_once, close_at_once, reset_in_the_head, garbage, huge_head, absurd_chunk],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_request_that_was_sent_but_not_answered_is_not_to_be_sent_again(
    site: Site, handle: Handler, is_stream: bool
) -> None:
    site.stub.handle = handle
    before = len(site.stub.requests)
    visitor = site.visitor()
    got = site.ask(visitor, CHAT, chat(stream=is_stream))
    assert (got.status, got.header("x-should-retry")) == (502, b"false")
    assert got.error()["code"] == "upstream_unreachable"
    assert got.error()["message"].startswith("Proxy error: openai ")
    assert len(site.stub.requests) == before + 1
    site.assert_released(visitor)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(site: Site, status: int) -> None:
    location = [("location", f"{site.stub.url}/elsewhere")]
    site.stub.handle = plain(b"{}", status, location)
    before = len(site.stub.requests)
    visitor = site.visitor()
    got = site.ask(visitor, CHAT, chat())
    assert (got.status, got.header("location")) == (502, None)
    assert "redirect" in got.error()["message"]
    assert [seen.target for seen in site.stub.requests[before:]] == [b"/v1/chat/completions"]
    site.assert_released(visitor)


def test_an_answer_that_nobody_asked_for_reaches_nobody(site: Site) -> None:
    taken: Future[None] = Future()
    hung_up: Future[None] = Future()
    first = openai_chat(text="first")

    async def handle(request: SeenRequest, out: Out) -> None:
        if taken.done():
            await out.json(200, openai_chat(text="second"))
            return
        await out.json(200, first)
        await asyncio.wrap_future(taken)
        await out.json(200, openai_chat(text="for nobody"))
        await out.client_gone.wait()
        hung_up.set_result(None)

    site.stub.handle = handle
    assert site.ask(site.visitor(), CHAT, chat()).body == first
    taken.set_result(None)
    hung_up.result(10)  # unasked, it closes a connection that is idle for 15 s
    assert b"second" in site.ask(site.visitor(), CHAT, chat()).body


# --- plain answers ---


async def too_short(request: SeenRequest, out: Out) -> None:
    await out.head(200, [("content-type", "application/json")], length=5000)
    await out.send(openai_chat(usage=USAGE))
    out.close()


async def broken_off_in_a_chunk(request: SeenRequest, out: Out) -> None:
    await out.head(200, [("content-type", "application/json")])
    await out.chunk(openai_chat(usage=USAGE))
    out.abort()


@pytest.mark.parametrize("handle", [too_short, broken_off_in_a_chunk])
def test_a_plain_answer_that_breaks_off_is_an_error_and_free(site: Site, handle: Handler) -> None:
    site.stub.handle = handle
    visitor = site.visitor()
    got = site.ask(visitor, CHAT, chat())
    assert (got.status, got.header("x-should-retry")) == (502, b"false")
    assert "broke off its answer" in got.error()["message"]
    site.assert_released(visitor)


def test_a_large_answer_that_breaks_off_ends_without_a_clean_end_and_is_estimated(
    site: Site,
) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "application/json")], length=20_000_000)
        for _ in range(10):
            await out.send(b"x" * 1_000_000)
        out.close()

    site.stub.handle = handle
    visitor, body = site.visitor(), chat(max_tokens=50)
    got = site.ask(visitor, CHAT, body)
    assert (got.status, got.clean_end) == (200, False)
    assert 8_000_000 < len(got.body) <= 10_000_000
    assert got.body.strip(b"x") == b""
    # 3.3 million tokens would be seen; the request allowed 50
    nanousd = -(-len(body) // 3) * 2_500 + 50 * 10_000
    site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)


def test_json_that_is_cut_short_passes_and_is_estimated(site: Site) -> None:
    answer = openai_chat(text="Hello.", usage=USAGE)[:-100]
    site.stub.handle = plain(answer)
    visitor, body = site.visitor(), chat(max_tokens=1000)
    got = site.ask(visitor, CHAT, body)
    assert (got.status, got.body) == (200, answer)
    nanousd = chat_estimate(body, len(answer))
    site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_empty_200_costs_nothing(site: Site, is_stream: bool) -> None:
    site.stub.handle = stream([]) if is_stream else plain(b"")
    visitor = site.visitor()
    got = site.ask(visitor, CHAT, chat(stream=is_stream))
    if is_stream:
        assert_interrupted(got, b"")
    else:
        assert (got.status, got.body, got.clean_end) == (200, b"", True)
    site.assert_released(visitor)


def test_an_error_in_a_200_costs_nothing(site: Site) -> None:
    answer = b'{"error":{"message":"upstream is down","code":502}}'
    site.stub.handle = plain(answer)
    visitor = site.visitor()
    assert site.ask(visitor, CHAT, chat()).body == answer
    site.assert_released(visitor)


ABSURD = [-1, 1.5, True, 2**63, "200"]


@pytest.mark.parametrize("value", ABSURD)
@pytest.mark.parametrize("is_stream", [False, True])
def test_absurd_usage_is_not_trusted_and_the_row_says_so(
    site: Site, value: object, is_stream: bool
) -> None:
    usage = {**USAGE, "completion_tokens": value}
    text, body = "Hello there!", chat(stream=is_stream)
    answer = openai_chat(text=text, usage=usage)
    site.stub.handle = stream(openai_chat_stream(PIECES, usage)) if is_stream else plain(answer)
    visitor = site.visitor()
    got = site.ask(visitor, CHAT, body)
    assert (got.status, got.clean_end) == (200, True)
    choice = json.dumps(json.loads(answer)["choices"][0], indent=2).encode()
    indented = len(choice) + 4 * choice.count(b"\n")  # as it stands in the answer
    nanousd = chat_estimate(body, SEEN if is_stream else indented)
    row = site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)
    assert row["reason"].startswith("absurd token count")
    request_id = (got.header("x-llmproxy-request-id") or b"").decode()
    said = f"{request_id}: openai reported usage that is not trusted, the estimate counts: absurd"
    wait_until(lambda: said in site.proxy.log.read_text())  # the operator hears of it too
    assert json.loads(row["raw_usage"]) == usage


# --- streams ---


@pytest.mark.parametrize("is_reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_stream_that_breaks_off_ends_in_an_error_event_and_is_estimated(
    site: Site, count: int, is_reset: bool
) -> None:
    site.stub.handle = broken_stream(EVENTS[:count], reset=is_reset)
    visitor, body = site.visitor(), chat(stream=True)
    got = site.ask(visitor, CHAT, body)
    # a reset may overtake what was sent before it
    assert_interrupted(got, b"" if is_reset else b"".join(EVENTS[:count]))
    seen = sum(len(piece) for piece in PIECES if f'"{piece}"'.encode() in got.body)
    if seen:
        nanousd = chat_estimate(body, seen)
        row = site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)
    else:
        row = site.assert_released(visitor)
    assert row["reason"] == "openai broke off: its connection ended in the middle"
    told = got.last_event()[1]["error"]["message"]
    assert told.startswith(f"Proxy error: {row['reason']}. Request id req_")
    assert (row["status"], row["upstream_status"]) == (200, 200)


def test_a_stream_with_a_clean_end_before_its_time_is_no_success(site: Site) -> None:
    site.stub.handle = stream(EVENTS[:4])
    visitor, body = site.visitor(), chat(stream=True)
    assert_interrupted(site.ask(visitor, CHAT, body), b"".join(EVENTS[:4]))
    nanousd = chat_estimate(body, SEEN)
    row = site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)
    assert row["reason"] == "openai ended the stream before the answer was complete"


def test_broken_chunks_end_an_answer_at_once(site: Site) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "text/event-stream")])
        for event in EVENTS[:4]:
            await out.chunk(event)
        await out.send(b"zz\r\n{}\r\n")
        await out.client_gone.wait()

    site.stub.handle = handle
    visitor, body = site.visitor(), chat(stream=True)
    got = site.ask(visitor, CHAT, body)
    assert_interrupted(got, b"".join(EVENTS[:4]))
    nanousd = chat_estimate(body, SEEN)
    row = site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)
    assert row["reason"] == "openai broke off: its body is no valid HTTP"


def test_half_an_event_is_not_passed_on_before_the_error(site: Site) -> None:
    site.stub.handle = stream([*EVENTS[:3], EVENTS[3][:40]])
    got = site.ask(site.visitor(), CHAT, chat(stream=True))
    assert_interrupted(got, b"".join(EVENTS[:3]) + b"\n\nevent: error\n")


def test_half_an_event_that_was_passed_on_is_closed_before_the_error(site: Site) -> None:
    site.stub.handle = stream([*EVENTS[:3], EVENTS[3][:40]])
    body = chat(stream=True, stream_options={"include_usage": True})
    got = site.ask(site.visitor(), CHAT, body)
    assert_interrupted(got, b"".join(EVENTS[:3]) + EVENTS[3][:40] + b"\n\nevent: error\n")


def test_a_complete_answer_without_usage_is_estimated(site: Site) -> None:
    site.stub.handle = stream(openai_chat_stream(PIECES, include_usage=False))
    visitor, body = site.visitor(), chat(stream=True)
    got = site.ask(visitor, CHAT, body)
    assert got.body == b"".join(openai_chat_stream(PIECES, include_usage=False))
    nanousd = chat_estimate(body, SEEN)
    row = site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)
    assert row["reason"] == "the provider reported no usage"


def test_an_answer_that_finished_but_for_done_ends_as_the_provider_ended_it(site: Site) -> None:
    site.stub.handle = stream(EVENTS[:5])
    visitor, body = site.visitor(), chat(stream=True)
    got = site.ask(visitor, CHAT, body)
    assert (got.body, got.clean_end) == (b"".join(EVENTS[:5]), True)
    nanousd = chat_estimate(body, SEEN)
    site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)


def test_a_stream_that_breaks_off_after_its_usage_is_charged_exactly(site: Site) -> None:
    site.stub.handle = broken_stream(EVENTS[:6])
    visitor = site.visitor()
    assert_interrupted(site.ask(visitor, CHAT, chat(stream=True)), b"".join(EVENTS[:5]))
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=COST)


def test_a_connection_that_breaks_after_done_harms_nothing(site: Site) -> None:
    site.stub.handle = broken_stream(EVENTS)
    visitor = site.visitor()
    got = site.ask(visitor, CHAT, chat(stream=True))
    assert (got.body, got.clean_end) == (b"".join([*EVENTS[:5], EVENTS[6]]), True)
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=COST)


def test_an_error_event_of_the_provider_passes_and_only_the_text_before_it_is_paid(
    site: Site,
) -> None:
    error = b'event: error\ndata: {"error":{"message":"overloaded","status_code":400}}\n\n'
    for seen, events in {0: [error], SEEN: [*EVENTS[:4], error]}.items():
        site.stub.handle = stream(events)
        visitor, body = site.visitor(), chat(stream=True)
        got = site.ask(visitor, CHAT, body)
        assert (got.body, got.clean_end) == (b"".join(events), True)
        if seen:
            nanousd = chat_estimate(body, seen)
            site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)
        else:
            site.assert_released(visitor)


def test_usage_in_an_error_chunk_is_the_bill(site: Site) -> None:
    error = data_event({"error": {"code": 502, "message": "x"}, "choices": [], "usage": USAGE})
    site.stub.handle = stream([*EVENTS[:4], error])
    visitor = site.visitor()
    site.ask(visitor, CHAT, chat(stream=True))
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=COST)


@pytest.mark.parametrize("ending", ["FIN", "clean", "error event"])
def test_anthropics_input_is_exact_even_when_its_stream_breaks_off(site: Site, ending: str) -> None:
    events = SONNET_EVENTS[:6]
    error = named_event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    handles = {
        "FIN": broken_stream(events),
        "clean": stream(events),
        "error event": stream([*events, error]),
    }
    site.stub.handle = handles[ending]
    visitor = site.visitor()
    got = site.ask(visitor, MESSAGES, message(stream=True))
    if ending == "error event":
        assert (got.body, got.clean_end) == (b"".join([*events, error]), True)
    else:
        assert_interrupted(got, b"".join(events))
    # 12 bytes of text were seen, and the start had counted 1 token
    nanousd = SONNET_INPUT + 4 * 15_000
    site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)
