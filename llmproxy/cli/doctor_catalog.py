"""The checks of `doctor` of the catalog itself: can it be used, is it old, what must be known."""

from collections.abc import Iterator

from llmproxy.cli import opening
from llmproxy.cli.checks import Check
from llmproxy.errors import LlmproxyError

AGE_DAYS_MAX = 90


def check_catalog() -> Iterator[Check]:
    """Say which catalog is in force, and what is to be done about it."""
    from datetime import date

    from llmproxy.catalog_warnings import date_warnings, name_warnings

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
    today = opening.today()
    if (today - date.fromisoformat(catalog.updated)).days > AGE_DAYS_MAX:
        yield Check("catalog", "warn", f"{message}: old", "Prices change: llmproxy catalog update")
    else:
        yield Check("catalog", "ok", message)
    for warning in name_warnings(catalog):
        yield Check(warning.name, "warn", warning.message, warning.advice)
    providers = _providers()
    for warning in date_warnings(catalog, today):
        if warning.provider in providers:
            yield Check(warning.name, "warn", warning.message, warning.advice)


def _providers() -> set[str]:
    """Return the providers that are set up: prices of others concern nobody."""
    from llmproxy import key_pool

    if not opening.database_exists():
        return set()
    with opening.reading() as tx:
        return {provider.name for provider in key_pool.list_providers(tx)}
