"""Owns downloads: rows as CSV or JSON Lines, read page by page while they are sent.

Each page is read in a short transaction, with the session looked up again, and written in the
reader's thread. Only a few are sent at once, and a client that takes nothing is let go.
"""

import asyncio
import csv
import io
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from litestar import HttpMethod, Request, Response, route
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import Message, Receive, Scope, Send
from typing_extensions import override

from llmproxy import reports
from llmproxy.dashboard.errors import BusyError
from llmproxy.dashboard.formats import iso_day
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.dashboard.site import HEADERS, Site
from llmproxy.dashboard.slots import Slots
from llmproxy.errors import LlmproxyError
from llmproxy.storage.database import Tx

DOWNLOADS_MAX = 8
DOWNLOADS_OF_USER_MAX = 2
STALL_S = 30.0
"""A client that takes nothing for so long has gone."""
DOWNLOAD_S_MAX = 3600.0
REST_S = 0.02
"""Between two pieces: the proxy's own requests, which wait while one is made, come first."""
MEDIA_TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl"}

_CONNECTION = "llmproxy.cycle"
"""Where the server, which stands above the dashboard, puts a weak reference to the connection."""

_log = logging.getLogger("llmproxy.dashboard")


class Rows(NamedTuple):
    """Some rows of a download, and where the next ones begin (None: these are the last)."""

    rows: list[dict[str, object]]
    go_on: Any


class Table(NamedTuple):
    """What is to be downloaded."""

    name: str
    columns: tuple[str, ...]
    """Those of CSV, in their order."""
    read: Callable[[Tx, SignedIn, Any], Rows]
    """Returns the rows from a place on; None is the beginning."""
    is_for_admins: bool = False
    """Nobody but operators may have it."""


class Downloads:
    """Answers with tables."""

    def __init__(self, site: Site) -> None:
        """Begin with none under way."""
        self._site = site
        self._slots = Slots("downloads", of_all=DOWNLOADS_MAX, of_one=DOWNLOADS_OF_USER_MAX)

    def routes(
        self, path: str, table: Callable[[Request[Any, Any, Any]], Table]
    ) -> list[HTTPRouteHandler]:
        """Return the routes of a table: its path with the ending of each format.

        Args:
            path: that of the page which shows the table.
            table: returns what of it a request asks for.
        """
        return [self._route(path, table, file_format) for file_format in MEDIA_TYPES]

    def _route(
        self, path: str, table: Callable[[Request[Any, Any, Any]], Table], file_format: str
    ) -> HTTPRouteHandler:
        @route(f"{path}.{file_format}", http_method=[HttpMethod.GET, HttpMethod.HEAD])
        async def download(request: Request[Any, Any, Any]) -> Response[Any]:
            return await self.send(request, table(request), file_format)

        return download

    async def send(
        self, request: Request[Any, Any, Any], table: Table, file_format: str
    ) -> Response[Any]:
        """Return the answer; its first rows have been read, the others are while it is sent.

        Raises:
            NotSignedInError: nobody is.
            NotAllowedError: the table is for operators, and they are none.
            BusyError: too many are under way.
        """
        site = self._site
        read_as = site.read_as_admin if table.is_for_admins else site.read_as_user

        async def read(place: Any) -> tuple[SignedIn, _Piece]:  # noqa: ANN401 - the table's own
            if site.office.is_stopping():
                raise BusyError("the proxy is being stopped")
            return await read_as(request, _piece, table, file_format, place)

        signed_in, first = await read(None)
        self._slots.take(signed_in.user.id)
        name = f"llmproxy-{table.name}-{iso_day(signed_in.now_ms)}"
        headers = {
            **HEADERS,
            "cache-control": "no-store",
            "content-type": MEDIA_TYPES[file_format],
            "content-disposition": f'attachment; filename="{name}.{file_format}"',
        }
        on_end = partial(self._slots.give_back, signed_in.user.id)
        return _Download(_pieces(read, first), on_end, headers)


class _Piece(NamedTuple):
    data: bytes
    go_on: Any


def _piece(tx: Tx, signed_in: SignedIn, table: Table, file_format: str, place: Any) -> _Piece:  # noqa: ANN401
    """Return the bytes of the next rows; runs in the reader's thread."""
    found = table.read(tx, signed_in, place)
    if file_format == "csv":
        text = _csv(table.columns, found.rows, has_head=place is None)
    else:
        # Only ASCII, so that no name can steer a terminal.
        text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in found.rows)
    return _Piece(text.encode(), found.go_on)


def _csv(columns: tuple[str, ...], rows: Iterable[Mapping[str, object]], *, has_head: bool) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n", extrasaction="ignore")
    if has_head:
        writer.writeheader()
    writer.writerows(reports.cells(row) for row in rows)
    return out.getvalue()


async def _pieces(
    read: Callable[[Any], Awaitable[tuple[SignedIn, _Piece]]], first: _Piece
) -> AsyncIterator[bytes]:
    piece = first
    while True:
        if piece.data:
            yield piece.data
        if piece.go_on is None:
            return
        await asyncio.sleep(REST_S)
        _, piece = await read(piece.go_on)


class _Download(Response[bytes]):
    """An answer that is sent piece by piece."""

    def __init__(
        self, pieces: AsyncIterator[bytes], on_end: Callable[[], None], headers: dict[str, str]
    ) -> None:
        super().__init__(b"", headers=headers)
        self._pieces = pieces
        self._on_end = on_end

    @override
    def to_asgi_response(self, *args: Any, **kwargs: Any) -> ASGIResponse:
        del args  # of what else the framework would add there is nothing
        sending = _Sending(self._pieces, self._on_end, dict(self.headers))
        sending.is_head_response = kwargs.get("is_head_response", False)
        return sending


class _Sending(ASGIStreamingResponse):
    """Sends pieces for as long as the client takes them, and says when that has ended."""

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        on_end: Callable[[], None],
        headers: dict[str, str],
        stall_s: float = STALL_S,
    ) -> None:
        super().__init__(iterator=pieces, headers=headers, media_type=headers["content-type"])
        self._on_end = on_end
        self._stall_s = stall_s

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        # The answer is not ended then: its client sees that it is not whole.
        except* (LlmproxyError, TimeoutError) as errors:
            _log.warning("a download was broken off: %r", errors.exceptions[0])
            scope[_CONNECTION]().abort()  # type: ignore[literal-required]
            await receive()  # until the server knows that it is cut
        finally:
            self._on_end()

    @override
    async def send_body(self, send: Send, receive: Receive) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._stall_s):
                await send(message)

        async with asyncio.timeout(DOWNLOAD_S_MAX):
            await super().send_body(send_in_time, receive)
