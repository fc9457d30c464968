"""Owns the read-only questions about users, money and requests, for command line and dashboard.

Functions take a reading `tx`. Money is nano-USD, times are milliseconds since 1970. Must not write
anything.
"""

from llmproxy.reports.days import pruned_before_ms, split_span
from llmproxy.reports.everybody import (
    Activity,
    Everybody,
    Recent,
    SuspendedKey,
    Totals,
    recent_activity,
    sum_day,
    sum_days,
    suspended_keys,
)
from llmproxy.reports.last_use import last_used_days
from llmproxy.reports.own import OWN_GROUPS, OwnKey, OwnSums, find_own_key, sum_own
from llmproxy.reports.receipts import Receipt, find_receipt
from llmproxy.reports.requests import (
    ID_PREFIX_DIGITS_MIN,
    PAGE_ROWS,
    USAGE_CLASSES,
    Request,
    RequestFilter,
    find_request,
    find_request_ids,
    list_requests,
    request_pages,
)
from llmproxy.reports.spending import ANSWER_S_MAX, LimitsUse, find_limits_use, find_spent
from llmproxy.reports.standing import (
    CreditEntry,
    Standing,
    count_open_holds,
    count_rows,
    list_credits,
    newest_request_ms,
    standing,
    unpriced_models,
)
from llmproxy.reports.summary import GROUPINGS, Summary, Sums, summarise
from llmproxy.reports.users import UserRow, count_users, find_user_name, list_user_rows

__all__ = (
    "ANSWER_S_MAX",
    "GROUPINGS",
    "ID_PREFIX_DIGITS_MIN",
    "OWN_GROUPS",
    "PAGE_ROWS",
    "USAGE_CLASSES",
    "Activity",
    "CreditEntry",
    "Everybody",
    "LimitsUse",
    "OwnKey",
    "OwnSums",
    "Receipt",
    "Recent",
    "Request",
    "RequestFilter",
    "Standing",
    "Summary",
    "Sums",
    "SuspendedKey",
    "Totals",
    "UserRow",
    "count_open_holds",
    "count_rows",
    "count_users",
    "find_limits_use",
    "find_own_key",
    "find_receipt",
    "find_request",
    "find_request_ids",
    "find_spent",
    "find_user_name",
    "last_used_days",
    "list_credits",
    "list_requests",
    "list_user_rows",
    "newest_request_ms",
    "pruned_before_ms",
    "recent_activity",
    "request_pages",
    "split_span",
    "standing",
    "sum_day",
    "sum_days",
    "sum_own",
    "summarise",
    "suspended_keys",
    "unpriced_models",
)
