"""Owns what a user may ask with their API key: `GET /v1/key` and `GET /v1/usage`.

Whose rows are read is decided by the key alone, never by anything else in the request.
"""

import csv
import io
from functools import partial

import msgspec

from llmproxy import reports
from llmproxy.accounts import Principal
from llmproxy.clock import Clock, RequestIds, parse_request_id, request_id_text, rfc3339, time_text
from llmproxy.errors import invalid_request, websocket_unsupported, wrong_method
from llmproxy.exchange import Client
from llmproxy.headers import Headers, asks_websocket
from llmproxy.own_answers import answer_failure
from llmproxy.relay import Relay, Request
from llmproxy.server.usage_query import UsageQuery, read_usage_query
from llmproxy.shapes import KeyStanding, RequestsPage, SumsPage
from llmproxy.storage.database import Tx
from llmproxy.storage.reader import Reader, ReadTimeoutError

KEY_PATH = b"/v1/key"
USAGE_PATH = b"/v1/usage"


REQUEST_COLUMNS = (
    *("id", "created_at", "key", "provider", "endpoint", "model", "stream", "status"),
    *("state", "basis", "reason"),
    *(f"usage_{name}" for name in reports.USAGE_CLASSES),
    *("hold_usd", "cost_usd", "charged_usd", "upstream_status", "ttfb_ms", "duration_ms"),
)
GROUP_COLUMNS = ("requests", "tokens_in", "tokens_out", "cost_usd", "charged_usd")


class SelfService:
    """Answers users' questions about themselves."""

    def __init__(self, relay: Relay, reader: Reader, clock: Clock, answer_s_max: int) -> None:
        """Take who knows the API keys, where answers are read, and `total_timeout_s`."""
        self._relay = relay
        self._reader = reader
        self._clock = clock
        self._answer_s_max = answer_s_max
        self._ids = RequestIds()

    async def handle(self, request: Request, client: Client) -> None:
        """Answer one request, whatever comes of it."""
        trace = request.trace
        trace.request_id = request_id_text(self._ids.new(self._clock.now_ms()))
        trace.endpoint = request.raw_path.removeprefix(b"/v1/").decode()
        try:
            body, headers = await self._answer(request)
            own_id = trace.request_id.encode()
            headers += [
                (b"content-length", b"%d" % len(body)),
                (b"cache-control", b"no-store"),
                (b"x-request-id", own_id),
            ]
            client.start(200, headers)
            client.write(body, more=False)
        except Exception as error:  # noqa: BLE001 - outermost: no traceback reaches the client
            answer_failure(client, error, trace)

    async def _answer(self, request: Request) -> tuple[bytes, Headers]:
        if asks_websocket(request.headers):
            raise websocket_unsupported()
        if request.method not in {"GET", "HEAD"}:
            raise wrong_method("GET, HEAD")
        principal = await self._relay.authenticate(request)
        if request.raw_path == KEY_PATH:
            return await self._key(principal)
        return await self._usage(request, principal)

    async def _key(self, principal: Principal) -> tuple[bytes, Headers]:
        find = partial(
            reports.find_own_key, now_ms=self._clock.now_ms(), answer_s_max=self._answer_s_max
        )
        found = await self._reader.read(find, principal.user_id, principal.api_key_id)
        return _json(found.shown())

    async def _usage(self, request: Request, principal: Principal) -> tuple[bytes, Headers]:
        accept = next((value for name, value in request.headers if name == b"accept"), b"")
        asked = read_usage_query(request.query, accept, now_ms=self._clock.now_ms())
        try:
            # Written in the thread too: a thousand rows would keep the loop for milliseconds.
            return await self._reader.read(_usage_page, principal.user_id, asked)
        except ReadTimeoutError as error:
            raise invalid_request(
                "There are too many requests in this span. Ask for a shorter one with from and to."
            ) from error


def _usage_page(tx: Tx, user_id: int, asked: UsageQuery) -> tuple[bytes, Headers]:
    page = _find_page(tx, user_id, asked)
    if not asked.is_csv:
        return _json(page)
    headers = [(b"content-type", b"text/csv; charset=utf-8")]
    if page.pruned_before:
        headers.append((b"x-llmproxy-pruned-before", page.pruned_before.encode()))
    if page.next_cursor:
        headers.append((b"x-llmproxy-next-cursor", page.next_cursor.encode()))
    return _csv_page(page), headers


def _pruned_before(tx: Tx, asked: UsageQuery) -> str | None:
    """Return the time before which requests were pruned, when the answer lacks some for that."""
    pruned_ms = reports.pruned_before_ms(tx)
    if asked.group == "none":
        is_lacking = asked.since_ms < (pruned_ms or 0)
    else:
        span = reports.split_span(asked.since_ms, asked.until_ms)
        is_lacking = span.has_pruned_part(pruned_ms)
    return rfc3339(pruned_ms) if is_lacking else None


def _find_page(tx: Tx, user_id: int, asked: UsageQuery) -> RequestsPage | SumsPage:
    """Return a page of a user's own rows."""
    since, until = time_text(asked.since_ms), time_text(asked.until_ms)
    pruned_before = _pruned_before(tx, asked)
    if asked.group == "none":
        wanted = reports.RequestFilter(
            user_id=user_id,
            since_ms=asked.since_ms,
            until_ms=asked.until_ms,
            before=parse_request_id(asked.cursor) if asked.cursor else None,
        )
        requests = reports.list_requests(tx, wanted, limit=asked.limit + 1)
        page = requests[: asked.limit]
        return RequestsPage(
            group="none",
            since=since,
            until=until,
            data=[row.shown() for row in page],
            next_cursor=request_id_text(page[-1].id) if len(requests) > len(page) else None,
            pruned_before=pruned_before,
        )
    sums = reports.sum_own(
        tx,
        user_id,
        asked.group,
        since_ms=asked.since_ms,
        until_ms=asked.until_ms,
        limit=asked.limit + 1,
        after=asked.cursor,
    )
    groups = sums[: asked.limit]
    return SumsPage(
        since=since,
        until=until,
        group=asked.group,
        data=[group.row(asked.group) for group in groups],
        next_cursor=groups[-1].name if len(sums) > len(groups) else None,
        pruned_before=pruned_before,
    )


def _json(value: KeyStanding | RequestsPage | SumsPage) -> tuple[bytes, Headers]:
    return msgspec.json.encode(value), [(b"content-type", b"application/json")]


def _csv_page(page: RequestsPage | SumsPage) -> bytes:
    """Return the rows under a line of names; those of a request have a column for each class."""
    names = REQUEST_COLUMNS if page.group == "none" else (page.group, *GROUP_COLUMNS)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(names)
    for row in page.data:
        found = reports.cells(msgspec.to_builtins(row))
        writer.writerow([found.get(name) for name in names])
    return out.getvalue().encode()
