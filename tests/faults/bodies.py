"""Answers with status 200 that are not what was asked for."""

import gzip
from collections.abc import Iterator

from tests.faults.cell import Case, End, Handler, Stage, View
from tests.faults.dialects import Dialect
from tests.faults.expect import (
    ENDED_EARLY,
    JSON_HEAD,
    STREAM_HEAD,
    answer_whole,
    billed,
    estimated,
    released,
    unreachable,
    whole_view,
)
from tests.faults.statuses import HTML_HEAD, answered, error_body
from tests.support.stub_provider import Out, SeenRequest

PAGE = b"<html><body><h1>Please log in to the network</h1></body></html>"
NO_JSON = "the answer is not the expected JSON$"
EMPTY = "the answer was empty$"
LARGE_BYTES = 9 * 1024 * 1024
"""More than is metered before it is sent on."""


def cases(dialect: Dialect, *, is_stream: bool) -> Iterator[Case]:
    """All faults of this page."""
    yield from _encoded(dialect, is_stream=is_stream)
    yield from _of_another_kind(dialect, is_stream=is_stream)
    if not is_stream:
        yield from _no_answer(dialect)
        yield from _large(dialect)


def _no_answer(dialect: Dialect) -> Iterator[Case]:
    yield Case(
        "an empty 200",
        answered(200, b""),
        View(200, End.CLEAN, b""),
        released(200, EMPTY),
        has_middle=True,
    )
    whole = dialect.plain()
    cuts = {"one byte": 1, "a third": len(whole) // 3, "half": len(whole) // 2}
    for name, count in {**cuts, "all but one byte": len(whole) - 1}.items():
        body = whole[:count]
        yield Case(
            f"JSON cut short: {name} of it",
            answered(200, body),
            View(200, End.CLEAN, body),
            estimated(dialect, count, NO_JSON, is_stream=False),
            has_middle=True,
        )
    for name, body in {
        "a list": b"[]",
        "null": b"null",
        "text": b'"hello"',
        "NUL": b"\0" * 9,
    }.items():
        yield Case(
            f"JSON that is {name}",
            answered(200, body),
            View(200, End.CLEAN, body),
            estimated(dialect, len(body), NO_JSON, is_stream=False),
            has_middle=True,
        )
    error = error_body(dialect, "overloaded_error", "Overloaded")
    yield Case(
        "an error with status 200",
        answered(200, error),
        View(200, End.CLEAN, error),
        released(200, "the provider ended the answer with an error$"),
        has_middle=True,
    )


def _of_another_kind(dialect: Dialect, *, is_stream: bool) -> Iterator[Case]:
    """A page, or the one kind of answer where the other was asked for."""
    view = View(200, End.CLEAN, PAGE)
    row = estimated(dialect, len(PAGE), NO_JSON, is_stream=is_stream)
    if is_stream and dialect.path_model:
        # Gemini's streams are looked at whatever they are called: here no event comes.
        view, row = View(200, End.CUT, PAGE), released(200, ENDED_EARLY)
    handle = answered(200, PAGE, HTML_HEAD)
    yield Case("a page with status 200", handle, view, row, has_middle=True)
    yield Case(
        "a 200 of no known kind",
        _without_kind(dialect, is_stream=is_stream),
        whole_view(dialect, is_stream=is_stream),
        billed(dialect),
    )
    if is_stream:
        body = dialect.plain()
        yield Case(
            "a plain answer for a stream",
            answered(200, body),
            View(200, End.CLEAN, body),
            billed(dialect),
            has_middle=True,
        )
    elif dialect.events:

        async def streamed(request: SeenRequest, out: Out, stage: Stage) -> None:
            await answer_whole(out, dialect, is_stream=True)

        yield Case(
            "a stream for a plain request",
            streamed,
            whole_view(dialect, is_stream=True)._replace(
                body=b"".join(event.raw for event in dialect.events)
            ),
            billed(dialect),
        )


def _without_kind(dialect: Dialect, *, is_stream: bool) -> Handler:
    async def handle(request: SeenRequest, out: Out, stage: Stage) -> None:
        if is_stream:
            await out.head(200)
            for event in dialect.events:
                await out.chunk(event.raw)
            await out.end()
        else:
            body = dialect.plain()
            await out.head(200, length=len(body))
            await out.send(body)

    return handle


def _encoded(dialect: Dialect, *, is_stream: bool) -> Iterator[Case]:
    """An encoding that nobody asked for cannot be metered, nor searched for the key."""
    whole = b"".join(event.raw for event in dialect.events) if is_stream else dialect.plain()
    head = STREAM_HEAD if is_stream else JSON_HEAD
    packed = {
        "gzip": gzip.compress(whole),
        "double gzip": gzip.compress(gzip.compress(whole)),
        "br": whole,  # it is not even looked at
    }
    for name, body in packed.items():
        encoding = name.removeprefix("double ")
        yield Case(
            f"{name} with status 200",
            answered(200, body, [*head, ("content-encoding", encoding)]),
            unreachable(),
            released(200, r"Proxy error: \S+ answered in an encoding that was not asked for\. "),
            has_middle=True,
        )
    error = gzip.compress(error_body(dialect, "api_error", "x"))
    yield Case(
        "gzip with status 500",
        answered(500, error, [*JSON_HEAD, ("content-encoding", "gzip")]),
        unreachable(),
        released(500, r"Proxy error: \S+ answered in an encoding that was not asked for\. "),
        has_middle=True,
    )
    yield Case(
        "an encoding called identity",
        answered(200, whole, [*head, ("content-encoding", "identity")]),
        whole_view(dialect, is_stream=is_stream),
        billed(dialect),
        has_middle=True,
    )


def _large(dialect: Dialect) -> Iterator[Case]:
    """Above 8 MiB a plain answer is passed on as it comes."""
    text = "x" * LARGE_BYTES
    body = dialect.plain(padding=text)

    async def whole(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(200, JSON_HEAD, length=len(body))
        await out.send(body)

    yield Case("a large answer", whole, View(200, End.CLEAN, body), billed(dialect))

    async def broken(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(200, JSON_HEAD, length=len(body))
        await out.send(body[:-100])
        await stage.fault()
        out.close()

    yield Case(
        "a large answer that breaks off",
        broken,
        View(200, End.CUT, body[: 8 * 1024 * 1024]),
        estimated(dialect, len(body) - 100, r"\S+ broke off: .", is_stream=False),
        has_middle=True,
    )
