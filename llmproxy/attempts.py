"""Owns getting an answer: which key is tried, and what a refusal means for it and for the client.

Another key is tried only where nothing was generated (reference wire.md E). What a refusal says
is read by `dialects/failures.py`, what it does to keys and providers is up to `health.py`. Must not
touch money.
"""

import logging
from collections.abc import Callable

from llmproxy.dialects.base import Reading
from llmproxy.dialects.failures import Failure, FailureKind, classify
from llmproxy.errors import (
    ApiError,
    all_keys_cooling,
    no_active_provider_keys,
    previous_response_unavailable,
    proxy_error,
)
from llmproxy.headers import Headers, to_provider
from llmproxy.health import NO_TRIAL, Trial
from llmproxy.key_states import Tried
from llmproxy.live_keys import LiveKey
from llmproxy.order import Order, Services
from llmproxy.presets import root_url
from llmproxy.quote import with_counted_max
from llmproxy.settlement import Ending
from llmproxy.upstream_connection import Answer, UpstreamError
from llmproxy.watchdog import Times

ATTEMPTS_MAX = 3
ERROR_BYTES_MAX = 64 * 1024
"""As much of an error answer is read before anything is decided."""

STATUSES = range(200, 600)
"""Others are no end of an HTTP request, or none that a client could be told."""

_log = logging.getLogger("llmproxy.relay")


class ClientLeftError(Exception):
    """The client left before its request was sent: it need not be sent any more."""


class Attempts:
    """The tries of one request to get an answer."""

    def __init__(self, services: Services, order: Order, times: Times, ending: Ending) -> None:
        """Take the admitted request; `obtain` does the work."""
        self._services = services
        self._order = order
        self._times = times
        self._ending = ending
        self.secret = ""
        """The provider key that was tried last: it must not reach the client."""
        self._tried: Tried | None = None
        self._trial: Trial = NO_TRIAL

    async def obtain(self, is_client_gone: Callable[[], bool]) -> tuple[Answer, bytes]:
        """Send the request; return its answer, and the beginning of one that is an error.

        Raises:
            ApiError: no answer could be had, and nothing was generated.
            ClientLeftError: the client has left, and nothing is under way.
        """
        body = await self._body()
        order, health = self._order, self._services.health
        refusal = health.refusal(order.provider.name, order.scope)
        if refusal is not None:
            raise refusal  # it has begun to fail since the request was admitted
        self._trial = health.begin(order)
        try:
            return await self._obtain(body, is_client_gone)
        finally:
            for breaker, pause in self._trial.items():
                breaker.end_trial(pause)

    async def _obtain(
        self, body: bytes, is_client_gone: Callable[[], bool]
    ) -> tuple[Answer, bytes]:
        refusals: list[ApiError] = []
        for key in self._order.keys:
            if self._ending.attempts == ATTEMPTS_MAX:
                break
            if is_client_gone():
                raise ClientLeftError
            got = self._out_of_use(key) or await self._try(key, body)
            if not isinstance(got, ApiError):
                return got
            refusals.append(got)
        raise self._last_word(refusals)

    def note_end(self, reading: Reading) -> None:
        """Take note that an answer has come to its end; one that ends in an error is no good one.

        Nor is that a failure: such as a call of a tool that cannot be read is the client's doing.
        """
        if not reading.has_error:
            self._services.health.note_end(self._order)

    def note_broken(self, reason: str) -> None:
        """Take note that an answer has not come to its end, and that this is the provider's doing.

        No request is a trial any more when its answer has begun: that has gone well.
        """
        if self._tried is not None:
            self._services.health.note_unanswered(self._order, self._tried, self._trial, reason, 0)

    def _out_of_use(self, key: LiveKey) -> ApiError | None:
        """Return what to say of a key that must not be tried any more, if that is so.

        While another one was tried, the operator or another request has had a word on it.
        """
        order, now_ms = self._order, self._services.clock.now_ms()
        if not key.is_in_service(now_ms):
            return self._no_key()
        wait_ms = key.rest_left_ms(order.scope, now_ms)
        return all_keys_cooling(order.provider.name, wait_ms) if wait_ms else None

    async def _try(self, key: LiveKey, body: bytes) -> tuple[Answer, bytes] | ApiError:
        """Send the request with one key; return its answer, or why to try another key.

        Raises:
            ApiError: no other key would do better.
        """
        order = self._order
        self._ending.begin_attempt()
        tried = self._tried = Tried.now(key)
        self._ending.provider_key_id = key.id
        self.secret = key.secret
        headers = to_provider(order.headers, order.dialect, key.secret, order.facts.content_type)
        answer = await self._send(order.upstream_path, headers, body, tried)
        self._ending.upstream_status = answer.status
        if answer.status not in STATUSES:
            answer.close()
            error = UpstreamError(f"status {answer.status}", was_sent=True)
            what = f"answered with status {answer.status}"
            raise unreachable(order, what, error, should_retry=False)
        if answer.status < 300:
            self._services.health.note_answer(order, tried, self._trial)
            self._require_readable(answer)
            return answer, b""
        try:
            error_body = await self._read_error(answer)
            refusal = self._consequence(answer, error_body, tried)
        except BaseException:
            answer.close()
            raise
        if refusal is None:
            self._require_readable(answer)
            return answer, error_body
        answer.close()
        return refusal

    async def _body(self) -> bytes:
        return await self._services.bodies.run(self._order.body, self._written_body)

    def _written_body(self) -> bytes:
        """Return the client's own body, with what must be written into it."""
        order, endpoint, body = self._order, self._order.endpoint, self._order.body
        if order.quote is not None:
            body = with_counted_max(body, endpoint, order.quote)
        return endpoint.upstream_body(body, order.facts, injects_usage=order.provider.injects_usage)

    async def _send(self, path: str, headers: Headers, body: bytes, tried: Tried) -> Answer:
        provider = self._order.provider
        self._times.begin_waiting()
        try:
            return await self._services.upstream.post(
                root_url(provider.dialect, provider.base_url),
                path,
                headers,
                body,
                self._ending.note_sent,
            )
        except UpstreamError as error:
            order, health = self._order, self._services.health
            if error.was_sent:
                what = "broke off before answering"
                health.note_unanswered(order, tried, self._trial, f"{what}: {error}", 0)
            else:
                what = "cannot be reached"
                if not error.is_ours:
                    health.note_unreachable(order, self._trial, str(error))
            # Once sent it may have been billed: sending it again could pay twice.
            raise unreachable(order, what, error, should_retry=not error.was_sent) from error
        finally:
            self._times.end_waiting()

    def _require_readable(self, answer: Answer) -> None:
        """Refuse what is compressed though nobody asked for it (wire.md A.10, security.md S10).

        Its usage could not be read as it passes, nor our key be found in it.
        """
        codings = [value for name, value in answer.headers if name == b"content-encoding"]
        if all(coding.lower() in {b"", b"identity"} for coding in codings):
            return
        answer.close()
        error = UpstreamError("a content-encoding", was_sent=True)
        what = "answered in an encoding that was not asked for"
        raise unreachable(self._order, what, error, should_retry=False)

    async def _read_error(self, answer: Answer) -> bytes:
        """Return the beginning of an error's body, whole unless it is very long."""
        parts: list[bytes] = []
        size = 0
        try:
            while size < ERROR_BYTES_MAX:
                chunk = await self._times.next_chunk(answer.next_chunk())
                if chunk is None:
                    break
                parts.append(chunk)
                size += len(chunk)
        except UpstreamError:
            pass  # an error cut short is still that error
        return b"".join(parts)

    def _consequence(self, answer: Answer, body: bytes, tried: Tried) -> ApiError | None:
        """Let the answer do to the key and the provider what it asks for.

        Returns what to say if no other key is left, or None when the provider's own words go to
        the client.
        """
        order, health = self._order, self._services.health
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers
        }
        now_ms = self._services.clock.now_ms()
        failure = classify(
            answer.status, headers, body[:ERROR_BYTES_MAX], now_ms, secret=tried.key.secret
        )
        # That what is free is overloaded says nothing of what is paid for.
        if failure.kind is FailureKind.BUSY and not order.endpoint.is_free:
            health.note_busy(order, tried, self._trial, failure, answer.status)
        elif failure.kind is FailureKind.UNKNOWN:
            health.note_unanswered(order, tried, self._trial, failure.excerpt, answer.status)
        else:
            health.note_refusal(order, tried, self._trial, failure, answer.status)
        if answer.status < 400:
            error = UpstreamError(f"redirect {answer.status}", was_sent=True)
            raise unreachable(order, "answered with a redirect", error, should_retry=False)
        return self._what_to_say(failure, tried.key)

    def _what_to_say(self, failure: Failure, key: LiveKey) -> ApiError | None:
        """Return what a client is told of a refusal about the key, None for others."""
        order, name = self._order, self._order.provider.name
        if failure.kind is FailureKind.COOLDOWN:
            now_ms = self._services.clock.now_ms()
            return all_keys_cooling(name, key.rest_left_ms(order.scope, now_ms))
        if failure.kind is FailureKind.UNFIT:
            what = f"no key of {name} has the rights, or the credit, that this request needs there"
            return self._refused(what, should_retry=False)
        if failure.kind in {FailureKind.DEAD, FailureKind.OUT_OF_QUOTA, FailureKind.SUSPECT}:
            return self._no_key()
        return None

    def _refused(self, what: str, *, should_retry: bool) -> ApiError:
        return proxy_error(
            503,
            what,
            self._order.request_id,
            code="upstream_keys_refused",
            should_retry=should_retry,
        )

    def _last_word(self, refusals: list[ApiError]) -> ApiError:
        """Return what to say when each key was refused, or out of use before it was tried."""
        resting = [refusal for refusal in refusals if refusal.retry_after_s is not None]
        if resting:
            return min(resting, key=lambda refusal: refusal.retry_after_s or 0)
        untried = len(self._order.keys) - len(refusals)
        if untried:
            what = (
                f"{self._order.provider.name} refused {self._ending.attempts} of its keys, "
                f"{untried} more were not tried"
            )
            return self._refused(what, should_retry=True)
        return refusals[-1]

    def _no_key(self) -> ApiError:
        """Return what to say when the keys that there were are out of service."""
        if self._order.only_key_id is not None:
            return previous_response_unavailable()
        return no_active_provider_keys(self._order.provider.name)


def unreachable(order: Order, what: str, error: UpstreamError, *, should_retry: bool) -> ApiError:
    """Return the 502 for a provider that gave no answer, and log why."""
    name = order.provider.name
    _log.warning("%s: %s %s: %s", order.request_id, name, what, error)
    return proxy_error(
        502,
        f"{name} {what}",
        order.request_id,
        code="upstream_unreachable",
        should_retry=should_retry,
    )
