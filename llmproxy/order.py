"""Owns the value between the two halves of the request path: an admitted request."""

from typing import NamedTuple

from llmproxy import ledger
from llmproxy.accounts import Principal
from llmproxy.body_reader import BodyReader
from llmproxy.clock import Clock, request_id_text
from llmproxy.dialects.base import Endpoint, RequestFacts
from llmproxy.gate import Entry, Gate
from llmproxy.headers import Headers
from llmproxy.key_pool import Provider
from llmproxy.live_catalog import LiveCatalog
from llmproxy.live_keys import LiveKey
from llmproxy.quote import Quote
from llmproxy.storage.queue import Queue
from llmproxy.trace import Trace
from llmproxy.upstream import Upstream
from llmproxy.watchdog import Watchdog


class Services(NamedTuple):
    """The long-lived objects that exchanges share."""

    writer: Queue
    upstream: Upstream
    watchdog: Watchdog
    catalog: LiveCatalog
    clock: Clock
    bodies: BodyReader
    gate: Gate


class Order(NamedTuple):
    """One admitted request: everything that is known before it is sent."""

    id: bytes
    principal: Principal
    provider: Provider
    endpoint: Endpoint
    facts: RequestFacts
    headers: Headers
    query: str
    body: bytes
    keys: list[LiveKey]
    """The keys that may be tried, best first."""
    quote: Quote | None
    hold: ledger.Hold | None
    """The quote and its hold; None for a request that costs nothing."""
    trace: Trace
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
