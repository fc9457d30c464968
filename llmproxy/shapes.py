"""Owns the JSON shapes of our own answers; the OpenAPI description is made of them.

Amounts of money are exact decimal strings of USD, times are RFC 3339 in UTC with milliseconds.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

UsdText = Annotated[str, Meta(pattern=r"^-?[0-9]+\.[0-9]{2,9}$")]
FactorText = Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]{1,6})?$")]
TimeText = Annotated[
    str,
    Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$"),
]
DayText = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
RequestIdText = Annotated[str, Meta(pattern=r"^req_[0-9a-f]{32}$")]
State = Literal["open", "settled", "released", "expired", "refused"]
Basis = Literal["usage", "estimate", "hold", "none"]
Group = Literal["day", "model", "endpoint"]
Format = Literal["json", "csv"]
Count = Annotated[int, Meta(ge=0)]


class Sums(Struct, frozen=True, kw_only=True):
    """Sums over ended requests; refused ones are left out."""

    requests: Count
    tokens_in: Annotated[Count, Meta(description="All input tokens, cached or not.")]
    tokens_out: Annotated[Count, Meta(description="All output tokens, reasoning included.")]
    cost_usd: Annotated[UsdText, Meta(description="What the answers cost.")]
    charged_usd: Annotated[
        UsdText, Meta(description="What was paid: less where the credit ran out.")
    ]


class GroupSums(Struct, frozen=True, kw_only=True):
    """The sums of one group, whose name stands under the kind of group that was asked for."""

    day: DayText | UnsetType = UNSET
    model: str | UnsetType = UNSET
    endpoint: str | UnsetType = UNSET
    requests: Count
    tokens_in: Count
    tokens_out: Count
    cost_usd: UsdText
    charged_usd: UsdText


class LimitsSet(Struct, frozen=True, kw_only=True):
    """Limits; what is not there is not limited."""

    requests_per_minute: int | UnsetType = UNSET
    tokens_per_minute: int | UnsetType = UNSET
    concurrent_max: int | UnsetType = UNSET
    daily_budget_usd: UsdText | UnsetType = UNSET
    monthly_budget_usd: UsdText | UnsetType = UNSET
    spend_per_hour_usd: UsdText | UnsetType = UNSET
    models: list[str] | UnsetType = UNSET
    providers: list[str] | UnsetType = UNSET
    networks: list[str] | UnsetType = UNSET


class LimitsUsed(Struct, frozen=True, kw_only=True):
    """What is used of limits, as far as the database knows; empty where nothing is limited."""

    requests_last_minute: Count | UnsetType = UNSET
    tokens_last_minute: Count | UnsetType = UNSET
    running: Count | UnsetType = UNSET
    spent_today_usd: UsdText | UnsetType = UNSET
    spent_month_usd: UsdText | UnsetType = UNSET
    spent_10_minutes_usd: UsdText | UnsetType = UNSET


class KeyStanding(Struct, frozen=True, kw_only=True):
    """An API key and its user's wallet."""

    name: str
    user: str
    balance_usd: Annotated[UsdText, Meta(description="The user's credit.")]
    held_usd: Annotated[UsdText, Meta(description="What running requests may still cost.")]
    available_usd: Annotated[UsdText, Meta(description="The balance less what is held.")]
    rate_multiplier: Annotated[
        FactorText, Meta(description="Prices of the catalog are multiplied by this.")
    ]
    usage_today: Sums
    limits: LimitsSet
    limits_used: LimitsUsed
    user_limits: LimitsSet
    suspended: Annotated[str | None, Meta(description="Why the key is suspended, or null.")]
    created_at: TimeText
    expires_at: TimeText | None


class UsageByClass(Struct, frozen=True, kw_only=True):
    """Tokens by class, and searches. The classes are disjoint, but reasoning is within output."""

    input: Count
    cache_read: Count
    cache_write_5m: Count
    cache_write_1h: Count
    output: Count
    reasoning: Count
    web_searches: Count


class RequestRow(Struct, frozen=True, kw_only=True):
    """One request, running or ended."""

    id: RequestIdText
    created_at: TimeText
    user: str
    key: str
    provider: str
    endpoint: str
    model: str
    stream: bool | None
    status: int | None
    state: State
    basis: Basis
    reason: Annotated[str, Meta(description="Why it cost what it did.")]
    usage: UsageByClass | None
    hold_usd: UsdText
    cost_usd: UsdText
    charged_usd: UsdText
    shortfall_usd: UsdText
    upstream_status: int | None
    ttfb_ms: Count | None
    duration_ms: Count | None


_CURSOR = Meta(description="For the next page; null: none is left.")
_PRUNED = Meta(description="The answer lacks requests from before this time; null: it lacks none.")


class RequestsPage(Struct, frozen=True, kw_only=True):
    """Single requests, newest first."""

    since: TimeText = field(name="from")
    until: TimeText = field(name="to")
    group: Literal["none"]
    data: list[RequestRow]
    next_cursor: Annotated[str | None, _CURSOR]
    pruned_before: Annotated[TimeText | None, _PRUNED]


class SumsPage(Struct, frozen=True, kw_only=True):
    """Sums, by the names of their groups."""

    since: TimeText = field(name="from")
    until: TimeText = field(name="to")
    group: Group
    data: list[GroupSums]
    next_cursor: Annotated[str | None, _CURSOR]
    pruned_before: Annotated[TimeText | None, _PRUNED]


class Health(Struct, frozen=True):
    """The server runs."""

    status: Literal["ok"]


class Readiness(Struct, frozen=True, kw_only=True):
    """Whether the server can serve; why not is told where it cannot."""

    status: Literal["ready", "not ready"]
    reason: str | UnsetType = UNSET


class ErrorDetail(Struct, frozen=True, kw_only=True):
    """What went wrong; some errors have further members."""

    type: str
    message: str
    param: str | None
    code: str


class ErrorEnvelope(Struct, frozen=True, kw_only=True):
    """The one shape of errors: SDKs of either dialect find their message in it."""

    type: Literal["error"]
    error: ErrorDetail
    message: str
    request_id: RequestIdText
