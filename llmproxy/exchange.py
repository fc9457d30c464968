"""The second half of the request path: send → relay → settle, for one request with its hold.

Every way out of `Exchange.run` ends the hold exactly once, and queues that before the client's
last bytes, so that the client's next request stands behind it. The rules of who pays for what are
those of reference money.md 2.1. `relay.py` holds the first half.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import msgspec

from llmproxy import key_pool, ledger
from llmproxy.accounts import Principal
from llmproxy.catalog import Catalog
from llmproxy.clock import Clock
from llmproxy.dialects.base import Endpoint, Reading, estimated
from llmproxy.dialects.failures import FailureKind, classify
from llmproxy.errors import ApiError, no_active_provider_keys, proxy_error
from llmproxy.headers import Headers, to_client, to_provider
from llmproxy.key_pool import LiveKey, Provider
from llmproxy.money import format_usd
from llmproxy.pricing import Cost, PricedModel, price
from llmproxy.quote import Quote
from llmproxy.upstream import Answer, Upstream, UpstreamError
from llmproxy.usage import Usage
from llmproxy.watchdog import Watchdog

BIG_BODY_BYTES = 256 * 1024
"""Larger ones are checked and written to in a thread, so that other requests do not wait."""
ATTEMPTS_MAX = 3
ERROR_BYTES_MAX = 64 * 1024
PLAIN_BYTES_MAX = 8 * 1024 * 1024
"""Plain answers up to this size are metered before they are sent on; larger ones while."""
SENT_BYTES_MAX = 256 * 1024
"""Sent to a client at once: one that takes less within the stall timeout does not read."""
READ_BYTES_MAX = 64 * 1024 * 1024
"""Of a plain answer no more than this is kept for reading its usage."""

_log = logging.getLogger("llmproxy.relay")


class Client(Protocol):
    """The client's connection, as the server offers it."""

    has_started: bool
    """The head of the answer has been sent."""

    def is_gone(self) -> bool:
        """Say whether the client has hung up."""

    def abort(self) -> None:
        """Hang up on the client."""

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of the answer."""

    async def send(self, body: bytes, *, more: bool) -> None:
        """Send a part of the body; the last one has `more` False."""


class Queue(Protocol):
    """What an exchange needs of the storage writer."""

    def enqueue(self, function: Callable[..., object], *args: object) -> None:
        """Queue a write that must happen."""


class Services(NamedTuple):
    """The long-lived objects that exchanges share."""

    writer: Queue
    upstream: Upstream
    watchdog: Watchdog
    catalog: Catalog
    clock: Clock


class Order(NamedTuple):
    """One admitted request: everything that is known before it is sent."""

    request_id: str
    principal: Principal
    provider: Provider
    endpoint: Endpoint
    quote: Quote
    hold: ledger.Hold
    headers: Headers
    query: str
    body: bytes
    keys: list[LiveKey]


class Exchange:
    """One admitted request on its way; the watchdog's `Exchange` too."""

    def __init__(self, services: Services, order: Order, client: Client) -> None:
        """Take the admitted request; `run` does the rest."""
        self._services = services
        self._order = order
        self._client = client
        self._clock = services.clock
        self._task = asyncio.current_task()
        self._key: LiveKey | None = None
        self._attempts = 0
        self._upstream_status: int | None = None
        self._ttfb_ms: int | None = None
        self._status = 0
        self._has_ended = False
        self._is_event_stream = False
        self._cut_reason: str | None = None
        self._read_so_far: Callable[[], Reading] = Reading
        self.started_s = self._clock.monotonic_s()
        self.waiting_since_s = 0.0
        self.sending_since_s = 0.0
        self.gone_since_s = 0.0
        self.has_answer = False

    async def run(self) -> None:
        """Send the request, relay the answer, end the hold.

        Raises:
            ApiError: nothing was generated and nothing has been sent to the client yet.
        """
        watched = self._services.watchdog.exchanges
        watched.add(self)
        try:
            answer, error_body = await self._obtain_answer()
            try:
                if answer.status >= 400:
                    await self._pass_on(answer, error_body)
                elif self._is_stream(answer):
                    await self._relay_stream(answer)
                else:
                    await self._relay_plain(answer)
            finally:
                await answer.close()
        except asyncio.CancelledError:
            if self._cut_reason is None or self._task is None:
                self._end_interrupted("the proxy was stopped")
                raise
            self._task.uncancel()
            await self._after_cut(self._cut_reason)
        except ApiError as error:
            self._status = error.status
            self._release(error.message)
            raise
        finally:
            watched.discard(self)
            # Whatever went wrong, no hold stays open.
            self._end_interrupted("an internal error")

    # --- what the watchdog calls -------------------------------------------------------------

    def is_client_gone(self) -> bool:
        """Say whether the client has left."""
        return self._client.is_gone()

    def give_up_client(self) -> None:
        """Hang up on a client that does not read."""
        self._client.abort()

    def cut(self, reason: str) -> None:
        """Stop waiting for the provider or the client."""
        if self._cut_reason is None and self._task is not None:
            self._cut_reason = reason
            self._task.cancel()

    # --- send --------------------------------------------------------------------------------

    async def _obtain_answer(self) -> tuple[Answer, bytes]:
        """Send the request, with other keys where nothing was generated (wire.md E).

        Returns the answer, and the body of one that is an error to be passed on.
        """
        order = self._order
        url = order.provider.base_url + order.endpoint.upstream_path + order.query
        write_body = partial(
            order.endpoint.upstream_body,
            order.body,
            order.quote.facts,
            injects_usage=order.provider.injects_usage,
        )
        is_big = len(order.body) > BIG_BODY_BYTES
        body = await asyncio.to_thread(write_body) if is_big else write_body()
        refusals: list[ApiError] = []
        for key in order.keys[:ATTEMPTS_MAX]:
            self._key = key
            self._attempts += 1
            headers = to_provider(order.headers, order.provider.dialect, key.secret)
            answer = await self._send(url, headers, body)
            self._upstream_status = answer.status
            if answer.status < 300:
                self._confirm(key)
                return answer, b""
            try:
                error_body = await self._read_error(answer, key.secret)
                refusal = self._consequence(answer, error_body, key)
            except BaseException:
                await answer.close()
                raise
            if refusal is None:
                return answer, error_body
            await answer.close()
            refusals.append(refusal)
        raise self._last_word(refusals)

    def _last_word(self, refusals: list[ApiError]) -> ApiError:
        """Return what to say when every key that was tried has been refused."""
        resting = [refusal for refusal in refusals if refusal.retry_after_s is not None]
        if resting:
            return min(resting, key=lambda refusal: refusal.retry_after_s or 0)
        untried = len(self._order.keys) - len(refusals)
        if untried:
            return proxy_error(
                503,
                f"{self._order.provider.name} refused {len(refusals)} of its keys, {untried} more "
                "were not tried",
                self._order.request_id,
                code="upstream_keys_refused",
                should_retry=True,
            )
        return refusals[-1]

    async def _send(self, url: str, headers: Headers, body: bytes) -> Answer:
        self.waiting_since_s = self._clock.monotonic_s()
        try:
            return await self._services.upstream.post(url, headers, body)
        except UpstreamError as error:
            what = "broke off before answering" if error.was_sent else "cannot be reached"
            # Once sent it may have been billed: sending it again could pay twice.
            raise self._proxy_error(what, error, should_retry=not error.was_sent) from error
        finally:
            self.waiting_since_s = 0.0

    async def _read_error(self, answer: Answer, secret: str) -> bytes:
        """Return the body of an error answer without any secret that it echoes.

        It is cut off where no error is that long; a secret across the cut is masked too.
        """
        enough = ERROR_BYTES_MAX + len(secret)
        parts: list[bytes] = []
        size = 0
        try:
            while size < enough and (chunk := await self._next_chunk(answer)) is not None:
                parts.append(chunk)
                size += len(chunk)
        except UpstreamError:
            pass  # an error cut short is still that error
        return b"".join(parts)[:enough].replace(secret.encode(), b"***")[:ERROR_BYTES_MAX]

    def _consequence(self, answer: Answer, body: bytes, key: LiveKey) -> ApiError | None:
        """Do to the key what the answer asks for.

        Returns what to say if no other key is left, or None when the provider's own words go to
        the client.
        """
        order = self._order
        headers = {
            name.lower().decode("latin-1"): value.decode("latin-1")
            for name, value in answer.headers
        }
        failure = classify(answer.status, headers, body)
        now_ms = self._clock.now_ms()
        if failure.kind is FailureKind.COOLDOWN:
            wait_s = failure.retry_after_s
            key.cooling_until_ms[order.quote.model.id] = now_ms + wait_s * 1000
            return all_keys_cooling(order.provider.name, wait_s)
        if failure.kind is FailureKind.DEAD:
            self._take_out(key, "dead", failure.excerpt, None)
            return no_active_provider_keys(order.provider.name)
        if failure.kind is FailureKind.OUT_OF_QUOTA:
            until_ms = now_ms + key_pool.OUT_OF_QUOTA_PARK_MS
            self._take_out(key, "out_of_quota", failure.excerpt, until_ms)
            return no_active_provider_keys(order.provider.name)
        if answer.status < 400:
            error = UpstreamError(f"redirect {answer.status}", was_sent=True)
            raise self._proxy_error("answered with a redirect", error, should_retry=False)
        return None

    def _take_out(self, key: LiveKey, state: str, reason: str, until_ms: int | None) -> None:
        name = self._order.provider.name
        _log.warning("provider key %s of %s is now %s: %s", key.name, name, state, reason)
        self._set_key_state(key, state, reason, until_ms)

    def _confirm(self, key: LiveKey) -> None:
        """Put a parked key back to use that has just been answered."""
        if key.state != "active":
            self._set_key_state(key, "active", None, None)

    def _set_key_state(
        self, key: LiveKey, state: str, reason: str | None, until_ms: int | None
    ) -> None:
        # In memory at once; our own commits do not reload the pool.
        known = key.state
        key.state, key.until_ms = state, until_ms
        change = partial(
            key_pool.set_key_state,
            state=state,
            reason=reason,
            actor="proxy",
            now_ms=self._clock.now_ms(),
            until_ms=until_ms,
            only_from=known,
        )
        self._services.writer.enqueue(change, key.id)

    # --- relay -------------------------------------------------------------------------------

    def _is_stream(self, answer: Answer) -> bool:
        kind = answer.header(b"content-type")
        if kind:
            return kind.lower().startswith(b"text/event-stream")
        return self._order.quote.facts.is_stream

    async def _relay_stream(self, answer: Answer) -> None:
        """Pass events on as they come; a clean end only where the provider made one."""
        facts = self._order.quote.facts
        withholds = self._order.provider.injects_usage and not facts.asks_usage
        reader = self._order.endpoint.stream_reader(withholds_usage=withholds)
        self._read_so_far = reader.reading
        headers = [(n, v) for n, v in self._passed_headers(answer) if n != b"cache-control"]
        headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        await self._start(answer.status, headers)
        self._is_event_stream = True
        broken: str | None = None
        try:
            while (chunk := await self._next_chunk(answer)) is not None:
                passed = reader.events.feed(chunk)
                if reader.is_over:
                    self._end(reader.reading())
                if passed:
                    await self._pass(passed)
        except UpstreamError as error:
            broken = f"{self._order.provider.name} broke off: {error}"
        rest = reader.events.finish()
        reading = reader.reading()
        is_proper_end = reader.is_over or reading.has_error or reader.is_complete
        if broken is None and not is_proper_end:
            broken = f"{self._order.provider.name} ended the stream before the answer was complete"
        if broken is None or reader.is_over:
            self._end(reading)
            await self._finish(rest)
        else:
            self._end(reading, reason=broken)
            await self._finish(self._error_event(broken, "upstream_interrupted"))

    async def _relay_plain(self, answer: Answer) -> None:
        """Pass a plain answer on, metered before it is sent, or while when it is large."""
        parts: list[bytes] = []
        size = 0
        try:
            while (chunk := await self._next_chunk(answer)) is not None:
                parts.append(chunk)
                size += len(chunk)
                if size > PLAIN_BYTES_MAX:
                    await self._relay_large(answer, parts)
                    return
        except UpstreamError as error:
            raise self._proxy_error("broke off its answer", error, should_retry=False) from error
        body = b"".join(parts)
        self._ttfb_ms = self._elapsed_ms()
        cost = self._end(self._order.endpoint.read_answer(body), status=answer.status)
        headers = self._passed_headers(answer)
        headers.append((b"content-length", b"%d" % len(body)))
        headers.append((b"x-llmproxy-cost-usd", format_usd(cost).encode()))
        await self._start(answer.status, headers)
        await self._finish(body)

    async def _relay_large(self, answer: Answer, parts: list[bytes]) -> None:
        """Pass a large plain answer on as it comes, its last chunk only after settling."""
        kept = list(parts)
        size = sum(len(part) for part in kept)
        self._read_so_far = lambda: Reading(seen_bytes=size)
        await self._start(answer.status, self._passed_headers(answer))
        last = b"".join(parts)
        try:
            while (chunk := await self._next_chunk(answer)) is not None:
                await self._pass(last)
                last = chunk
                size += len(chunk)
                if size <= READ_BYTES_MAX:
                    kept.append(chunk)
        except UpstreamError as error:
            reason = f"{self._order.provider.name} broke off: {error}"
            self._end(self._read_so_far(), reason=reason)
            self._client.abort()  # no error can be told inside a JSON body; a clean end would lie
            return
        reading = self._order.endpoint.read_answer(b"".join(kept))
        self._end(reading)
        await self._finish(last)

    async def _pass_on(self, answer: Answer, body: bytes) -> None:
        """Pass the provider's own error on."""
        self._status = answer.status
        self._release(f"the provider answered {answer.status}")
        headers = self._passed_headers(answer)
        headers.append((b"content-length", b"%d" % len(body)))
        await self._start(answer.status, headers)
        await self._finish(body)

    def _passed_headers(self, answer: Answer) -> Headers:
        assert self._key is not None
        headers = to_client(answer.headers, self._key.secret)
        headers.append((b"x-llmproxy-request-id", self._order.request_id.encode()))
        return headers

    async def _next_chunk(self, answer: Answer) -> bytes | None:
        self.has_answer = True
        self.waiting_since_s = self._clock.monotonic_s()
        chunk = await answer.next_chunk()
        self.waiting_since_s = 0.0
        return chunk

    async def _start(self, status: int, headers: Headers) -> None:
        self._status = status
        self._ttfb_ms = self._ttfb_ms or self._elapsed_ms()
        await self._client.start(status, headers)

    async def _pass(self, body: bytes, *, more: bool = True) -> None:
        """Send on what the client still wants; it has the stall timeout for each piece of it."""
        for start in range(0, len(body) or 1, SENT_BYTES_MAX):
            if self._client.is_gone():
                return  # read on: the provider bills what it generates
            end = start + SENT_BYTES_MAX
            self.sending_since_s = self._clock.monotonic_s()
            await self._client.send(body[start:end], more=more or end < len(body))
            self.sending_since_s = 0.0

    async def _finish(self, body: bytes) -> None:
        await self._pass(body, more=False)

    async def _after_cut(self, reason: str) -> None:
        """End what the watchdog has cut: settle, and tell a client that is still there."""
        is_gone = self._client.is_gone()
        if self._has_ended:
            self._client.abort()
            return
        reading = self._read_so_far()
        if is_gone:
            self._end_abandoned(reading, reason)
        elif self._is_event_stream:
            self._end(reading, reason=reason)
            await self._finish(self._error_event(reason, "upstream_interrupted"))
        elif self._client.has_started:
            self._end(reading, reason=reason)
            self._client.abort()  # as in _relay_large
        else:
            self._status = 504
            self._release(reason)
            raise proxy_error(
                504, reason, self._order.request_id, code="upstream_timeout", should_retry=False
            )

    def _error_event(self, what: str, code: str) -> bytes:
        error = proxy_error(502, what, self._order.request_id, code=code)
        # The blank line ends whatever the provider had begun.
        return b"\n\n" + error.event(self._order.request_id)

    def _proxy_error(self, what: str, error: UpstreamError, *, should_retry: bool) -> ApiError:
        name = self._order.provider.name
        _log.warning("%s: %s %s: %s", self._order.request_id, name, what, error)
        return proxy_error(
            502,
            f"{name} {what}",
            self._order.request_id,
            code="upstream_unreachable",
            should_retry=should_retry,
        )

    # --- settle ------------------------------------------------------------------------------

    def _end(
        self, reading: Reading, *, reason: str | None = None, status: int | None = None
    ) -> int:
        """End the hold by what was read; return the cost in nano-USD. Later calls do nothing.

        The provider's final usage is the bill; without it the documented estimate is; where
        nothing was generated the hold is released.
        """
        if self._has_ended:
            return 0
        self._status = status or self._status
        if reading.is_final and reading.usage is not None:
            return self._settle(reading, reading.usage, "usage", reason)
        if reading.usage is None and reading.seen_bytes == 0:
            self._release(reason or reading.problem or "the answer was empty", reading)
            return 0
        usage = self._estimated(reading)
        why = reason or reading.problem or "the provider reported no usage"
        return self._settle(reading, usage, "estimate", why)

    def _estimated(self, reading: Reading) -> Usage:
        return estimated(reading, len(self._order.body), self._order.quote.output_tokens)

    def _end_abandoned(self, reading: Reading, reason: str) -> None:
        """End a hold whose client left and whose answer could not be read to its end.

        Leaving must never be free: at least the input is charged, and the whole hold where a
        model's hidden reasoning may have been generated (money.md 2.1, row 2).
        """
        if self._order.quote.model.reasoning and not reading.is_final:
            amount = self._order.hold.amount_nanousd
            self._enqueue_settlement(Cost(amount, ()), None, "hold", reading, reason)
        elif reading.is_final:
            self._end(reading, reason=reason)
        else:
            usage = self._estimated(reading)
            self._settle(reading, usage, "estimate", reason)

    def _end_interrupted(self, reason: str) -> None:
        """End the hold on an unforeseen way out; does nothing when it has ended."""
        if not self._has_ended:
            self._end(self._read_so_far(), reason=reason)

    def _settle(self, reading: Reading, usage: Usage, basis: str, reason: str | None) -> int:
        quote, hold = self._order.quote, self._order.hold
        asked = PricedModel(quote.model.id, quote.model.prices, hold.price_version_id)
        cost = price(
            usage,
            asked,
            user_multiplier_micro=hold.user_multiplier_micro,
            model_multiplier_micro=hold.model_multiplier_micro,
            other_model=self._other_model,
        )
        self._enqueue_settlement(cost, usage, basis, reading, reason)
        return cost.nanousd

    def _other_model(self, model_id: str) -> PricedModel:
        """Return the prices of another model's leg; the provider's dearest if it is unknown."""
        catalog, provider = self._services.catalog, self._order.provider.name
        model = catalog.find(provider, model_id)
        if model is None:
            _log.warning("a leg of %s has no price, the dearest one counts", model_id[:100])
            model = max(catalog.models(provider), key=lambda one: one.prices.rates.output)
        return PricedModel(model.id, model.prices, None)

    def _enqueue_settlement(
        self, cost: Cost, usage: Usage | None, basis: str, reading: Reading, reason: str | None
    ) -> None:
        self._has_ended = True
        outcome = self._outcome(reading, reason)
        outcome = msgspec.structs.replace(
            outcome,
            usage=msgspec.json.encode(usage).decode() if usage else None,
            receipt=msgspec.json.encode(cost.lines).decode() if cost.lines else None,
        )
        settle = partial(
            ledger.settle,
            cost_nanousd=cost.nanousd,
            basis=basis,
            outcome=outcome,
            now_ms=self._clock.now_ms(),
        )
        self._services.writer.enqueue(settle, self._order.hold)

    def _release(self, reason: str, reading: Reading | None = None) -> None:
        """End the hold without a charge; does nothing when it has ended."""
        if self._has_ended:
            return
        self._has_ended = True
        outcome = self._outcome(reading or Reading(), reason)
        release = partial(ledger.release, outcome=outcome, now_ms=self._clock.now_ms())
        self._services.writer.enqueue(release, self._order.hold)

    def _outcome(self, reading: Reading, reason: str | None) -> ledger.Outcome:
        order = self._order
        return ledger.Outcome(
            user_id=order.principal.user_id,
            provider=order.provider.name,
            model=order.quote.model.id,
            is_stream=order.quote.facts.is_stream,
            status=self._status,
            duration_ms=self._elapsed_ms(),
            model_served=reading.model,
            reason=reason,
            raw_usage=reading.raw_usage.decode(errors="replace") if reading.raw_usage else None,
            upstream_status=self._upstream_status,
            provider_key_id=self._key.id if self._key else None,
            attempts=self._attempts,
            ttfb_ms=self._ttfb_ms,
        )

    def _elapsed_ms(self) -> int:
        return round((self._clock.monotonic_s() - self.started_s) * 1000)


def all_keys_cooling(provider: str, retry_after_s: int) -> ApiError:
    """Return the 429 for a provider whose keys are all rate limited for a short while."""
    message = f"Provider {provider} is rate limited. Try again in {retry_after_s} s."
    return ApiError(
        429, "rate_limit_exceeded", message, should_retry=None, retry_after_s=retry_after_s
    )
