"""Owns the sums by day: `requests_by_day`, kept for ever, from which all sums are reported.

Each ended request is added in the transaction that writes its row in `requests`, so that both are
there or neither is; rows of `requests` may then be pruned. Days are those of UTC, by a request's
arrival, counted from 1970. Money is nano-USD. Must not know why a request ended as it did.

What held nothing counts under no model: it names whatever its client wrote, and the number of sums
must not depend on that.
"""

from typing import NamedTuple

import msgspec

from llmproxy.storage.database import Tx
from llmproxy.usage import Usage

DAY_MS = 86_400_000


class Group(NamedTuple):
    """What a sum is of: one row of `requests_by_day`."""

    user_id: int
    day: int
    api_key_id: int
    provider: str
    endpoint: str
    model: str


_ADD = """
INSERT INTO requests_by_day(user_id, day, api_key_id, provider, endpoint, model,
  requests, refused, input, cache_read, cache_write_5m, cache_write_1h, output, reasoning,
  web_searches, cost_nanousd, charged_nanousd, shortfall_nanousd)
"""
_TO_WHAT_THERE_IS = """
ON CONFLICT DO UPDATE SET
  requests = requests + excluded.requests,
  refused = refused + excluded.refused,
  input = input + excluded.input,
  cache_read = cache_read + excluded.cache_read,
  cache_write_5m = cache_write_5m + excluded.cache_write_5m,
  cache_write_1h = cache_write_1h + excluded.cache_write_1h,
  output = output + excluded.output,
  reasoning = reasoning + excluded.reasoning,
  web_searches = web_searches + excluded.web_searches,
  cost_nanousd = cost_nanousd + excluded.cost_nanousd,
  charged_nanousd = charged_nanousd + excluded.charged_nanousd,
  shortfall_nanousd = shortfall_nanousd + excluded.shortfall_nanousd
"""
_ADD_ONE = _ADD + "VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)" + _TO_WHAT_THERE_IS
_ADD_OPEN_HOLDS = (
    _ADD
    + """
SELECT wallets.user_id, holds.created_at_ms / 86400000, api_key_id, provider, endpoint, model,
  1, 0, 0, 0, 0, 0, 0, 0, 0, seen_cost_nanousd, min(seen_cost_nanousd, amount_nanousd),
  max(seen_cost_nanousd - amount_nanousd, 0)
FROM holds JOIN wallets ON wallets.id = wallet_id
           JOIN price_versions ON price_versions.id = price_version_id
WHERE state = 'open'
"""
    + _TO_WHAT_THERE_IS
)

TOKEN_CLASSES = (
    *("input", "cache_read", "cache_write_5m", "cache_write_1h"),
    *("output", "reasoning", "web_searches"),
)
_TOKENS = """
coalesce(CAST(CASE WHEN NOT json_valid(usage) THEN 0
                   WHEN json_array_length(usage, '$.legs') = 1
                     THEN json_extract(usage, '$.legs[0].CLASS')
                   ELSE (SELECT sum(json_extract(value, '$.CLASS'))
                         FROM json_each(usage, '$.legs') WHERE type = 'object')
              END AS INTEGER), 0) AS CLASS,
"""
# No view of the schema: with trusted_schema=OFF these may not call JSON functions.
REQUESTS_AS_DAYS = "".join(
    (
        """
(SELECT id, user_id, created_at_ms / 86400000 AS day, api_key_id, provider, endpoint,
  CASE WHEN EXISTS(SELECT 1 FROM holds WHERE holds.id = requests.id) THEN model ELSE '' END
    AS model,
  state <> 'refused' AS requests, state = 'refused' AS refused,
""",
        *(_TOKENS.replace("CLASS", name) for name in TOKEN_CLASSES),
        "cost_nanousd, charged_nanousd, shortfall_nanousd FROM requests)",
    )
)
"""Single requests, as what each of them is added as: to stand behind FROM."""

_DECODER = msgspec.json.Decoder(Usage)
_NO_TOKENS = (0,) * len(TOKEN_CLASSES)


def day_of(at_ms: int) -> int:
    """Return the day of a moment in milliseconds."""
    return at_ms // DAY_MS


def add_request(
    tx: Tx,
    group: Group,
    *,
    is_refused: bool,
    usage: str | None,
    cost_nanousd: int = 0,
    charged_nanousd: int = 0,
    shortfall_nanousd: int = 0,
) -> None:
    """Add an ended request; `usage` is the JSON text of its row."""
    tx.execute(
        _ADD_ONE,
        (
            *group,
            *((0, 1) if is_refused else (1, 0)),
            *_tokens(usage),
            *(cost_nanousd, charged_nanousd, shortfall_nanousd),
        ),
    )


def add_open_holds(tx: Tx) -> None:
    """Add every open hold as it expires: by what had been seen of its answer."""
    tx.execute(_ADD_OPEN_HOLDS)


def _tokens(usage: str | None) -> tuple[int, ...]:
    """Return the tokens of each class over all legs, in the order of the columns."""
    if usage is None:
        return _NO_TOKENS
    try:
        legs = _DECODER.decode(usage).legs
    except msgspec.DecodeError:  # not ours; `ledger verify` names the row
        return _NO_TOKENS
    counts = [
        (
            *(leg.input, leg.cache_read, leg.cache_write_5m, leg.cache_write_1h),
            *(leg.output, leg.reasoning, leg.web_searches),
        )
        for leg in legs
    ]
    return counts[0] if len(counts) == 1 else tuple(map(sum, zip(_NO_TOKENS, *counts, strict=True)))
