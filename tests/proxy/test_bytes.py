"""What the provider sends is what the client gets, byte for byte and at once; and the way back."""

import asyncio
import json
import time

import pytest

from tests.proxy.helpers import CHAT, MESSAGES, Site, chat, estimate_nanousd, message
from tests.support.answers import (
    anthropic_stream,
    anthropic_usage,
    data_event,
    openai_chat,
    openai_chat_stream,
    openai_usage,
    plain,
    stream,
)
from tests.support.stub_provider import Handler, Out, SeenRequest

USAGE = openai_usage(1000, 200, cached=600)
COST = 400 * 2_500 + 600 * 1_250 + 200 * 10_000
"""Of USAGE on gpt-4o: 2.50, 1.25 (cached) and 10.00 USD per million tokens."""
SONNET_USAGE = anthropic_usage(12, 90, cache_read=1000, cache_write_5m=100, cache_write_1h=50)
SONNET_COST = 12 * 3_000 + 1000 * 300 + 100 * 3_750 + 50 * 6_000 + 90 * 15_000

GAP_S = 0.05
AT_ONCE_S = 0.04
TRIES = 4
"""The machine may be busy with something else; what is held back would be late every time."""


def cuts(whole: bytes, size: int) -> list[bytes]:
    return [whole[at : at + size] for at in range(0, len(whole), size)]


# --- at once ---


@pytest.mark.parametrize(
    ("path", "body", "events", "withheld"),
    [
        (CHAT, chat(stream=True), openai_chat_stream("abcdef", USAGE), 1),
        (
            CHAT,
            chat(stream=True, stream_options={"include_usage": True}),
            openai_chat_stream("abcdef", USAGE),
            0,
        ),
        (MESSAGES, message(stream=True), anthropic_stream("abcdef", SONNET_USAGE), 0),
    ],
    ids=["usage withheld", "usage asked for", "anthropic"],
)
def test_each_event_arrives_before_the_next_one_was_sent(
    site: Site, path: str, body: bytes, events: list[bytes], withheld: int
) -> None:
    passed = [event for event in events if not (withheld and b'"choices":[]' in event)]
    assert len(events) - len(passed) == withheld
    worst: list[float] = []
    for _ in range(TRIES):
        sent_at: dict[bytes, float] = {}

        async def handle(
            request: SeenRequest, out: Out, sent_at: dict[bytes, float] = sent_at
        ) -> None:
            await out.head(200, [("content-type", "text/event-stream")])
            for event in events:
                sent_at[event] = time.monotonic()
                await out.chunk(event)
                await asyncio.sleep(GAP_S)
            await out.end()

        site.stub.handle = handle
        arrived: list[tuple[float, bytes]] = []
        with site.send(site.visitor(), path, body) as client:
            client.recv_head()
            arrived.extend(client.recv_chunks())
        assert b"".join(piece for _, piece in arrived) == b"".join(passed)
        if [piece for _, piece in arrived] != passed:
            worst.append(GAP_S)  # two came in one read: one of them was late
            continue
        worst.append(max(at - sent_at[event] for at, event in arrived))
        if worst[-1] < AT_ONCE_S:
            return
    raise AssertionError(worst)


# --- streams ---

CRLF_EVENTS = b"".join(openai_chat_stream(("é", "後", "😀"), USAGE)).replace(b"\n", b"\r\n")
CRLF_USAGE = next(event for event in CRLF_EVENTS.split(b"\r\n\r\n") if b'"choices":[]' in event)
RAW_TEXT = (
    'data: {"choices":[{"index":0,"delta":{"content":"é後😀\u2028\u2029\x85"}}]}\n\n'.encode()
)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64])
def test_a_stream_cut_inside_characters_and_line_ends_loses_only_the_usage_chunk(
    site: Site, size: int
) -> None:
    whole = RAW_TEXT.replace(b"\n", b"\r\n") + CRLF_EVENTS
    site.stub.handle = stream(cuts(whole, size), gap_s=0.0005)
    visitor = site.visitor()
    got = site.ask(visitor, CHAT, chat(stream=True))
    assert got.body == whole.replace(CRLF_USAGE + b"\r\n\r\n", b"")
    assert got.clean_end
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=COST)


LONG_LINE = data_event({"choices": [], "padding": "x" * 5_000_000})
ODD_STREAM = b"".join(
    [
        b"\xef\xbb\xbf",
        b": OPENROUTER PROCESSING\n\n",
        RAW_TEXT,
        b"id: 7\nretry: 10\nevent: thing\ndata: {}\r\n\r\n",
        b"data: not json\n\n",
        b'data: {"choices":[],"prompt_filter_results":[]}\n\n',
        LONG_LINE,
        b"\n\n\n",
        b":\r\r",
    ]
)


@pytest.mark.parametrize("asks", [False, True])
def test_an_odd_stream_passes_byte_for_byte(site: Site, asks: bool) -> None:
    *rest, usage_chunk, done = openai_chat_stream(("Hello",), USAGE)
    whole = ODD_STREAM + b"".join([*rest, usage_chunk, done])
    site.stub.handle = stream(cuts(whole, 100_000))
    visitor = site.visitor()
    options = {"include_usage": True} if asks else {"include_usage": False}
    got = site.ask(visitor, CHAT, chat(stream=True, stream_options=options))
    assert got.body == (whole if asks else whole.replace(usage_chunk, b""))
    assert got.clean_end
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=COST)


def test_a_stream_in_the_other_dialect_passes_byte_for_byte(site: Site) -> None:
    whole = b"".join(anthropic_stream(("é", "後", "\u2028"), SONNET_USAGE)).replace(b"\n", b"\r\n")
    whole = b": hello\r\n\r\n" + whole
    site.stub.handle = stream(cuts(whole, 3))
    visitor = site.visitor()
    assert site.ask(visitor, MESSAGES, message(stream=True)).body == whole
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=SONNET_COST)


def test_a_stream_that_nobody_asked_for_is_a_stream_all_the_same(site: Site) -> None:
    events = openai_chat_stream(usage=USAGE)
    site.stub.handle = stream(events)
    visitor = site.visitor()
    got = site.ask(visitor, CHAT, chat())
    assert got.header("content-type") == b"text/event-stream"
    assert got.body.endswith(b"data: [DONE]\n\n")
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=COST)


def test_a_plain_answer_to_a_request_for_a_stream_is_plain(site: Site) -> None:
    answer = openai_chat(usage=USAGE)
    site.stub.handle = plain(answer)
    visitor = site.visitor()
    assert site.ask(visitor, CHAT, chat(stream=True)).body == answer
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=COST)


# --- plain answers ---


@pytest.mark.parametrize("size", [100_000, 9_000_000])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_plain_answers_of_any_size_pass_byte_for_byte(
    site: Site, size: int, is_chunked: bool
) -> None:
    answer = openai_chat(text="é\u2028" + "x" * size, usage=USAGE)
    headers = [("content-type", "application/json"), ("X-Odd", "a, b"), ("x-odd", "c")]

    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(200, headers, length=None if is_chunked else len(answer))
        for piece in cuts(answer, 300_000):
            await out.chunk(piece)
        await out.end()

    site.stub.handle = handle
    visitor = site.visitor()
    got = site.ask(visitor, CHAT, chat())
    assert got.body == answer
    assert (got.status, got.clean_end) == (200, True)
    assert [value for name, value in got.headers if name == b"x-odd"] == [b"a, b", b"c"]
    row = site.assert_paid(visitor, state="settled", basis="usage", nanousd=COST)
    assert got.header("x-llmproxy-request-id") == f"req_{row['id'].hex()}".encode()
    is_large = size > 8 * 1024 * 1024
    assert got.header("x-llmproxy-cost-usd") == (None if is_large else b"0.00375")
    assert (got.header("content-length") is None) == is_large


@pytest.mark.parametrize("status", [200, 201, 203, 299])
def test_an_answer_of_one_byte_passes_with_its_status(site: Site, status: int) -> None:
    site.stub.handle = plain(b"7", status, [("x-unusual", "yes")])
    visitor, body = site.visitor(), chat()
    got = site.ask(visitor, CHAT, body)
    assert (got.status, got.body, got.header("x-unusual")) == (status, b"7", b"yes")
    nanousd = estimate_nanousd(body, 1, input_rate=2_500, output_rate=10_000)
    row = site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)
    assert row["reason"] == "the answer is not the expected JSON"


def test_a_200_that_is_no_json_passes_and_is_estimated(site: Site) -> None:
    page = b"<html>\xff\x00 hello</html>\r\n"

    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "text/html")], length=len(page))
        await out.send(page)

    site.stub.handle = handle
    visitor, body = site.visitor(), chat()
    got = site.ask(visitor, CHAT, body)
    assert (got.status, got.header("content-type"), got.body) == (200, b"text/html", page)
    nanousd = estimate_nanousd(body, len(page), input_rate=2_500, output_rate=10_000)
    site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)


def test_an_estimate_never_takes_more_output_than_the_request_allowed(site: Site) -> None:
    site.stub.handle = plain(b"x" * 50_000)
    visitor, body = site.visitor(), chat(max_tokens=100, n=2)
    site.ask(visitor, CHAT, body)
    nanousd = -(-len(body) // 3) * 2_500 + 2 * 100 * 10_000
    site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)


# --- request bodies ---

ODD_BODY = (
    b'\r\n{ "model" :"gpt-4o",\t"max_tokens": 100, "messages":[{"role":"user","content":'
    b'"\\u00e9 \xc3\xa9 \\ud83d\\ude00 \\ud800 \\/ "}],\n"temperature":1.0e0, "new":{"b":1,"a":2}'
    b"%b}\n "
)
ASKED = b'{"stream_options":{"include_usage":true},'


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (ODD_BODY % b"", ODD_BODY % b""),
        (ODD_BODY % b',"stream":false', ODD_BODY % b',"stream":false'),
        (
            ODD_BODY % b',"stream":true',
            (ODD_BODY % b',"stream":true').replace(b"{", ASKED, 1),
        ),
        (
            ODD_BODY % b',"stream":true,"stream_options": { "x":"\\u00e9" }',
            ODD_BODY % b',"stream":true,"stream_options": {"x":"\\u00e9","include_usage":true}',
        ),
        (
            ODD_BODY % b',"stream":true,"stream_options":{"include_usage" :true}',
            ODD_BODY % b',"stream":true,"stream_options":{"include_usage" :true}',
        ),
    ],
    ids=["plain", "stream false", "spliced in", "merged", "asked for"],
)
def test_a_request_body_reaches_the_provider_byte_for_byte(
    site: Site, body: bytes, wanted: bytes
) -> None:
    site.stub.handle = answer_as_asked
    visitor = site.visitor()
    assert site.ask(visitor, CHAT, body).status == 200
    assert site.last_request().body == wanted
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=COST)


@pytest.mark.parametrize("size", [300_000, 5_000_000])
def test_a_large_request_body_reaches_the_provider_byte_for_byte(site: Site, size: int) -> None:
    site.stub.handle = answer_as_asked
    text = '"\\\n{[é' * (size // 10)
    messages = [{"role": "user", "content": text}]
    body = chat(messages=messages, stream=True, model="gpt-4o-mini")
    visitor = site.visitor()
    assert site.ask(visitor, CHAT, body).status == 200
    assert site.last_request().body == body.replace(b"{", ASKED, 1)
    # 400 × 0.15 + 600 × 0.075 + 200 × 0.60 USD per million
    nanousd = 400 * 150 + 600 * 75 + 200 * 600
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=nanousd)


def test_a_body_of_the_other_dialect_reaches_the_provider_byte_for_byte(site: Site) -> None:
    site.stub.handle = stream(anthropic_stream(usage=SONNET_USAGE))
    body = b' {"model" : "claude-sonnet-4-6","max_tokens":100,"stream":true,"messages":[] }\n'
    visitor = site.visitor()
    assert site.ask(visitor, f"{MESSAGES}?beta=true", body).status == 200
    seen = site.last_request()
    assert (seen.body, seen.target) == (body, b"/v1/messages?beta=true")
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=SONNET_COST)


async def answer_as_asked(request: SeenRequest, out: Out) -> None:
    is_stream = json.loads(request.body).get("stream")
    handle: Handler = (
        stream(openai_chat_stream(usage=USAGE)) if is_stream else plain(openai_chat(usage=USAGE))
    )
    await handle(request, out)
