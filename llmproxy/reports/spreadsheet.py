"""Owns how rows stand in CSV: their columns, and cells that no spreadsheet takes for a formula."""

from collections.abc import Mapping

from llmproxy.plain_text import safe_cell
from llmproxy.reports.requests import USAGE_CLASSES

REQUEST_COLUMNS = (
    *("id", "created_at", "user", "key", "provider", "endpoint", "model", "stream"),
    *("status", "state", "basis", "reason", *(f"usage_{name}" for name in USAGE_CLASSES)),
    *("hold_usd", "cost_usd", "charged_usd", "shortfall_usd"),
    *("upstream_status", "ttfb_ms", "duration_ms"),
)
"""The fields of a request in JSON, with a column for each class of usage."""


def cells(row: Mapping[str, object]) -> dict[str, object]:
    """Return the cells of a row of JSON: the fields of a field get columns of their own."""
    found: dict[str, object] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            found |= {f"{name}_{inner}": _cell(each) for inner, each in value.items()}
        elif isinstance(value, list):
            found[name] = _cell(" ".join(value))
        else:
            found[name] = _cell(value)
    return found


def _cell(value: object) -> object:
    """Return a value as it stands in a cell: what looks like a formula gets a ' before it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return safe_cell(value) if isinstance(value, str) else value
