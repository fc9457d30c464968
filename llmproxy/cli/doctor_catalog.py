"""The checks of `doctor` of the catalog itself: can it be used, is it old, what must be known."""

from collections.abc import Iterator

from llmproxy.cli import opening
from llmproxy.cli.checks import Check
from llmproxy.errors import LlmproxyError

AGE_DAYS_MAX = 90


def check_catalog() -> Iterator[Check]:
    """Say which catalog is in force, and what is to be done about it."""
    from datetime import UTC, date, datetime

    from llmproxy.catalog_warnings import name_warnings

    try:
        path = opening.catalog_path()
        catalog = opening.catalog()
    except LlmproxyError as error:
        yield Check("catalog", "fail", str(error), "See: llmproxy catalog check")
        return
    own = sum(catalog.is_own(model) for model in catalog.models())
    where = path or "the built-in one"
    message = f"{len(catalog.models())} models ({own} your own), {where} of {catalog.updated}"
    broken = opening.broken_overrides()
    if broken:
        advice = "Set it again: llmproxy catalog set, or remove it with --remove."
        yield Check("catalog", "fail", broken[0], advice)
        return
    today = datetime.fromtimestamp(opening.now_ms() / 1000, tz=UTC).date()
    if (today - date.fromisoformat(catalog.updated)).days > AGE_DAYS_MAX:
        yield Check("catalog", "warn", f"{message}: old", "Prices change: llmproxy catalog update")
    else:
        yield Check("catalog", "ok", message)
    for warning in name_warnings(catalog):
        yield Check("names", "warn", warning.message, warning.advice)
