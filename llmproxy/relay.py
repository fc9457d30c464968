"""THE REQUEST PATH, its first half: authenticate → price → hold; `exchange.py` does the rest.

Read `Relay.handle` and follow it downwards. No framework in here: the server hands over a
`Request` and a `Client`, and runs `handle` in a task that a client's disconnect does not cancel.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

import msgspec

from llmproxy import stored_responses
from llmproxy.accounts import Principal
from llmproxy.authentication import Authentication
from llmproxy.catalog_overrides import Overrides
from llmproxy.clock import RequestIds, request_id_text
from llmproxy.dialects.base import Endpoint, RequestFacts, StoredContext
from llmproxy.errors import (
    ApiError,
    NotAllowedError,
    compressed_body,
    previous_response_not_found,
    websocket_unsupported,
)
from llmproxy.exchange import Client, Exchange
from llmproxy.gate import require_model
from llmproxy.headers import Headers, asks_websocket
from llmproxy.holds import Holds, may_be_lowered
from llmproxy.idempotency import given_keys, read_once
from llmproxy.key_choice import KeyChoice
from llmproxy.key_pool import Provider, ProviderKey
from llmproxy.limits import Network
from llmproxy.live_keys import Pool
from llmproxy.model_list import models_body, unknown_model
from llmproxy.order import Order, Services, scope_of
from llmproxy.own_answers import answer, answer_failure
from llmproxy.presets import PRESETS
from llmproxy.quote import HoldPolicy, Quote, make_quote
from llmproxy.rate_limits import Entry
from llmproxy.routes import Route, Routes, upstream_path
from llmproxy.storage.writer import Writer
from llmproxy.trace import Trace
from llmproxy.unheld import UnheldRows

DRAIN_RETRY_AFTER_S = 5


class Snapshot(NamedTuple):
    """What the database says of those who may come in, where requests go and what they cost."""

    principals: dict[bytes, Principal]
    providers: list[Provider]
    provider_keys: list[ProviderKey]
    overrides: Overrides


class Request(NamedTuple):
    """A request as the server hands it over; header names are in lower case."""

    method: str
    raw_path: bytes
    query: bytes
    headers: Headers
    read_body: Callable[[], Awaitable[bytes]]
    """Raises ApiError for a body that is too large, ClientGoneError when it never comes."""
    trace: Trace
    """What becomes known of the request is noted here, for its log line and the metrics."""
    peer: str = ""
    """The address at the other end of the connection."""


class _ChangedError(Exception):
    """What the request was admitted by has been changed since: it must be admitted anew."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self._body = body

    async def body_again(self) -> bytes:
        """Return the body, which cannot be read from the client twice."""
        return self._body


class ClientGoneError(Exception):
    """The client left before its request was complete."""


class Relay:
    """Takes requests and sees them through; everything in the server's memory is here."""

    def __init__(
        self,
        services: Services,
        writer: Writer[Snapshot],
        pool: Pool,
        policy: HoldPolicy,
        trusted_proxies: tuple[Network, ...] = (),
    ) -> None:
        """Take the shared services; `publish` must be called before the first request."""
        self._services = services
        self._writer = writer
        self._pool = pool
        self._keys = KeyChoice(pool, services.health, services.clock, self._refresh)
        self._policy = policy
        self._clock = services.clock
        self._catalog = services.catalog
        self._ids = RequestIds()
        self._routes = Routes(())
        self._set_up: frozenset[str] = frozenset()
        """The providers that are served."""
        self._generation = 0
        self._unheld = UnheldRows(services)
        self._gate = services.gate
        self._authentication = Authentication(services.clock, writer.refresh, trusted_proxies)
        self.holds = Holds(writer, services.gate, services.clock)
        self.is_draining = False

    def publish(self, snapshot: Snapshot) -> None:
        """Replace what is known of users, keys, providers and the operator's own prices."""
        self._generation += 1
        self._authentication.publish(snapshot.principals)
        self._gate.publish(snapshot.principals)
        self._set_up = frozenset(provider.name for provider in snapshot.providers)
        self._pool.publish(snapshot.providers, snapshot.provider_keys)
        self._services.health.publish(snapshot.providers)
        self._catalog.publish(snapshot.overrides)
        dialects = {name: preset.dialect for name, preset in PRESETS.items()}
        dialects |= {provider.name: provider.dialect for provider in snapshot.providers}
        self._routes = Routes(dialects.items())

    @property
    def has_api_keys(self) -> bool:
        """Say whether anybody could be let in."""
        return self._authentication.has_api_keys

    async def handle(self, request: Request, client: Client) -> None:
        """See one request through, from its path to its settled hold."""
        request_id = self._ids.new(self._clock.now_ms())
        text_id = request_id_text(request_id)
        request.trace.request_id = text_id
        try:
            await self._serve(request, client, request_id)
        except _ChangedError as changed:
            await self.handle(request._replace(read_body=changed.body_again), client)
        except ClientGoneError:
            pass
        except Exception as error:  # noqa: BLE001 - outermost: no traceback reaches the client
            answer_failure(client, error, request.trace)

    async def _serve(self, request: Request, client: Client, request_id: bytes) -> None:
        if self.is_draining:
            raise ApiError(
                503,
                "shutting_down",
                "The proxy is restarting. Try again in a moment.",
                should_retry=None,
                retry_after_s=DRAIN_RETRY_AFTER_S,
            )
        if asks_websocket(request.headers):
            raise websocket_unsupported()
        route = self._routes.find(request.method, request.raw_path)
        request.trace.provider, request.trace.dialect = route.provider, route.dialect
        if route.is_base:
            answer(client, b"", request_id)
            return
        request.trace.endpoint = route.endpoint.name if route.endpoint else "models"
        principal = await self._let_in(request, route, request_id)
        if route.endpoint is None:
            body = models_body(self._catalog.current, route, principal.limits)
            answer(client, body, request_id)
            self._unheld.record(request_id, route, principal)
            return
        entry = None
        if principal.is_limited:
            principal, entry = await self._enter(request, route, principal, request_id)
        try:
            order = await self._admit(request, route, route.endpoint, principal, request_id)
            if entry is not None:
                order = order._replace(entry=entry)
            await Exchange(self._services, order, client).run()
        except _ChangedError:
            if entry is not None:
                entry.uncount()
            raise
        finally:
            if entry is not None:
                entry.leave()

    async def _let_in(self, request: Request, route: Route, request_id: bytes) -> Principal:
        """Do as `authenticate`; an API key's own refusals leave a row."""
        try:
            return await self.authenticate(request)
        except NotAllowedError as error:
            principal = self._authentication.find(request.headers, request.query)
            if principal is not None:
                self._unheld.record(request_id, route, principal, error=error)
            raise

    async def _enter(
        self, request: Request, route: Route, principal: Principal, request_id: bytes
    ) -> tuple[Principal, Entry]:
        """Let a request in within the limits of its key and user, as the database has them now.

        Raises:
            ApiError: 401 or 403; 429 when a limit is reached.
        """
        try:
            return principal, self._gate.enter(principal, route.provider)
        except ApiError:
            await self._refresh()
        principal = await self._let_in(request, route, request_id)
        try:
            return principal, self._gate.enter(principal, route.provider)
        except ApiError as error:
            self._unheld.record(request_id, route, principal, error=error)
            raise

    async def _admit(
        self,
        request: Request,
        route: Route,
        endpoint: Endpoint,
        principal: Principal,
        request_id: bytes,
    ) -> Order:
        """Read, price and hold; free endpoints need neither price nor hold.

        Raises:
            ApiError: why it is refused.
            _ChangedError: what it was admitted by changed while its body came or its hold was made.
        """
        generation = self._generation
        body = await self._read_body(request)
        model = ""
        try:
            read = partial(endpoint.read_request, body)
            facts = await self._services.bodies.run(body, read)
            model = request.trace.model = facts.model
            request.trace.is_stream = facts.is_stream
            only_key_id = None
            if facts.previous_response_id is not None:
                facts, only_key_id = await self._go_on(facts, route.provider, principal)
            quote = None if endpoint.is_free else await self._quote(route, facts, principal)
            model_id = quote.model.id if quote else self._known_id(route.provider, model)
            require_model(principal, model_id or model)
            scope = scope_of(endpoint, model_id, facts.movers)
            provider, keys = await self._keys.choose(
                route.provider, scope, principal.user_id, only_key_id
            )
            hold = None
            if quote is not None:
                once = None
                if keys_given := given_keys(request.headers):
                    target = f"{route.provider}{endpoint.upstream_path}"
                    once = await read_once(keys_given, target, body, self._services.bodies)
                may_fit = may_be_lowered(endpoint, facts, request.headers)
                quote, hold = await self.holds.place(
                    endpoint, quote, principal, request_id, may_fit=may_fit, once=once
                )
        except ApiError as error:
            if isinstance(error, NotAllowedError):
                await self._refresh()
                if generation != self._generation:
                    raise _ChangedError(body) from error
            self._unheld.record(request_id, route, principal, model, error)
            raise
        order = Order(
            id=request_id,
            principal=principal,
            provider=provider,
            endpoint=endpoint,
            facts=facts,
            headers=request.headers,
            dialect=route.dialect,
            upstream_path=upstream_path(route, endpoint, request.query),
            body=body,
            keys=keys,
            scope=scope,
            quote=quote,
            hold=hold,
            trace=request.trace,
            only_key_id=only_key_id,
        )
        if generation != self._generation and not self._is_still_admitted(order, request):
            # The hold's transaction has seen a change: an operator's word counts at once.
            if quote is not None and hold is not None:
                self.holds.release(hold, quote, principal, "something was changed: admitted anew")
            raise _ChangedError(body)
        return order

    async def authenticate(self, request: Request) -> Principal:
        """Return who the request speaks for: the first given key that is known counts.

        Raises:
            ApiError: 401; 403 when the user is disabled, or the key may not be used from there.
        """
        return await self._authentication.authenticate(
            request.headers, request.query, request.peer, request.trace
        )

    async def _refresh(self) -> None:
        """Look at the database again before saying no.

        Each caller has a look of its own: one that is under way may have missed what was
        committed since. It happens even if its caller is cancelled.
        """
        await self._writer.refresh()

    @staticmethod
    async def _read_body(request: Request) -> bytes:
        for name, value in request.headers:
            if name == b"content-encoding" and value.lower() not in {b"", b"identity"}:
                raise compressed_body()
        return await request.read_body()

    async def _go_on(
        self, facts: RequestFacts, provider: str, principal: Principal
    ) -> tuple[RequestFacts, int]:
        """Return a request with what the response that it goes on from adds, and the key for it.

        Asked behind all settlements that are queued: a response is known when its end was sent.

        Raises:
            ApiError: 400, when this user has no such response.
        """
        asked = (principal.user_id, provider, facts.previous_response_id, self._clock.now_ms())
        stored = await self._writer.submit(stored_responses.find, *asked)
        if stored is None:
            raise previous_response_not_found()
        context = StoredContext(stored.tokens, stored.model)
        given = msgspec.structs.replace(facts.input, stored=context)
        return msgspec.structs.replace(facts, input=given), stored.provider_key_id

    async def _quote(self, route: Route, facts: RequestFacts, principal: Principal) -> Quote:
        """Return what the request can cost at the prices of this moment.

        Raises:
            ApiError: 400, when the model or an option of the request has no price.
        """
        model = self._catalog.current.find(route.provider, facts.model)
        if model is None:
            await self._refresh()
            model = self._catalog.current.find(route.provider, facts.model)
        if model is None:
            raise unknown_model(
                self._catalog.current,
                route.provider,
                facts.model,
                principal.limits,
                set_up=self._set_up,
            )
        return make_quote(facts, model, principal.rate_multiplier_micro, self._policy)

    def _known_id(self, provider: str, name: str) -> str:
        """Return the catalog's id of a model that a free request names, empty if it has none."""
        model = self._catalog.current.find(provider, name)
        return "" if model is None else model.id

    def _is_still_admitted(self, order: Order, request: Request) -> bool:
        """Say whether the user, the provider, its keys and the prices are as they were."""
        if self._authentication.find(request.headers, request.query) != order.principal:
            return False
        now_ms, name = self._clock.now_ms(), order.provider.name
        user_id = order.principal.user_id
        found = self._keys.usable(name, order.scope, user_id, now_ms, order.only_key_id)
        if found is None or found[0] != order.provider:
            return False
        if order.quote and self._catalog.current.find(name, order.model_id) != order.quote.model:
            return False
        return [key.id for key in order.keys] == [key.id for key in found[1]]
