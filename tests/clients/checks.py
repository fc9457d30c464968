"""What is expected of every client: the refusals as its user sees them, and exact books."""

import json
from typing import Any

from tests.clients.conftest import CREDIT_NANOUSD, Ran

MESSAGES = {
    "poor": "Insufficient credit balance — top up or lower max_tokens. Needed ",
    "unknown": "Unknown model pricing: ",
    "wrong": "Invalid API key",
    "paused": " is paused: invoice unpaid. An administrator can resume it.",
    "keyless": "No active API keys for provider ",
}
STATUSES = {"poor": 402, "unknown": 400, "wrong": 401, "paused": 429, "keyless": 503}
WEATHER = ["get_weather", {"city": "Paris", "days": 1}]


def assert_refused(ran: Ran, step: str, situation: str, *, shows_status: bool = True) -> None:
    """The step failed with the proxy's own words in the exception's text."""
    raised = ran.raised(step)
    assert MESSAGES[situation] in raised["text"], raised
    if shows_status:
        assert raised["error_status_code"] == STATUSES[situation], raised


def assert_tried_again(ran: Ran) -> None:
    """A 500 of the provider is shown after the attempts that the SDKs make (wire.md D.3)."""
    raised = ran.raised("failing")
    assert "The demo provider was told: server-error." in raised["text"]
    assert raised["error_status_code"] == 500
    assert ran.attempts["failing"] == 3


def assert_books_are_exact(ran: Ran) -> list[dict[str, Any]]:
    """What was charged is the sum of the rows, each settled by the provider's own usage."""
    balance = ran.books.settled_wallet(ran.user)
    rows = ran.books.rows(ran.user)
    assert sum(row["charged_nanousd"] for row in rows) == CREDIT_NANOUSD - balance > 0
    return rows


def tokens(row: dict[str, Any]) -> tuple[int, int]:
    """Input and output tokens of a row."""
    legs = json.loads(row["usage"])["legs"]
    into = ("input", "cache_read", "cache_write_5m", "cache_write_1h")
    return (
        sum(leg.get(name, 0) for leg in legs for name in into),
        sum(leg.get("output", 0) for leg in legs),
    )
