"""Very long answers at full speed: the proxy passes them on, and its memory stays bounded.

They are too heavy for the whole matrix, so that each is there for one or two endpoints, and they
are run one after the other.
"""

from collections.abc import Iterator

from tests.faults.cell import Bulk, Case, End, Handler, Limits, Row, Stage, View
from tests.faults.dialects import CHAT, MESSAGES, Dialect
from tests.faults.expect import JSON_HEAD, STREAM_HEAD, billed, released
from tests.faults.statuses import HTML_HEAD
from tests.faults.streams import text_event
from tests.support.stub_provider import Headers, Out, SeenRequest

MB = 1_000_000
ANSWER_MB = 100
PAGE_MB = 50
STREAM_MIB_MAX = 32
"""Of memory that an answer may take which is passed on as it comes."""


def cases(dialect: Dialect, *, is_stream: bool) -> Iterator[Case]:
    """All faults of this page."""
    if dialect not in (CHAT, MESSAGES):
        return
    if is_stream:
        yield from _streams(dialect)
    else:
        yield _plain(dialect)
    if is_stream == (dialect is CHAT):
        yield from _pages()


def _streams(dialect: Dialect) -> Iterator[Case]:
    at = 3
    before, after = dialect.events[:at], dialect.events[at:]
    fillings = {
        "text": text_event(dialect, "x" * MB),
        "comments": (b": " + b"x" * 98 + b"\n\n") * (MB // 102),
    }
    if dialect is MESSAGES:
        del fillings["comments"]  # it is the same for all, and slow
    for kind, part in fillings.items():
        count = ANSWER_MB * MB // len(part)
        raw = Bulk(
            b"".join(event.raw for event in before),
            part,
            count,
            b"".join(event.raw for event in after),
        )
        seen = Bulk(dialect.passed(before), part, count, dialect.passed(after))
        view = View(200, End.CLEAN, seen)
        handle = _sent(200, STREAM_HEAD, raw)
        yield _case(f"100 MB of {kind}", handle, view, billed(dialect), STREAM_MIB_MAX)


def _plain(dialect: Dialect) -> Case:
    before, after = dialect.plain(padding="|").split(b"|")
    body = Bulk(before, b"x" * MB, ANSWER_MB, after)
    view, row = View(200, End.CLEAN, body), billed(dialect)
    return _case("a plain answer of 100 MB", _sent(200, JSON_HEAD, body), view, row, STREAM_MIB_MAX)


def _pages() -> Iterator[Case]:
    page = Bulk(b"<html>", b"<p>Bad gateway</p>\n" * (MB // 19), PAGE_MB, b"</html>")
    view, row = View(502, End.CLEAN, page), released(502, "the provider answered 502$")
    for framing, length in {"with its length": page.length, "in chunks": None}.items():
        handle = _sent(502, HTML_HEAD, page, length)
        yield _case(f"502 with a page of 50 MB {framing}", handle, view, row, STREAM_MIB_MAX)


def _case(fault: str, handle: Handler, view: View, row: Row, memory_mib_max: int) -> Case:
    return Case(fault, handle, view, row, limits=Limits.WATCHED, memory_mib_max=memory_mib_max)


def _sent(status: int, head: Headers, body: Bulk, length: int | None = None) -> Handler:
    async def handle(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(status, head, length=length)
        await out.chunk(body.before)
        for _ in range(body.times):
            await out.chunk(body.part)
        await out.chunk(body.after)
        await out.end()

    return handle
