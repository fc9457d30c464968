"""The second half of the request path: send → relay → settle, for one request with its hold.

Read `Exchange.run` downwards; `relay.py` holds the first half, `attempts.py` gets the answer, and
`settlement.py` ends the hold. Every way out of `run` ends it exactly once.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from llmproxy.attempts import Attempts, ClientLeftError, unreachable
from llmproxy.cover import Cover, NotCoveredError, PileTooLargeError, make_cover
from llmproxy.dialects.base import Reading, StreamReader
from llmproxy.dialects.large_answers import LargeAnswer
from llmproxy.dialects.sse import EventTooLargeError
from llmproxy.errors import ApiError, DatabaseError, proxy_error
from llmproxy.growing import make_growing
from llmproxy.headers import Headers, to_client
from llmproxy.masking import MaskedBody, without_ids
from llmproxy.money import format_usd
from llmproxy.order import Order, Services
from llmproxy.settlement import make_ending
from llmproxy.upstream_connection import Answer, UpstreamError
from llmproxy.watchdog import Times

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("llmproxy.relay")

PLAIN_BYTES_MAX = 8 * 1024 * 1024
"""Plain answers up to this size are metered before they are sent on; larger ones while."""
SENT_BYTES_MAX = 256 * 1024
"""Sent to a client at once: one that takes less within the stall timeout does not read."""


class Client(Protocol):
    """The client's connection, as the server offers it."""

    has_started: bool
    """The head of the answer has been sent."""

    def is_gone(self) -> bool:
        """Say whether the client has hung up."""

    def abort(self) -> None:
        """Hang up on the client."""

    def start(self, status: int, headers: Headers) -> None:
        """Begin the answer: its head leaves with the first piece of the body, or in a moment."""

    @property
    def is_full(self) -> bool:
        """Whether so much waits for the client that no more should be written now."""

    async def drained(self) -> None:
        """Wait until the client has taken most of it, or has left."""

    def write(self, body: bytes, *, more: bool) -> None:
        """Send a piece of the body; the last one has `more` False."""


class Exchange:
    """One admitted request on its way; the watchdog's `Exchange` too."""

    def __init__(self, services: Services, order: Order, client: Client) -> None:
        """Take the admitted request; `run` does the rest."""
        self._services = services
        self._order = order
        self._client = client
        self._task = asyncio.current_task()
        self._cut_reason: str | None = None
        self._is_abandoned = self._is_failure = False
        self._is_event_stream = False
        self._read_so_far: Callable[[], Reading] = Reading
        self.times = Times(services.clock)
        self._ending = make_ending(services, order, self.times)
        self._attempts = Attempts(services, order, self.times, self._ending)

    async def run(self) -> None:
        """Send the request, relay the answer, end the hold.

        Raises:
            ApiError: nothing was generated and nothing has been sent to the client yet.
        """
        watched = self._services.watchdog.exchanges
        watched.add(self)
        try:
            answer, error_body = await self._attempts.obtain(self._client.is_gone)
            try:
                if answer.status >= 400:
                    await self._pass_on_error(answer, error_body)
                elif self._is_stream(answer):
                    await self._relay_stream(answer)
                else:
                    await self._relay_plain(answer)
            finally:
                answer.close()
        except asyncio.CancelledError:
            if self._cut_reason is None or self._task is None:
                self._ending.end(self._read_so_far(), "the proxy was stopped")
                raise
            self._task.uncancel()
            await self._after_cut(self._cut_reason)
        except ClientLeftError:
            self._ending.release("the client left before the request was sent")
        except ApiError as error:
            self._ending.status = error.status
            self._ending.release(error.message)
            raise
        finally:
            watched.discard(self)
            # Whatever went wrong, no hold stays open.
            self._ending.end(self._read_so_far(), "an internal error")

    # --- what the watchdog calls -------------------------------------------------------------

    def is_client_gone(self) -> bool:
        """Say whether the client has left."""
        return self._client.is_gone()

    def give_up_client(self) -> None:
        """Hang up on a client that does not read."""
        self._client.abort()

    def note_seen(self) -> None:
        """Let what has been seen of an answer that is passed on as it comes reach the database."""
        self.times.is_noted = True
        self.times.noted_s = self._services.clock.monotonic_s()
        self._ending.note_seen(self._read_so_far)

    def cut(self, reason: str, *, is_providers: bool = False) -> None:
        """Stop waiting for the provider or the client."""
        if self._cut_reason is None and self._task is not None:
            self._cut_reason, self._is_failure = reason, is_providers
            self._task.cancel()

    def abandon(self, reason: str) -> None:
        """Stop waiting for the end of an answer whose client has left."""
        if self._cut_reason is None:
            self._is_abandoned = True
            self.cut(reason)

    # --- relay -------------------------------------------------------------------------------

    def _is_stream(self, answer: Answer) -> bool:
        facts = self._order.facts
        may_be = facts.is_stream and (facts.may_stream_array or not answer.header(b"content-type"))
        return answer.is_event_stream or may_be

    async def _relay_stream(self, answer: Answer) -> None:
        """Pass events on as they come; a clean end only where the provider made one."""
        provider, facts = self._order.provider, self._order.facts
        withholds = facts.is_stream and provider.injects_usage and not facts.asks_usage
        reader = self._order.endpoint.stream_reader(withholds_usage=withholds)
        self._read_so_far = reader.reading
        self._is_event_stream = answer.is_event_stream or not facts.may_stream_array
        headers = [(n, v) for n, v in self._passed_headers(answer) if n != b"cache-control"]
        headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        self._start(answer.status, headers)
        cover = make_cover(self._services, self._order, reader)
        broken: str | None = None
        rest = beginning = b""
        try:
            rest = await self._pass_events(answer, reader, cover)
        except UpstreamError as error:
            broken = f"{provider.name} broke off: {error}"
        except EventTooLargeError as error:
            answer.close()  # before anything is waited for, as below
            broken = f"{provider.name} was broken off: {error}"
            if isinstance(error, PileTooLargeError):
                beginning = error.beginning
        except NotCoveredError as refusal:
            self._ending.end(reader.reading(), refusal.reason)
            answer.close()  # before anything is waited for: what is generated now nobody pays for
            await self._finish_broken(refusal.error, refusal.beginning)
            return
        if broken is not None:
            rest = reader.events.finish() if cover is None else cover.finish()
        reading = reader.reading()
        if broken is None and not (reader.is_complete or reading.has_error):
            broken = f"{provider.name} ended the stream before the answer was complete"
        if broken is None or reader.is_over:
            self._ending.end(reading)
            self._attempts.note_end(reading)
            await self._finish(beginning + rest)
        else:
            self._ending.end(reading, broken)
            self._attempts.note_broken(broken)
            await self._finish_broken(self._interrupted(broken), beginning)

    async def _pass_events(
        self, answer: Answer, reader: StreamReader, cover: Cover | None
    ) -> bytes:
        """Pass events on, each only when the hold covers what has been generated.

        Returns what is left for the end, which must not leave before the hold's own end.

        Raises:
            UpstreamError: the provider broke off.
            EventTooLargeError: it sends what must not be kept.
            NotCoveredError: the hold cannot grow any more.
        """
        while True:
            chunk = await self.times.next_chunk(answer.next_chunk())
            if cover is not None:
                passed = cover.read(chunk)
                if cover.is_outgrown:
                    await cover.require()
            else:
                passed = reader.events.finish() if chunk is None else reader.events.feed(chunk)
            if chunk is None:
                return passed
            if reader.is_over:
                self._ending.end(reader.reading())
                cover = None  # what follows the last word counts for nothing
            if passed:
                await self._pass(passed)
            if not self.times.is_noted:
                self.note_seen()

    async def _relay_plain(self, answer: Answer) -> None:
        """Pass a plain answer on, metered before it is sent; while, when large or without usage."""
        parts: list[bytes] = []
        size = 0
        not_covered = await self._hold_plain()
        try:
            while (chunk := await self.times.next_chunk(answer.next_chunk())) is not None:
                parts.append(chunk)
                size += len(chunk)
                if size > PLAIN_BYTES_MAX or self._order.facts.tokens_untold is not None:
                    await self._relay_large(answer, parts, not_covered)
                    return
        except UpstreamError as error:
            what = "broke off its answer"
            self._attempts.note_broken(f"{what}: {error}")
            raise unreachable(self._order, what, error, should_retry=False) from error
        body = b"".join(parts)
        self._note_start(answer.status)
        reading = self._order.endpoint.read_answer(body)
        self._attempts.note_end(reading)
        cost = self._ending.end(reading, not_covered)
        headers = self._passed_headers(answer)
        headers.append((b"content-length", b"%d" % len(body)))
        headers.append((b"x-llmproxy-cost-usd", format_usd(cost).encode()))
        self._start(answer.status, headers)
        await self._finish(body)

    async def _hold_plain(self) -> str | None:
        """Hold in full a plain answer to a request for a stream; return why not, if not all is.

        It goes on all the same: it has been generated, and is charged as far as the credit goes.
        """
        growing = make_growing(self._services, self._order)
        if growing is None:
            return None
        what = f"{self._order.provider.name} sent one piece where a stream was asked for"
        try:
            is_covered = await growing.hold_all()
        except DatabaseError as error:
            _log.warning("%s: %s: %s", self._order.request_id, what, error)
            is_covered = False
        return None if is_covered else f"{what}, and it could not be held in full"

    async def _relay_large(
        self, answer: Answer, parts: list[bytes], not_covered: str | None
    ) -> None:
        """Pass a large plain answer on as it comes, its last chunk only after settling."""
        large, endpoint = LargeAnswer(), self._order.endpoint
        # As it is when asked.
        self._read_so_far = lambda: Reading(seen_bytes=large.seen_bytes(endpoint))
        self._start(answer.status, self._passed_headers(answer))
        last = b"".join(parts)
        large.feed(last)
        try:
            while (chunk := await self.times.next_chunk(answer.next_chunk())) is not None:
                await self._pass(last)
                if not self.times.is_noted:
                    self.note_seen()
                last = chunk
                large.feed(chunk)
        except UpstreamError as error:
            reason = f"{self._order.provider.name} broke off: {error}"
            self._ending.end(self._read_so_far(), reason)
            self._attempts.note_broken(reason)
            self._client.abort()  # no error can be told inside a JSON body; a clean end would lie
            return
        reading = large.reading(endpoint)
        self._attempts.note_end(reading)
        self._ending.end(reading, not_covered)
        await self._finish(last)

    async def _pass_on_error(self, answer: Answer, beginning: bytes) -> None:
        """Pass the provider's own error on, without what it tells of the operator's account."""
        self._note_start(answer.status)
        self._ending.release(f"the provider answered {answer.status}")
        headers = without_ids(self._passed_headers(answer))
        body = MaskedBody(self._attempts.secret)
        passed = body.feed(beginning)
        try:
            chunk = await self.times.next_chunk(answer.next_chunk())
        except UpstreamError:
            chunk = None  # an error cut short is still that error
        if chunk is None:
            passed += body.finish()
            headers.append((b"content-length", b"%d" % len(passed)))
            self._start(answer.status, headers)
            await self._finish(passed)
            return
        self._start(answer.status, headers)
        while chunk is not None:
            await self._pass(passed)
            passed = body.feed(chunk)
            try:
                chunk = await self.times.next_chunk(answer.next_chunk())
            except UpstreamError:
                self._client.abort()
                return
        await self._finish(passed + body.finish())

    def _passed_headers(self, answer: Answer) -> Headers:
        headers = to_client(answer.headers, self._attempts.secret)
        headers.append((b"x-llmproxy-request-id", self._order.request_id.encode()))
        quote = self._order.quote
        if quote is not None and quote.fitted_max is not None:
            headers.append((b"x-llmproxy-max-tokens", b"%d" % quote.fitted_max))
        if self._order.entry is not None:
            headers += self._order.entry.headers()
        return headers

    def _note_start(self, status: int) -> None:
        self._ending.status = status
        if self._ending.ttfb_ms is None:
            self._ending.ttfb_ms = self.times.elapsed_ms()

    def _start(self, status: int, headers: Headers) -> None:
        self._note_start(status)
        self._client.start(status, headers)

    async def _pass(self, body: bytes, *, more: bool = True) -> None:
        """Send on what the client still wants; it has the stall timeout for each piece of it."""
        for start in range(0, len(body) or 1, SENT_BYTES_MAX):
            if self._client.is_gone():
                return  # read on: the provider bills what it generates
            if self._client.is_full:
                self.times.begin_sending()
                await self._client.drained()
                self.times.end_sending()
            end = start + SENT_BYTES_MAX
            self._client.write(body[start:end], more=more or end < len(body))

    async def _finish(self, body: bytes) -> None:
        await self._pass(body, more=False)

    async def _finish_broken(self, error: ApiError, beginning: bytes = b"") -> None:
        """End a stream that must not look complete: told in it, or where it cannot be, hung up.

        Before that passes the beginning of what was read last, as far as it may.
        """
        if beginning:
            await self._pass(beginning)
        if not self._is_event_stream:
            self._client.abort()
            return
        event = error.event(self._order.request_id, self._order.dialect)
        await self._finish(b"\n\n" + event)  # which ends whatever the provider had begun

    async def _after_cut(self, reason: str) -> None:
        """End what was cut: settle, and tell the client of it, unless that is its own doing."""
        if self._is_failure and not self._ending.has_ended:
            self._attempts.note_broken(reason)
        if self._ending.has_ended:
            self._client.abort()
        elif self._is_abandoned:
            self._ending.end_abandoned(self._read_so_far(), reason)
        elif self._is_event_stream:
            self._ending.end(self._read_so_far(), reason)
            await self._finish_broken(self._interrupted(reason))
        elif self._client.has_started:
            self._ending.end(self._read_so_far(), reason)
            self._client.abort()  # as in _relay_large
        else:
            self._ending.status = 504
            self._ending.release(reason)
            raise proxy_error(
                504, reason, self._order.request_id, code="upstream_timeout", should_retry=False
            )

    def _interrupted(self, what: str) -> ApiError:
        return proxy_error(502, what, self._order.request_id, code="upstream_interrupted")
