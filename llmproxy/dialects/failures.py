"""Owns what a provider's error answer means for the key that was used (reference wire.md E).

Only a signal about the key itself takes it out of service: nothing that a client can cause by its
own request may do so. Messages may echo a client's words, so they count only as whole sentences.
"""

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, NamedTuple

EXCERPT_CHARS_MAX = 300
COOLDOWN_S_MAX = 3600
"""Whatever the provider says, once in an hour it is tried again."""
DATE_CHARS_MAX = 64


class FailureKind(Enum):
    """What to do about the key, and whether another one may be tried."""

    DEAD = "dead"
    """The key is not valid any more: out of service until an operator acts; next key."""
    SUSPECT = "suspect"
    """Perhaps so, or it was something in the request: to be asked about; next key."""
    UNFIT = "unfit"
    """The key may not do, or cannot pay, just this: it stays in service; next key."""
    OUT_OF_QUOTA = "out_of_quota"
    """The account is empty or at its limit: parked; next key."""
    COOLDOWN = "cooldown"
    """Rate limited: this key rests for this model; next key."""
    BUSY = "busy"
    """The provider is overloaded: no key is to blame; passed on."""
    UNKNOWN = "unknown"
    """A 5xx or the like: may have been billed, never sent again; passed on."""
    CLIENT = "client"
    """The client's own mistake: passed on."""


class Failure(NamedTuple):
    """A provider's refusal as we understand it; `excerpt` is for the operator only."""

    kind: FailureKind
    excerpt: str
    retry_after_s: int | None = None
    """How long the provider says to wait, None when it does not say."""


_QUOTA_CODES = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "credit_balance_too_low",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_not_active",
        "billing_error",
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
    }
)
_DEAD_CODES = frozenset(
    {"invalid_api_key", "account_deactivated", "API_KEY_INVALID"}
    | {"organization_on_hold", "organization_restricted"}
)
_SUSPECT_CODES = frozenset(
    {"unsupported_country_region_territory", "ip_not_authorized"}
    # Google's, of which no request is the cause: their messages name the operator's project.
    | {"SERVICE_DISABLED", "BILLING_DISABLED", "CONSUMER_SUSPENDED", "CONSUMER_INVALID"}
    | {"API_KEY_IP_ADDRESS_BLOCKED", "API_KEY_SERVICE_BLOCKED", "API_KEY_HTTP_REFERRER_BLOCKED"}
    | {"API_KEY_ANDROID_APP_BLOCKED", "API_KEY_IOS_APP_BLOCKED"}
)
"""About where the server stands, or the account: no word on what was asked."""
# The whole message or nothing: "Invalid value: 'API key not valid.'" is a client's doing.
_QUOTA_MESSAGE = re.compile(
    r"your credit balance is too low to access the (anthropic|claude) api\."
    r"( please go to plans & billing to upgrade or purchase credits\.)?"
    r"|you have reached your specified( \w+)? api usage limits\."
    r"( you will regain access on [\d-]+( at [\d:]+ utc)?\.)?"
    r"|insufficient balance\.?",
    re.IGNORECASE,
)
_DEAD_MESSAGE = re.compile(
    r"invalid x-api-key"
    r"|this organization has been disabled\.?"
    r"|organization has been restricted\."
    r"( please reach out to support if you believe this was in error\.)?"
    r"|api key not valid\. please pass a valid api key\."
    r"|your api key was reported as leaked\.( please use another api key\.)?",
    re.IGNORECASE,
)

# A key with restricted rights (OpenAI, 401), an account without the long context (Anthropic, 429):
# whoever sends other requests with it is served.
_UNFIT_MESSAGE = re.compile(
    r"you have insufficient permissions for this operation\b|missing scopes:"
    r"|extra usage is required for long context requests\b",
    re.IGNORECASE,
)
# A 429 about the size of this one request: it would fail with every key, at any time.
_TOO_LARGE_MESSAGE = re.compile(r"request too large\b", re.IGNORECASE)


def classify(  # noqa: PLR0911 - one line a row of the table
    status: int, headers: Mapping[str, str], body: bytes, now_ms: int, *, secret: str = ""
) -> Failure:
    """Say what an answer that is no success means.

    Args:
        status: the provider's HTTP status, 300 or above.
        headers: its headers, names in lower case.
        body: the beginning of its body.
        now_ms: the time since the epoch, for a `retry-after` that is a date.
        secret: the provider key that was sent, which the excerpt must not show.
    """
    words, message, retry_delay = _read_error(body)
    # JSON's escapes can spell half characters, which no database takes.
    shown = message.replace(secret, "***") if secret else message
    excerpt = f"{status}: {shown}"[:EXCERPT_CHARS_MAX].encode(errors="replace").decode()
    is_key_status = status in {400, 401, 402, 403, 429}
    if status in {401, 403, 429} and _UNFIT_MESSAGE.match(message):
        return Failure(FailureKind.UNFIT, excerpt)
    if is_key_status and (words & _DEAD_CODES or _DEAD_MESSAGE.fullmatch(message)):
        return Failure(FailureKind.DEAD, excerpt)
    if is_key_status and _is_out_of_quota(status, words, message):
        return Failure(FailureKind.OUT_OF_QUOTA, excerpt)
    if status == 401 or (status == 403 and words & _SUSPECT_CODES):
        return Failure(FailureKind.SUSPECT, excerpt)
    if status == 402 and "retry-after" not in headers:
        # Perhaps of the account, perhaps of this one request: nobody else is to pay for that.
        return Failure(FailureKind.UNFIT, excerpt)
    if status == 429 and _TOO_LARGE_MESSAGE.match(message):
        return Failure(FailureKind.CLIENT, excerpt)
    told_s = _told_s(headers.get("retry-after") or retry_delay, now_ms)
    if status in {402, 429}:
        return Failure(FailureKind.COOLDOWN, excerpt, told_s)
    if status in {503, 529, 498}:
        return Failure(FailureKind.BUSY, excerpt, told_s)
    if status >= 500 or status < 400:
        return Failure(FailureKind.UNKNOWN, excerpt)
    return Failure(FailureKind.CLIENT, excerpt)


def _is_out_of_quota(status: int, words: set[str], message: str) -> bool:
    if words & _QUOTA_CODES or _QUOTA_MESSAGE.fullmatch(message):
        return True
    return status == 402 and "RESOURCE_EXHAUSTED" in words  # Gemini; with a 429 it is a rate


def _read_error(body: bytes) -> tuple[set[str], str, str]:
    """Return the code words of an error body, its message, and Gemini's retryDelay in seconds."""
    try:
        parsed: Any = json.loads(body)
    except (ValueError, RecursionError):
        return set(), body[:EXCERPT_CHARS_MAX].decode(errors="replace"), ""
    if isinstance(parsed, list) and parsed:
        parsed = parsed[0]
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else None
    if not isinstance(error, dict):
        return set(), str(error or parsed)[:EXCERPT_CHARS_MAX], ""
    details = error.get("details")
    listed = [error, *(details if isinstance(details, list) else [details])]
    sources = [source for source in listed if isinstance(source, dict)]
    words = {
        source[key]
        for source in sources
        for key in ("code", "type", "error_code", "reason", "status")
        if isinstance(source.get(key), str)
    }
    delays = [source["retryDelay"] for source in sources if "retryDelay" in source]
    delay = delays[0].removesuffix("s") if delays and isinstance(delays[0], str) else ""
    return words, str(error.get("message") or "")[:2000].strip(), delay


def _told_s(told: str, now_ms: int) -> int | None:
    """Return how long to wait by so many seconds, or a date; None for anything else."""
    try:
        seconds = float(told)
    except ValueError:
        seconds = _seconds_until(told, now_ms)
    if not seconds >= 0:  # NaN too
        return None
    return max(1, math.ceil(min(seconds, COOLDOWN_S_MAX)))


def _seconds_until(date: str, now_ms: int) -> float:
    """Return the seconds until an HTTP date (RFC 9110, 5.6.7), NaN for what is none.

    Less than zero when it is past: by whose clock nobody knows, so it tells nothing of the wait.
    """
    if len(date) > DATE_CHARS_MAX:
        return math.nan
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return math.nan
    # Its oldest form names no zone, and "-0000" none that is known: HTTP's dates are UTC.
    is_aware = moment.tzinfo is not None
    return (moment if is_aware else moment.replace(tzinfo=UTC)).timestamp() - now_ms / 1000
