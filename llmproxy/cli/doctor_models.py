"""The checks of `doctor` that hold the last requests against the catalog."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmproxy.cli import output
from llmproxy.cli.checks import Check

if TYPE_CHECKING:
    from llmproxy.catalog import Catalog
    from llmproxy.storage.database import Tx

DAYS = 7
SHOWN_MAX = 5
DAY_MS = 86_400_000


def check_models(tx: "Tx", *, now_ms: int, catalog: "Catalog | None") -> Iterator[Check]:
    """Look for models that were asked for without a price, and answers of other models.

    Args:
        tx: a reading transaction.
        now_ms: the end of the days that are looked at.
        catalog: the one in force; None when it cannot be used, which has a check of its own.
    """
    since_ms = now_ms - DAYS * DAY_MS
    yield _check_unpriced(tx, since_ms, catalog)
    if catalog is not None:
        yield from _check_served(tx, since_ms, catalog)


def _check_unpriced(tx: "Tx", since_ms: int, catalog: "Catalog | None") -> Check:
    from llmproxy import reports

    missing = [
        f"{provider}/{model} ({output.counted(count, 'time')})"
        for provider, model, count in reports.unpriced_models(tx, since_ms=since_ms)
        if catalog is None or catalog.find(provider, model) is None
    ]
    if not missing:
        message = f"no model without a price was asked for in {DAYS} days"
        return Check("prices", "ok", message)
    message = f"asked for in {DAYS} days, but without a price: {_first(missing, ', ')}"
    advice = (
        "To offer one, give it prices: "
        "llmproxy catalog set PROVIDER MODEL --in-price USD --out-price USD"
    )
    return Check("prices", "warn", message, advice)


def _check_served(tx: "Tx", since_ms: int, catalog: "Catalog") -> Iterator[Check]:
    """Name the models whose answers came from another entry; nothing where none did."""
    from llmproxy import reports
    from llmproxy.clock import request_id_text
    from llmproxy.served import costs_alike, other_entry

    alike: list[str] = []
    unlike: list[str] = []
    for one in reports.served_models(tx, since_ms=since_ms):
        asked = catalog.find(one.provider, one.asked)
        other = other_entry(catalog, one.provider, one.asked, one.served)
        if asked is None or other is None:
            continue
        text = (
            f"{one.provider}/{asked.id} by {other.id} ({output.counted(one.requests, 'time')}, "
            f"such as {request_id_text(one.newest_id)})"
        )
        (alike if costs_alike(asked, other) else unlike).append(text)
    if unlike:
        message = f"answered by a model of other prices in {DAYS} days: {_first(unlike, '; ')}"
        advice = (
            "The prices of the model asked for were charged. Where the provider means another "
            "model by its name now, update the catalog, or set its prices: llmproxy catalog set"
        )
        yield Check("models", "warn", message, advice)
    elif alike:
        message = f"answered by another model of the same prices in {DAYS} days"
        yield Check("models", "ok", f"{message}: {_first(alike, '; ')}")


def _first(texts: list[str], separator: str) -> str:
    more = len(texts) - SHOWN_MAX
    return separator.join(texts[:SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
