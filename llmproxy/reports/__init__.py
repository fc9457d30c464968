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
from llmproxy.reports.own_requests import (
    Look,
    find_own_ids,
    id_after,
    is_own,
    look_ahead,
    look_back,
    used_models,
)
from llmproxy.reports.receipt_lines import (
    ReceiptRow,
    exact_cost,
    exact_usd,
    line_rows,
    rate_unit,
    rate_usd,
    sum_rows,
)
from llmproxy.reports.receipts import Receipt, find_receipt
from llmproxy.reports.requests import (
    ID_DIGITS,
    ID_PREFIX_DIGITS_MIN,
    PAGE_ROWS,
    USAGE_CLASSES,
    Request,
    RequestFilter,
    find_request,
    find_request_ids,
    id_digits,
    list_requests,
    request_pages,
)
from llmproxy.reports.spending import ANSWER_S_MAX, LimitsUse, find_limits_use, find_spent
from llmproxy.reports.spreadsheet import REQUEST_COLUMNS, cells
from llmproxy.reports.standing import (
    CreditEntry,
    Standing,
    count_open_holds,
    count_requests,
    count_rows,
    list_credits,
    list_credits_after,
    newest_request_ms,
    standing,
    unpriced_models,
)
from llmproxy.reports.summary import GROUPINGS, Summary, Sums, summarise
from llmproxy.reports.users import UserRow, count_users, find_user_name, list_user_rows

__all__ = (
    "ANSWER_S_MAX",
    "GROUPINGS",
    "ID_DIGITS",
    "ID_PREFIX_DIGITS_MIN",
    "OWN_GROUPS",
    "PAGE_ROWS",
    "REQUEST_COLUMNS",
    "USAGE_CLASSES",
    "Activity",
    "CreditEntry",
    "Everybody",
    "LimitsUse",
    "Look",
    "OwnKey",
    "OwnSums",
    "Receipt",
    "ReceiptRow",
    "Recent",
    "Request",
    "RequestFilter",
    "Standing",
    "Summary",
    "Sums",
    "SuspendedKey",
    "Totals",
    "UserRow",
    "cells",
    "count_open_holds",
    "count_requests",
    "count_rows",
    "count_users",
    "exact_cost",
    "exact_usd",
    "find_limits_use",
    "find_own_ids",
    "find_own_key",
    "find_receipt",
    "find_request",
    "find_request_ids",
    "find_spent",
    "find_user_name",
    "id_after",
    "id_digits",
    "is_own",
    "last_used_days",
    "line_rows",
    "list_credits",
    "list_credits_after",
    "list_requests",
    "list_user_rows",
    "look_ahead",
    "look_back",
    "newest_request_ms",
    "pruned_before_ms",
    "rate_unit",
    "rate_usd",
    "recent_activity",
    "request_pages",
    "split_span",
    "standing",
    "sum_day",
    "sum_days",
    "sum_own",
    "sum_rows",
    "summarise",
    "suspended_keys",
    "unpriced_models",
    "used_models",
)
