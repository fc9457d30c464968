"""Faults of the connection, and of HTTP itself."""

import asyncio
from collections.abc import Callable, Iterator

from tests.faults.cell import SILENT_S, Case, End, Handler, Place, Row, Stage, View
from tests.faults.dialects import Dialect
from tests.faults.expect import (
    BROKE_OFF,
    ENDED_EARLY,
    JSON_HEAD,
    STREAM_HEAD,
    answer_whole,
    billed,
    cut_short,
    estimated,
    released,
    unreachable,
    whole_view,
)
from tests.support.stub_provider import Out, SeenRequest

NO_ANSWER = r"Proxy error: \S+ broke off before answering\. Request id req_"
NO_BODY = r"Proxy error: \S+ broke off its answer\. Request id req_"
NO_WAY = r"Proxy error: \S+ (cannot be reached|broke off before answering)\. Request id req_"
SILENT = f"the provider was silent for {SILENT_S} s$"
ABANDONED = f"the client left and the answer did not end within {SILENT_S} s$"
TIMEOUT = View(504, End.OUR_ERROR, code="upstream_timeout", should_retry=b"false")
MANY_HEADERS = [(f"x-number-{number}", str(number)) for number in range(200)]


async def nothing(request: SeenRequest, out: Out, stage: Stage) -> None:
    """It never comes to an answer."""


async def reset(request: SeenRequest, out: Out, stage: Stage) -> None:
    out.abort()


async def close(request: SeenRequest, out: Out, stage: Stage) -> None:
    out.close()


async def half_close(request: SeenRequest, out: Out, stage: Stage) -> None:
    out.half_close()
    await stage.hangs(out)


async def silent(request: SeenRequest, out: Out, stage: Stage) -> None:
    await stage.hangs(out)


async def half_a_head(request: SeenRequest, out: Out, stage: Stage) -> None:
    await out.send(b"HTTP/1.1 200 OK\r\ncontent-ty")
    await stage.fault()
    out.close()


async def half_a_head_and_silent(request: SeenRequest, out: Out, stage: Stage) -> None:
    await out.send(b"HTTP/1.1 200 OK\r\ncontent-ty")
    await stage.hangs(out)


async def no_http(request: SeenRequest, out: Out, stage: Stage) -> None:
    await out.send(b"SSH-2.0-OpenSSH_9.6\r\n\x00\x01\x02\r\n\r\n")
    out.close()


async def huge_head(request: SeenRequest, out: Out, stage: Stage) -> None:
    await out.send(b"HTTP/1.1 200 OK\r\nx-big: " + b"x" * 200_000 + b"\r\n\r\n")
    out.close()


def cases(dialect: Dialect, *, is_stream: bool) -> Iterator[Case]:
    """All faults of this page."""
    yield from _no_answer(dialect, is_stream=is_stream)
    yield from _silence(dialect, is_stream=is_stream)
    yield from _harmless(dialect, is_stream=is_stream)
    yield from _broken_framing(dialect, is_stream=is_stream)


def _no_answer(dialect: Dialect, *, is_stream: bool) -> Iterator[Case]:
    """Nothing was generated as far as anybody can tell: nothing is charged."""
    yield Case(
        "connecting is refused",
        nothing,
        unreachable(should_retry=True),
        released(None, r"Proxy error: \S+ cannot be reached\. "),
        place=Place.CLOSED,
    )
    yield Case(
        "the connection is reset once accepted",
        nothing,
        View(502, End.OUR_ERROR, code="upstream_unreachable"),
        released(None, NO_WAY),
        place=Place.RESET,
    )
    yield Case(
        "a kept connection is stale",
        reset,
        unreachable(),
        released(None, NO_ANSWER),
        place=Place.OWN,
    )
    unanswered = {
        "reset after the request": reset,
        "closed after the request": close,
        "half-closed after the request": half_close,
        "closed in the head": half_a_head,
        "no HTTP": no_http,
        "a head without end": huge_head,
    }
    for fault, handle in unanswered.items():
        has_middle = handle is half_a_head
        yield Case(fault, handle, unreachable(), released(None, NO_ANSWER), has_middle=has_middle)


def _silence(dialect: Dialect, *, is_stream: bool) -> Iterator[Case]:
    """The provider falls silent, and stays so."""
    hold = Row("settled", "hold", dialect.hold(is_stream=is_stream), None, ABANDONED)

    def abandoned(seen_bytes: int, status: int | None, *, is_told: bool = False) -> Row:
        if dialect.is_reasoning:
            return hold._replace(upstream_status=status)
        row = estimated(dialect, seen_bytes, ABANDONED, is_stream=is_stream, is_input_told=is_told)
        return row._replace(upstream_status=status)

    for fault, handle in {"silent": silent, "silent in the head": half_a_head_and_silent}.items():
        yield Case(fault, handle, TIMEOUT, released(None, SILENT), abandoned=abandoned(0, None))

    async def after_the_head(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(200, STREAM_HEAD if is_stream else JSON_HEAD)
        await stage.hangs(out)

    view = View(200, End.OUR_EVENT, b"", "upstream_interrupted") if is_stream else TIMEOUT
    row = released(200, SILENT)
    yield Case("silent after the head", after_the_head, view, row, abandoned=abandoned(0, 200))

    async def in_the_body(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(200, JSON_HEAD)
        await out.chunk(dialect.plain()[:40])
        await stage.hangs(out)

    if not is_stream:
        yield Case("silent in the body", in_the_body, TIMEOUT, row, abandoned=abandoned(0, 200))
        return
    for count in range(1, len(dialect.events)):
        yield _silent_stream(dialect, count, abandoned)


def _silent_stream(dialect: Dialect, count: int, abandoned: Callable[..., Row]) -> Case:
    events = dialect.events[:count]

    async def handle(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(200, STREAM_HEAD)
        for event in events:
            await out.chunk(event.raw)
        await stage.hangs(out)

    view, row = cut_short(dialect, events, SILENT, is_clean=False)
    seen = sum(event.text_bytes for event in events)
    is_told = any(event.tells_input for event in events)
    left = abandoned(seen, 200, is_told=is_told)
    if any(event.settles for event in events):
        left = billed(dialect, ABANDONED)
    if events[-1].closes:
        left = billed(dialect)
    return Case(f"silent after event {count}", handle, view, row, abandoned=left)


def _harmless(dialect: Dialect, *, is_stream: bool) -> Iterator[Case]:
    """Strange, but the answer is whole."""
    view, row = whole_view(dialect, is_stream=is_stream), billed(dialect)
    head = STREAM_HEAD if is_stream else JSON_HEAD
    whole = b"".join(event.raw for event in dialect.events) if is_stream else dialect.plain()

    async def byte_by_byte(request: SeenRequest, out: Out, stage: Stage) -> None:
        raw = b"HTTP/1.1 200 OK\r\n%b\r\nconnection: close\r\n\r\n" % _lines(head)
        for at in range(len(raw)):
            await out.send(raw[at : at + 1])
            await _yield()
        await stage.fault()
        for at in range(len(whole)):
            await out.send(whole[at : at + 1])
            await _yield()
        out.close()

    async def informed(request: SeenRequest, out: Out, stage: Stage) -> None:
        for _ in range(100):
            await out.send(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
        await stage.fault()
        await answer_whole(out, dialect, is_stream=is_stream)

    async def many_headers(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(200, [*head, *MANY_HEADERS])
        await stage.fault()
        await out.chunk(whole)
        await out.end()

    async def cookies(request: SeenRequest, out: Out, stage: Stage) -> None:
        given = [("set-cookie", "session=1"), ("set-cookie", "__cf_bm=2"), ("server", "x")]
        await out.head(200, [*head, *given, ("openai-organization", "org-secret")])
        await out.chunk(whole)
        await out.end()

    async def until_closed(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(200, head, chunked=False)
        await out.send(whole[:50])
        await stage.fault()
        await out.send(whole[50:])
        out.close()

    async def until_half_closed(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(200, head, chunked=False)
        await out.send(whole)
        out.half_close()
        await stage.hangs(out)

    async def closed_behind(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(200, head, length=len(whole))
        await out.send(whole)
        out.close()

    async def garbage_behind(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(200, head, length=len(whole))
        await out.send(whole + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    async def unread(request: SeenRequest, out: Out, stage: Stage) -> None:
        await answer_whole(out, dialect, is_stream=is_stream)

    yield Case("byte by byte", byte_by_byte, view, row, has_middle=True)
    yield Case("a hundred interim answers", informed, view, row, has_middle=True)
    yield Case("200 headers", many_headers, view, row, has_middle=True)
    hidden = (b"set-cookie", b"server", b"openai-organization")
    yield Case("cookies and names", cookies, view, row, view_headers=hidden)
    yield Case("ended by closing", until_closed, view, row, has_middle=True)
    yield Case("ended by half-closing", until_half_closed, view, row)
    yield Case("closed behind the answer", closed_behind, view, row, place=Place.OWN)
    yield Case("another answer behind it", garbage_behind, view, row, place=Place.OWN)
    yield Case(
        "answered before the request was read",
        unread,
        view,
        row,
        place=Place.UNREAD,
        padding_bytes=600_000,
    )


def _broken_framing(dialect: Dialect, *, is_stream: bool) -> Iterator[Case]:
    """The body's length is wrong, or its chunks are."""
    if is_stream:
        yield from _broken_framing_of_streams(dialect)
        return
    whole = dialect.plain()
    broken = released(200, NO_BODY)

    async def too_long(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(200, JSON_HEAD, length=len(whole) + 1)
        await out.send(whole)
        await stage.fault()
        out.close()

    async def too_short(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(200, JSON_HEAD, length=len(whole) - 1)
        await out.send(whole)

    async def unfinished(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(200, JSON_HEAD)
        await out.chunk(whole)
        await stage.fault()
        out.close()

    def reset_after(count: int) -> Handler:
        async def handle(request: SeenRequest, out: Out, stage: Stage) -> None:
            await out.head(200, JSON_HEAD, length=len(whole))
            await out.send(whole[:count])
            await stage.fault()
            out.abort()

        return handle

    yield Case("content-length too long", too_long, unreachable(), broken, has_middle=True)
    yield Case(
        "content-length too short",
        too_short,
        View(200, End.CLEAN, whole[:-1]),
        estimated(dialect, len(whole) - 1, "the answer is not the expected JSON$", is_stream=False),
        place=Place.OWN,
    )
    yield Case("closed before the last chunk", unfinished, unreachable(), broken, has_middle=True)
    places = {"after the head": 0, "in the body": 40, "at the end": len(whole) - 1}
    for fault, count in places.items():
        handle = reset_after(count)
        yield Case(f"reset {fault}", handle, unreachable(), broken, has_middle=True)
    for fault, size in BAD_CHUNKS.items():
        handle = _bad_chunk(JSON_HEAD, [whole], size)
        yield Case(fault, handle, unreachable(), broken, has_middle=True)


BAD_CHUNKS = {
    "a chunk of no number": b"zz\r\n{}\r\n",
    "a chunk of a negative size": b"-1\r\n{}\r\n",
    "a chunk of a huge size": b"f" * 40 + b"\r\n{}\r\n",
    "a chunk longer than it says": b"1\r\n{}{}{}\r\n",
}


def _bad_chunk(head: list[tuple[str, str]], parts: list[bytes], bad: bytes) -> Handler:
    async def handle(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(200, head)
        for part in parts:
            await out.chunk(part)
        await stage.fault()
        await out.send(bad)
        await stage.hangs(out)

    return handle


def _broken_framing_of_streams(dialect: Dialect) -> Iterator[Case]:
    for count in (4, len(dialect.events)):
        events = dialect.events[:count]
        raw = [event.raw for event in events]
        where = f"after event {count}"
        view, row = cut_short(dialect, events, BROKE_OFF, is_clean=False)
        for fault in ("a chunk of no number", "a chunk of a negative size"):
            handle = _bad_chunk(STREAM_HEAD, raw, BAD_CHUNKS[fault])
            yield Case(f"{fault} {where}", handle, view, row, has_middle=True)
        yield Case(f"content-length too long {where}", _too_long(raw), view, row, has_middle=True)
        view, row = cut_short(dialect, events, ENDED_EARLY, is_clean=True)
        fault = f"content-length too short {where}"
        yield Case(fault, _too_short(raw), view, row, place=Place.OWN)


def _too_long(raw: list[bytes]) -> Handler:
    async def handle(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(200, STREAM_HEAD, length=sum(map(len, raw)) + 1)
        for part in raw:
            await out.send(part)
        await stage.fault()
        out.close()

    return handle


def _too_short(raw: list[bytes]) -> Handler:
    async def handle(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(200, STREAM_HEAD, length=sum(map(len, raw)))
        await out.send(b"".join(raw) + b"data: more")

    return handle


def _lines(head: list[tuple[str, str]]) -> bytes:
    return "\r\n".join(f"{name}: {value}" for name, value in head).encode()


async def _yield() -> None:
    """Let the bytes so far go their way."""
    await asyncio.sleep(0)
