"""Owns the read-only questions about users, money and requests, for command line and dashboard.

Every function takes a reading `tx`. Money is nano-USD, times are milliseconds since 1970. Must not
write anything. Open requests are read from `holds`, ended ones from `requests`.
"""

import msgspec

from llmproxy.clock import request_id_text, rfc3339
from llmproxy.errors import DatabaseError, NotFoundError
from llmproxy.money import cost_nanousd, format_usd
from llmproxy.pricing import Line
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


class CreditEntry(msgspec.Struct, frozen=True):
    """A credit or an adjustment as it stands in the history."""

    id: int
    kind: str
    amount_nanousd: int
    reason: str | None
    actor: str
    idempotency_key: str | None
    created_at_ms: int


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
    state: str
    basis: str
    hold_nanousd: int
    cost_nanousd: int
    charged_nanousd: int
    shortfall_nanousd: int
    model_served: str | None = None
    is_stream: bool | None = None
    status: int | None = None
    reason: str | None = None
    usage: str | None = None
    upstream_status: int | None = None
    attempts: int | None = None
    ttfb_ms: int | None = None
    duration_ms: int | None = None

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
        return {
            "id": request_id_text(self.id),
            "created_at": rfc3339(self.created_at_ms),
            "user": self.user,
            "key": self.api_key,
            "provider": self.provider,
            "endpoint": self.endpoint,
            "model": self.model,
            "stream": self.is_stream,
            "status": self.status,
            "state": self.state,
            "basis": self.basis,
            "usage": self.usage_totals(),
            "hold_usd": format_usd(self.hold_nanousd),
            "cost_usd": format_usd(self.cost_nanousd),
            "charged_usd": format_usd(self.charged_nanousd),
            "shortfall_usd": format_usd(self.shortfall_nanousd),
            "upstream_status": self.upstream_status,
            "ttfb_ms": self.ttfb_ms,
            "duration_ms": self.duration_ms,
        }


class RequestFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests are wanted; None means any. Times are of the request's arrival."""

    user_id: int | None = None
    provider: str | None = None
    model: str | None = None
    state: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None


class Receipt(msgspec.Struct, frozen=True):
    """Everything that one request's cost was made of; multipliers are millionths.

    The multipliers are None for a request that was refused, which held nothing.
    """

    request: Request
    lines: tuple[Line, ...]
    raw_usage: str | None
    user_multiplier_micro: int | None
    model_multiplier_micro: int | None
    price_version: int | None
    ended_at_ms: int | None

    @property
    def rated_tokens(self) -> int:
        """The sum of all lines in rated tokens, before multipliers and rounding."""
        return sum(line.rated_tokens for line in self.lines)

    @property
    def recomputed_nanousd(self) -> int | None:
        """What the lines multiply to; None when there are no lines to multiply."""
        if not self.lines or self.user_multiplier_micro is None:
            return None
        return cost_nanousd(
            self.rated_tokens, self.user_multiplier_micro, self.model_multiplier_micro or 0
        )

    @property
    def agrees(self) -> bool:
        """Whether the stored cost is what the lines multiply to (without lines: nothing to say)."""
        return self.recomputed_nanousd in {None, self.request.cost_nanousd}


def list_credits(tx: Tx, wallet_id: int, *, limit: int) -> list[CreditEntry]:
    """Return up to `limit` credits and adjustments of a wallet, newest first; -1 returns all."""
    rows = tx.execute(
        """SELECT id, kind, amount_nanousd, reason, actor, idempotency_key, created_at_ms
           FROM transfers WHERE wallet_id = :wallet AND kind <> 'charge'
           ORDER BY id DESC LIMIT :limit""",
        {"wallet": wallet_id, "limit": limit},
    )
    return [CreditEntry(*row) for row in rows]


_ENDED = """
SELECT requests.id, requests.created_at_ms, users.name, api_keys.name, provider, endpoint, model,
       state, basis, hold_nanousd, cost_nanousd, charged_nanousd, shortfall_nanousd, model_served,
       is_stream, status, reason, usage, upstream_status, attempts, ttfb_ms, duration_ms
FROM requests JOIN users ON users.id = requests.user_id
              JOIN api_keys ON api_keys.id = requests.api_key_id
"""

_OPEN = """
SELECT holds.id, holds.created_at_ms, users.name, api_keys.name, price_versions.provider, endpoint,
       price_versions.model, holds.state, coalesce(holds.basis, 'none'), amount_nanousd,
       coalesce(cost_nanousd, seen_cost_nanousd), coalesce(charged_nanousd, 0),
       coalesce(shortfall_nanousd, 0)
FROM holds JOIN wallets ON wallets.id = holds.wallet_id
           JOIN users ON users.id = wallets.user_id
           JOIN api_keys ON api_keys.id = holds.api_key_id
           JOIN price_versions ON price_versions.id = holds.price_version_id
"""

# The id begins with the time of arrival: a range of ids is a range of times, and an index.
_CHOSEN = """
  AND (:provider IS NULL OR provider = :provider) AND (:model IS NULL OR model = :model)
"""


def list_requests(tx: Tx, wanted: RequestFilter, *, limit: int) -> list[Request]:
    """Return up to `limit` requests, running and ended, newest first; a limit of -1 returns all."""
    values: dict[str, object] = {
        "user": wanted.user_id,
        "provider": wanted.provider,
        "model": wanted.model,
        "state": wanted.state,
        "first": _id_bound(wanted.since_ms, 0),
        "last": _id_bound(wanted.until_ms, 2**48 - 1),
        "limit": limit,
    }
    rows: list[Request] = []
    if wanted.state in {None, "open"}:
        rows += _requests(
            tx,
            _OPEN
            + """WHERE holds.state = 'open' AND holds.id >= :first AND holds.id < :last
                 AND (:user IS NULL OR users.id = :user)"""
            + _CHOSEN
            + "ORDER BY holds.id DESC LIMIT :limit",
            values,
        )
    if wanted.state != "open":
        # Two texts, so that each is answered from its own index.
        whose = "requests.user_id = :user" if wanted.user_id is not None else ":user IS NULL"
        rows += _requests(
            tx,
            _ENDED
            + "WHERE "
            + whose
            + """ AND requests.id >= :first AND requests.id < :last
                 AND (:state IS NULL OR state = :state)"""
            + _CHOSEN
            + "ORDER BY requests.id DESC LIMIT :limit",
            values,
        )
    rows.sort(key=lambda row: row.id, reverse=True)
    return rows if limit < 0 else rows[:limit]


def _requests(tx: Tx, statement: str, values: dict[str, object]) -> list[Request]:
    return [_request(tuple(row)) for row in tx.execute(statement, values)]


def _request(columns: tuple[object, ...]) -> Request:
    request = Request(*columns)  # type: ignore[arg-type]
    if request.is_stream is None:
        return request
    return msgspec.structs.replace(request, is_stream=bool(request.is_stream))


def _id_bound(at_ms: int | None, otherwise_ms: int) -> bytes:
    wanted_ms = otherwise_ms if at_ms is None else at_ms
    return min(max(0, wanted_ms), 2**48 - 1).to_bytes(6, "big") + bytes(10)


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


def find_receipt(tx: Tx, request_id: bytes) -> Receipt:
    """Return the receipt of a request, whatever its state.

    A request whose reporting row has been pruned still has its hold: what was held and charged.

    Raises:
        NotFoundError: there is no such request.
        DatabaseError: its receipt is damaged.
    """
    row = tx.execute(_ENDED + "WHERE requests.id = ?", (request_id,)).fetchone()
    if row is None:
        row = tx.execute(_OPEN + "WHERE holds.id = ?", (request_id,)).fetchone()
    if row is None:
        msg = f"There is no request {request_id_text(request_id)}. See: llmproxy usage requests"
        raise NotFoundError(msg)
    details = tx.execute(
        "SELECT receipt, raw_usage FROM requests WHERE id = ?", (request_id,)
    ).fetchone() or (None, None)
    pinned = tx.execute(
        """SELECT user_multiplier_micro, model_multiplier_micro, price_version_id, ended_at_ms
           FROM holds WHERE id = ?""",
        (request_id,),
    ).fetchone() or (None, None, None, None)
    try:
        lines = msgspec.json.decode(details[0] or "[]", type=tuple[Line, ...])
    except msgspec.DecodeError as error:
        msg = f"The receipt of {request_id_text(request_id)} cannot be read: {error}."
        raise DatabaseError(msg) from error
    return Receipt(_request(tuple(row)), lines, details[1], *pinned)


class Standing(msgspec.Struct, frozen=True):
    """The whole ledger in a few numbers, for `doctor` and the dashboard."""

    users: int
    balance_nanousd: int
    held_nanousd: int
    open_holds: int
    shortfalls: int
    shortfall_nanousd: int


def standing(tx: Tx) -> Standing:
    """Return the sums over all users; reads every hold that ended with a shortfall."""
    wallets = tx.execute(
        """SELECT count(*), coalesce(sum(balance_nanousd), 0), coalesce(sum(held_nanousd), 0)
           FROM wallets"""
    ).fetchone()
    open_holds = tx.execute("SELECT count(*) FROM holds WHERE state = 'open'").fetchone()
    owed = tx.execute(
        """SELECT count(*), coalesce(sum(shortfall_nanousd), 0) FROM holds
           WHERE shortfall_nanousd > 0"""
    ).fetchone()
    return Standing(*(int(value) for value in (*wallets, *open_holds, *owed)))


def count_rows(tx: Tx) -> dict[str, int]:
    """Return the number of rows of each table that grows; counts by walking their indexes."""
    row = tx.execute(
        """SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM api_keys),
                  (SELECT count(*) FROM provider_keys), (SELECT count(*) FROM holds),
                  (SELECT count(*) FROM transfers), (SELECT count(*) FROM requests),
                  (SELECT count(*) FROM price_versions)"""
    ).fetchone()
    names = (
        "users",
        "api_keys",
        "provider_keys",
        "holds",
        "transfers",
        "requests",
        "price_versions",
    )
    return dict(zip(names, row, strict=True))
