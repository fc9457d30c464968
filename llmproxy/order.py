"""Owns the value between the two halves of the request path: an admitted request."""

from typing import NamedTuple

from llmproxy import ledger
from llmproxy.accounts import Principal
from llmproxy.body_reader import BodyReader
from llmproxy.clock import Clock, request_id_text
from llmproxy.dialects.base import Endpoint, RequestFacts
from llmproxy.gate import Gate
from llmproxy.headers import Headers
from llmproxy.health import Health
from llmproxy.key_pool import Provider
from llmproxy.live_catalog import LiveCatalog
from llmproxy.live_keys import LiveKey
from llmproxy.quote import Quote
from llmproxy.rate_limits import Entry
from llmproxy.storage.queue import Queue
from llmproxy.trace import Trace
from llmproxy.upstream import Upstream
from llmproxy.usage import Movers
from llmproxy.watchdog import Watchdog


class Services(NamedTuple):
    """The long-lived objects that exchanges share."""

    writer: Queue
    upstream: Upstream
    watchdog: Watchdog
    catalog: LiveCatalog
    clock: Clock
    bodies: BodyReader
    health: Health
    gate: Gate


class Order(NamedTuple):
    """One admitted request: everything that is known before it is sent."""

    id: bytes
    principal: Principal
    provider: Provider
    endpoint: Endpoint
    facts: RequestFacts
    headers: Headers
    dialect: str
    """That of the path that was asked for: a provider may speak several."""
    upstream_path: str
    """Behind the provider's base URL, with its query."""
    body: bytes
    keys: list[LiveKey]
    """The keys that may be tried, best first."""
    scope: str
    """What the provider limits the request's rate by; see `scope_of`."""
    quote: Quote | None
    hold: ledger.Hold | None
    """The quote and its hold; None for a request that costs nothing."""
    trace: Trace
    only_key_id: int | None = None
    """The one provider key that can serve it, as it made the response that the request goes on
    from."""
    entry: Entry | None = None
    """Its place within the limits of its key and user; None where there are none."""

    @property
    def request_id(self) -> str:
        """The id as it is shown."""
        return request_id_text(self.id)

    @property
    def model_id(self) -> str:
        """The catalog's id of the model; of a free request whatever it names."""
        return self.quote.model.id if self.quote else self.facts.model


def scope_of(endpoint: Endpoint, model_id: str, movers: Movers) -> str:
    """Return what a provider limits requests by: their model, and its tier and speed.

    Free endpoints have limits of their own, one for all models that the catalog does not know
    (an empty id): clients choose those names, and what rests is kept in memory. That one key is
    limited for one scope says nothing of others.
    """
    if endpoint.is_free:
        return f"{model_id} ({endpoint.name})" if model_id else f"({endpoint.name})"
    tier = movers.service_tier or movers.speed
    return f"{model_id} ({tier})" if tier else model_id
