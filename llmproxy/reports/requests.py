"""Owns requests as lists show them: running ones from `holds`, ended ones from `requests`."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from string import hexdigits

import msgspec

from llmproxy.clock import request_id_text, time_text
from llmproxy.money import format_usd
from llmproxy.reports.reasons import why
from llmproxy.shapes import Basis, RequestRow, State, UsageByClass
from llmproxy.storage.database import Tx
from llmproxy.usage import Usage

USAGE_CLASSES = (
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "output",
    "reasoning",
    "web_searches",
)
ID_PREFIX_DIGITS_MIN = 8
ID_DIGITS = 32
PAGE_ROWS = 5000


class Request(msgspec.Struct, frozen=True):
    """One request, running or ended. `state` is open, settled, released, expired or refused.

    Of an open one, only what its hold says is known; its cost is what has been seen so far.
    """

    id: bytes
    created_at_ms: int
    user: str
    api_key: str
    provider: str
    endpoint: str
    model: str
    state: State
    basis: Basis
    hold_nanousd: int
    cost_nanousd: int
    charged_nanousd: int
    shortfall_nanousd: int
    model_served: str | None = None
    is_stream: bool | None = None
    status: int | None = None
    reason: str | None = None
    """As it was stored; `why` is what is shown."""
    usage: str | None = None
    upstream_status: int | None = None
    attempts: int | None = None
    ttfb_ms: int | None = None
    duration_ms: int | None = None

    @property
    def full_model(self) -> str:
        """The model with its provider, for people; not all requests name one."""
        return f"{self.provider}/{self.model}" if self.model else f"{self.provider} (no model)"

    @property
    def why(self) -> str:
        """Why it ended as it did and cost what it did."""
        return why(
            state=self.state,
            basis=self.basis,
            stored=self.reason,
            hold_nanousd=self.hold_nanousd,
            cost_nanousd=self.cost_nanousd,
            shortfall_nanousd=self.shortfall_nanousd,
        )

    def usage_totals(self) -> dict[str, int] | None:
        """Return the tokens of each class over all legs, or None when no usage was recorded."""
        if self.usage is None:
            return None
        try:
            legs = msgspec.json.decode(self.usage, type=Usage).legs
        except msgspec.DecodeError:  # one damaged row; `ledger verify` names it
            return None
        return {name: sum(getattr(leg, name) for leg in legs) for name in USAGE_CLASSES}

    def as_json(self) -> dict[str, object]:
        """Return the row that `usage requests --json` shows; money as decimal strings of USD."""
        row: dict[str, object] = msgspec.to_builtins(self.shown())
        return row

    def shown(self) -> RequestRow:
        """Return the request in the shape in which it is told."""
        totals = self.usage_totals()
        return RequestRow(
            id=request_id_text(self.id),
            created_at=time_text(self.created_at_ms),
            user=self.user,
            key=self.api_key,
            provider=self.provider,
            endpoint=self.endpoint,
            model=self.model,
            stream=self.is_stream,
            status=self.status,
            state=self.state,
            basis=self.basis,
            reason=self.why,
            usage=None if totals is None else UsageByClass(**totals),
            hold_usd=format_usd(self.hold_nanousd),
            cost_usd=format_usd(self.cost_nanousd),
            charged_usd=format_usd(self.charged_nanousd),
            shortfall_usd=format_usd(self.shortfall_nanousd),
            upstream_status=self.upstream_status,
            ttfb_ms=self.ttfb_ms,
            duration_ms=self.duration_ms,
        )


class RequestFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests are wanted; None means any. Times are of the request's arrival."""

    user_id: int | None = None
    key: str | None = None
    provider: str | None = None
    model: str | None = None
    state: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    before: bytes | None = None
    """Only those with a smaller id: what comes behind a page that ended with it."""


_ENDED = """
SELECT requests.id, requests.created_at_ms, users.name, api_keys.name, provider, endpoint, model,
       state, basis, hold_nanousd, cost_nanousd, charged_nanousd, shortfall_nanousd, model_served,
       is_stream, status, reason, usage, upstream_status, attempts, ttfb_ms, duration_ms
FROM requests JOIN users ON users.id = requests.user_id
              JOIN api_keys ON api_keys.id = requests.api_key_id
"""

# Among millions of holds few are open: they are found by their own index, not by a range of ids.
_OPEN_HOLDS = "FROM holds INDEXED BY holds_open"
_HOLD_COLUMNS = """
SELECT holds.id, holds.created_at_ms, users.name, api_keys.name, price_versions.provider, endpoint,
       price_versions.model, holds.state, coalesce(holds.basis, 'none'), amount_nanousd,
       coalesce(cost_nanousd, seen_cost_nanousd), coalesce(charged_nanousd, 0),
       coalesce(shortfall_nanousd, 0), NULL, is_stream
"""
_HOLD_NAMES = """
  JOIN wallets ON wallets.id = holds.wallet_id
  JOIN users ON users.id = wallets.user_id
  JOIN api_keys ON api_keys.id = holds.api_key_id
  JOIN price_versions ON price_versions.id = holds.price_version_id
"""

# The id begins with the time of arrival: a range of ids is a range of times, and an index.
_CHOSEN = """
  AND (:provider IS NULL OR provider = :provider) AND (:model IS NULL OR model = :model)
  AND (:key IS NULL OR api_keys.name = :key)
"""
_CHOSEN_HOLDS = """
  WHERE holds.state = 'open' AND holds.id >= :first AND holds.id < :end
  AND (:user IS NULL OR users.id = :user)
"""
_CHOSEN_ENDED = """
  AND requests.id >= :first AND requests.id < :end AND (:state IS NULL OR state = :state)
"""
# Two texts, so that each is answered from its own index.
_OF_ONE_USER = "WHERE requests.user_id = :user"
_OF_ALL_USERS = "WHERE :user IS NULL"
NEWEST_FIRST = "ORDER BY 1 DESC LIMIT :limit"
OLDEST_FIRST = "ORDER BY 1 LIMIT :limit"


def list_requests(tx: Tx, wanted: RequestFilter, *, limit: int) -> list[Request]:
    """Return up to `limit` requests, running and ended, newest first; a limit of -1 returns all."""
    rows = _select(tx, wanted, id_bound(wanted.since_ms, 0), limit, NEWEST_FIRST)
    rows.sort(key=lambda row: row.id, reverse=True)
    return rows if limit < 0 else rows[:limit]


def request_pages(
    read: Callable[[], AbstractContextManager[Tx]],
    wanted: RequestFilter,
    *,
    page_rows: int = PAGE_ROWS,
) -> Iterator[list[Request]]:
    """Yield all requests that are wanted, oldest first, in pages.

    Each page is read in a short transaction of its own (one that lasted would keep the server from
    emptying its write-ahead log), and in constant memory. No request comes twice.

    Args:
        read: opens a reading transaction.
        wanted: which requests.
        page_rows: the most rows of a page.
    """
    first = id_bound(wanted.since_ms, 0)
    while True:
        with read() as tx:
            rows = _select(tx, wanted, first, page_rows, OLDEST_FIRST)
        rows.sort(key=lambda row: row.id)
        rows = rows[:page_rows]
        if rows:
            yield rows
        if len(rows) < page_rows:
            return
        first = (int.from_bytes(rows[-1].id) + 1).to_bytes(16)


def _select(tx: Tx, wanted: RequestFilter, first: bytes, limit: int, order: str) -> list[Request]:
    """Return up to `limit` running and as many ended requests from the id `first` on."""
    end = end_bound(wanted)
    rows = select_running(tx, wanted, first, end, limit, order)
    return rows + select_ended(tx, wanted, first, end, limit, order)


def select_running(
    tx: Tx, wanted: RequestFilter, first: bytes, end: bytes, limit: int, order: str
) -> list[Request]:
    """Return up to `limit` running requests with ids from `first` to before `end`."""
    if wanted.state not in {None, "open"}:
        return []
    statement = _HOLD_COLUMNS + _OPEN_HOLDS + _HOLD_NAMES + _CHOSEN_HOLDS + _CHOSEN + order
    rows = tx.execute(statement, _values(wanted, first, end, limit))
    return [_request(row) for row in rows]


def select_ended(
    tx: Tx, wanted: RequestFilter, first: bytes, end: bytes, limit: int, order: str
) -> list[Request]:
    """Return up to `limit` ended requests with ids from `first` to before `end`."""
    if wanted.state == "open":
        return []
    whose = _OF_ALL_USERS if wanted.user_id is None else _OF_ONE_USER
    statement = _ENDED + whose + _CHOSEN_ENDED + _CHOSEN + order
    rows = tx.execute(statement, _values(wanted, first, end, limit))
    return [_request(row) for row in rows]


def _values(wanted: RequestFilter, first: bytes, end: bytes, limit: int) -> dict[str, object]:
    return {
        "user": wanted.user_id,
        "key": wanted.key,
        "provider": wanted.provider,
        "model": wanted.model,
        "state": wanted.state,
        "first": first,
        "end": end,
        "limit": limit,
    }


def end_bound(wanted: RequestFilter) -> bytes:
    """Return the id before which requests are wanted."""
    end = id_bound(wanted.until_ms, 2**48 - 1)
    return end if wanted.before is None else min(end, wanted.before)


def _request(row: Iterable[object]) -> Request:
    request = Request(*row)  # type: ignore[arg-type]
    if request.is_stream is None:
        return request
    return msgspec.structs.replace(request, is_stream=bool(request.is_stream))


def id_bound(at_ms: int | None, otherwise_ms: int) -> bytes:
    """Return the smallest id that a request of this moment can have; ids begin with the time."""
    wanted_ms = otherwise_ms if at_ms is None else at_ms
    return min(max(0, wanted_ms), 2**48 - 1).to_bytes(6, "big") + bytes(10)


def find_request(tx: Tx, request_id: bytes) -> Request | None:
    """Return one request, whatever its state. A pruned one is still known by its hold."""
    row = tx.execute(_ENDED + "WHERE requests.id = ?", (request_id,)).fetchone()
    if row is None:
        statement = _HOLD_COLUMNS + "FROM holds" + _HOLD_NAMES + "WHERE holds.id = ?"
        row = tx.execute(statement, (request_id,)).fetchone()
    return None if row is None else _request(row)


def id_digits(text: str) -> str | None:
    """Return the hex digits of a request id or of its beginning (8 to 32), None when it is none."""
    digits = text.strip().removeprefix("req_").replace("-", "").lower()
    if not ID_PREFIX_DIGITS_MIN <= len(digits) <= ID_DIGITS or set(digits) - set(hexdigits):
        return None
    return digits


def find_request_ids(tx: Tx, prefix: str, *, limit: int) -> list[bytes]:
    """Return up to `limit` ids of requests that begin with these hex digits (at least 8)."""
    first = bytes.fromhex(prefix.ljust(32, "0"))
    last = bytes.fromhex(prefix.ljust(32, "f"))
    rows = tx.execute(
        """SELECT id FROM requests WHERE id BETWEEN :first AND :last
           UNION SELECT id FROM holds WHERE id BETWEEN :first AND :last
           ORDER BY 1 LIMIT :limit""",
        {"first": first, "last": last, "limit": limit},
    )
    return [row[0] for row in rows]
