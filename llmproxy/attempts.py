"""Owns getting an answer: which key is tried, and what a refusal means for it and for the client.

Another key is tried only where nothing was generated (reference wire.md E). What a refusal says
about the key is read by `dialects/failures.py`. Must not touch money.
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

from llmproxy import key_pool
from llmproxy.dialects.failures import FailureKind, classify
from llmproxy.errors import ApiError, no_active_provider_keys, proxy_error
from llmproxy.headers import Headers, to_provider, without_secret
from llmproxy.live_keys import LiveKey
from llmproxy.order import Order, Services
from llmproxy.quote import with_counted_max
from llmproxy.settlement import Ending
from llmproxy.storage.database import Tx
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

    async def obtain(self, is_client_gone: Callable[[], bool]) -> tuple[Answer, bytes]:
        """Send the request; return its answer, and the beginning of one that is an error.

        Raises:
            ApiError: no answer could be had, and nothing was generated.
            ClientLeftError: the client has left, and nothing is under way.
        """
        body = await self._body()
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

    def _out_of_use(self, key: LiveKey) -> ApiError | None:
        """Return what to say of a key that must not be tried any more, if that is so.

        While another one was tried, the operator or another request has had a word on it.
        """
        order, now_ms = self._order, self._services.clock.now_ms()
        if not key.is_in_service(now_ms):
            return no_active_provider_keys(order.provider.name)
        wait_ms = key.cooldown_left_ms(order.model_id, now_ms)
        return all_keys_cooling(order.provider.name, wait_ms) if wait_ms else None

    async def _try(self, key: LiveKey, body: bytes) -> tuple[Answer, bytes] | ApiError:
        """Send the request with one key; return its answer, or why to try another key.

        Raises:
            ApiError: no other key would do better.
        """
        order = self._order
        self._ending.begin_attempt()
        tried = _Tried(key, key.state)
        self._ending.provider_key_id = key.id
        self.secret = key.secret
        headers = to_provider(order.headers, order.provider.dialect, key.secret)
        answer = await self._send(order.endpoint.upstream_path + order.query, headers, body)
        self._ending.upstream_status = answer.status
        if answer.status not in STATUSES:
            answer.close()
            error = UpstreamError(f"status {answer.status}", was_sent=True)
            what = f"answered with status {answer.status}"
            raise unreachable(order, what, error, should_retry=False)
        if answer.status < 300:
            self._require_readable(answer)
            self._confirm(tried)
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

    async def _send(self, path: str, headers: Headers, body: bytes) -> Answer:
        self._times.begin_waiting()
        try:
            return await self._services.upstream.post(
                self._order.provider.base_url, path, headers, body, self._ending.note_sent
            )
        except UpstreamError as error:
            what = "broke off before answering" if error.was_sent else "cannot be reached"
            # Once sent it may have been billed: sending it again could pay twice.
            raise unreachable(self._order, what, error, should_retry=not error.was_sent) from error
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

    def _consequence(self, answer: Answer, body: bytes, tried: "_Tried") -> ApiError | None:
        """Do to the key what the answer asks for.

        Returns what to say if no other key is left, or None when the provider's own words go to
        the client.
        """
        order = self._order
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers
        }
        # Masked before anything of it is kept or logged.
        key = tried.key
        masked = without_secret(body[:ERROR_BYTES_MAX], key.secret)
        now_ms = self._services.clock.now_ms()
        failure = classify(answer.status, headers, masked, now_ms)
        if failure.kind is FailureKind.COOLDOWN:
            wait_s = failure.retry_after_s
            key.cooling_until_ms[order.model_id] = now_ms + wait_s * 1000
            return all_keys_cooling(order.provider.name, wait_s * 1000)
        if failure.kind is FailureKind.DEAD:
            self._take_out(tried, "dead", failure.excerpt, None)
            return no_active_provider_keys(order.provider.name)
        if failure.kind is FailureKind.OUT_OF_QUOTA:
            until_ms = now_ms + key_pool.OUT_OF_QUOTA_PARK_MS
            self._take_out(tried, "out_of_quota", failure.excerpt, until_ms)
            return no_active_provider_keys(order.provider.name)
        if answer.status < 400:
            error = UpstreamError(f"redirect {answer.status}", was_sent=True)
            raise unreachable(order, "answered with a redirect", error, should_retry=False)
        return None

    def _last_word(self, refusals: list[ApiError]) -> ApiError:
        """Return what to say when each key was refused, or out of use before it was tried."""
        resting = [refusal for refusal in refusals if refusal.retry_after_s is not None]
        if resting:
            return min(resting, key=lambda refusal: refusal.retry_after_s or 0)
        untried = len(self._order.keys) - len(refusals)
        if untried:
            return proxy_error(
                503,
                f"{self._order.provider.name} refused {self._ending.attempts} of its keys, "
                f"{untried} more were not tried",
                self._order.request_id,
                code="upstream_keys_refused",
                should_retry=True,
            )
        return refusals[-1]

    def _take_out(self, tried: "_Tried", state: str, reason: str, until_ms: int | None) -> None:
        name = self._order.provider.name
        _log.warning("provider key %s of %s is now %s: %s", tried.key.name, name, state, reason)
        self._set_key_state(tried, state, reason, until_ms)

    def _confirm(self, tried: "_Tried") -> None:
        """Put a parked key back to use that has just been answered."""
        if tried.state == "out_of_quota":
            self._set_key_state(tried, "active", None, None)

    def _set_key_state(
        self, tried: "_Tried", state: str, reason: str | None, until_ms: int | None
    ) -> None:
        key = tried.key
        if key.state != tried.state:
            return  # while this attempt ran, another one or the operator has had a newer word
        # In memory at once; again when it is written, should an older state be read meanwhile.
        key.state, key.until_ms = state, until_ms
        change = _KeyChange(tried, state, reason, until_ms, self._services.clock.now_ms())
        self._services.writer.enqueue(_write_key_state, change)


class _Tried(NamedTuple):
    """A key that is tried, and the state that it had then: only that may the answer change."""

    key: LiveKey
    state: str


class _KeyChange(NamedTuple):
    tried: _Tried
    state: str
    reason: str | None
    until_ms: int | None
    now_ms: int


def _write_key_state(tx: Tx, change: _KeyChange) -> None:
    key = change.tried.key
    is_changed = key_pool.set_key_state(
        tx,
        key.id,
        change.state,
        reason=change.reason,
        actor="proxy",
        now_ms=change.now_ms,
        until_ms=change.until_ms,
        only_from=change.tried.state,
    )
    if is_changed:
        key.state, key.until_ms = change.state, change.until_ms


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


def all_keys_cooling(provider: str, wait_ms: int) -> ApiError:
    """Return the 429 for a provider whose keys are all rate limited for a short while."""
    wait_s = max(1, -(-wait_ms // 1000))
    message = f"Provider {provider} is rate limited. Try again in {wait_s} s."
    return ApiError(429, "rate_limit_exceeded", message, should_retry=None, retry_after_s=wait_s)
