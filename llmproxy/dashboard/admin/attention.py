"""Owns what the operator must see first: what is wrong now, and on which page it is mended."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from llmproxy import key_pool, pool, reports
from llmproxy.dashboard.admin.pool import warning_in_dollars
from llmproxy.dashboard.formats import DAY_MS, cost, number
from llmproxy.key_pool import Provider, ProviderKey
from llmproxy.provider_states import NO_ACTIVE_KEYS, state_of
from llmproxy.reports import Standing
from llmproxy.storage.database import Tx

OF_A_KIND_MAX = 5
UNPRICED_DAYS = 7
UNPRICED_ROWS_MAX = 5_000
"""Of the newest requests; a few milliseconds."""
TAKEN_OUT = frozenset({"dead", "out_of_quota"})


class Notice(NamedTuple):
    """One thing that is wrong."""

    word: str
    """What is, in one word; the chip before the text."""
    text: str
    path: str
    """Where it is mended, below `/admin`."""
    link: str


def read_attention(
    tx: Tx,
    standing: Standing,
    *,
    now_ms: int,
    total_timeout_s: int,
    is_priced: Callable[[str, str], bool],
) -> list[Notice]:
    """Return all that is wrong, of each kind the first OF_A_KIND_MAX."""
    overdue = reports.count_open_holds(tx, before_ms=now_ms - total_timeout_s * 1000)
    kinds = (
        _providers(tx),
        _suspended(tx, now_ms),
        _holds(overdue, total_timeout_s),
        _shortfalls(standing),
        _pool(tx),
        _unpriced(tx, now_ms, is_priced),
    )
    return [notice for kind in kinds for notice in _first(list(kind))]


def _first(notices: list[Notice]) -> list[Notice]:
    shown, more = notices[:OF_A_KIND_MAX], len(notices) - OF_A_KIND_MAX
    if more > 0:
        last = shown[-1]
        page = "/" + last.path.split("/")[1]
        shown.append(Notice(last.word, f"and {more} more of the kind", page, "Look"))
    return shown


def _providers(tx: Tx) -> Iterator[Notice]:
    keys, providers = key_pool.keys_by_provider(tx), key_pool.list_providers(tx)
    if not providers:
        yield Notice("no providers", "None is set up: add your first key", "/providers", "Add one")
    for provider in providers:
        yield from _provider(provider, keys.get(provider.name, []))


def _provider(provider: Provider, keys: list[ProviderKey]) -> Iterator[Notice]:
    path, state = f"/providers/{provider.name}", state_of(provider, keys)
    if state == "paused":
        again = "" if provider.is_paused_by_operator else "; it is tried again by itself"
        text = f"{provider.name}: {provider.paused_reason}{again}"
        yield Notice("paused", text, path, "Resume it")
    elif state == NO_ACTIVE_KEYS:
        yield Notice(state, f"{provider.name} cannot be used", path, "Add a key")
    for key in keys:
        if key.state in TAKEN_OUT:
            text = f"{key.name} of {provider.name}: {key.state_reason or 'no reason is known'}"
            yield Notice(key.state, text, path, "Mend it")


def _suspended(tx: Tx, now_ms: int) -> Iterator[Notice]:
    for key in reports.suspended_keys(tx, now_ms=now_ms, limit=100):
        text = f"API key {key.name} of {key.user}: {key.reason}"
        yield Notice("suspended", text, f"/users/{key.user_id}", "Look at it")


def _holds(overdue: int, total_timeout_s: int) -> Iterator[Notice]:
    if overdue:
        text = (
            f"{number(overdue)} open for longer than any answer takes ({total_timeout_s} s). A "
            "restart of the server ends them."
        )
        yield Notice("open holds", text, "/ledger", "Look at the ledger")


def _shortfalls(standing: Standing) -> Iterator[Notice]:
    if standing.shortfalls:
        text = (
            f"${cost(standing.shortfall_nanousd)} of {number(standing.shortfalls)} requests could "
            "not be paid by their users"
        )
        yield Notice("shortfall", text, "/ledger", "Look at the ledger")


def _pool(tx: Tx) -> Iterator[Notice]:
    text = warning_in_dollars(pool.find_pool(tx))
    if text:
        yield Notice("oversold", f"More was sold than is held: {text}", "/pool", "Look at the pool")


def _unpriced(tx: Tx, now_ms: int, is_priced: Callable[[str, str], bool]) -> Iterator[Notice]:
    asked = reports.unpriced_models(
        tx, since_ms=now_ms - UNPRICED_DAYS * DAY_MS, rows_max=UNPRICED_ROWS_MAX
    )
    for provider, model, count in asked:
        if not is_priced(provider, model):
            times = "once" if count == 1 else f"{number(count)} times"
            text = f"{provider}/{model} was asked for {times} and refused"
            yield Notice("no price", text, "/catalog", "Set its price")
