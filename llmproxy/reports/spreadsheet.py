"""Owns how rows stand in CSV: their columns, and cells that no spreadsheet takes for a formula."""

from llmproxy.plain_text import clean
from llmproxy.reports.requests import USAGE_CLASSES, Request

# A spreadsheet takes a cell that begins so for a formula; models and names come from users.
_FORMULA_STARTS = ("=", "+", "-", "@")

REQUEST_COLUMNS = (
    *("id", "created_at", "user", "key", "provider", "endpoint", "model", "stream"),
    *("status", "state", "basis", "reason", *(f"usage_{name}" for name in USAGE_CLASSES)),
    *("hold_usd", "cost_usd", "charged_usd", "shortfall_usd"),
    *("upstream_status", "ttfb_ms", "duration_ms"),
)
"""The fields of a request in JSON, with a column for each class of usage."""


def request_cells(request: Request) -> dict[str, object]:
    """Return a request by REQUEST_COLUMNS; `cell` makes each fit to be shown."""
    fields = request.as_json()
    usage = fields.pop("usage") or {}
    assert isinstance(usage, dict)
    return fields | {f"usage_{name}": tokens for name, tokens in usage.items()}


def cell(value: object) -> object:
    """Return a value as it stands in a cell: what looks like a formula gets a ' before it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
