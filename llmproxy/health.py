"""Owns what the providers' answers do to their keys, and to providers that fail.

Each change counts in memory at once, and is then written with its history. What an answer means is
read by `dialects/failures.py`; a doubt is settled by asking the provider ourselves (`probe.py`), so
that nothing in a client's request can take a key or a provider out. Must not touch money.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from llmproxy import key_pool
from llmproxy.breaker import Breaker
from llmproxy.clock import Clock
from llmproxy.dialects.failures import Failure, FailureKind
from llmproxy.errors import ApiError, provider_failing
from llmproxy.key_pool import Provider
from llmproxy.live_keys import LiveKey
from llmproxy.probe import Probe
from llmproxy.storage.database import Tx

PROVIDER_PAUSE_MS_MAX = 300_000
SCOPE_PAUSE_MS_MAX = 60_000
OUT_OF_QUOTA_PARK_MS = 3_600_000
"""How long a key without quota is left alone before the next request tries it again."""
ASK_AGAIN_MS = 30_000
"""A key is not asked about more often, whatever requests fail with it."""

NEVER = 2**63
UNREACHABLE = "it cannot be reached"
FAILS = "it fails"
ACTOR = "proxy"

_log = logging.getLogger("llmproxy.relay")

Ask = Callable[[Provider, str], Awaitable[Probe]]
"""Asks a provider, with the secret of one of its keys, whether it answers."""


class Tried(NamedTuple):
    """A key that is tried, and the state that it had then: only that may the answer change."""

    key: LiveKey
    state: str


class Attempted(Protocol):
    """What is known of a request that is sent: see `Order`."""

    @property
    def provider(self) -> Provider:
        """The provider as it was when the request was admitted."""

    @property
    def scope(self) -> str:
        """What its rate is limited by."""


class Enqueue(Protocol):
    """Queues a write that must happen."""

    def __call__(self, function: Callable[..., object], *args: object) -> None:
        """Queue `function(tx, *args)`."""


class Health:
    """The states of all keys and providers, as requests find them and change them."""

    def __init__(self, enqueue: Enqueue, clock: Clock, ask: Ask, failures_max: int) -> None:
        """Take where writes go, and how many failures in a row pause a provider; 0: none do."""
        self._enqueue = enqueue
        self._clock = clock
        self._ask = ask
        self._failures_max = failures_max
        self._breakers: dict[tuple[str, str], Breaker] = {}
        """Of what has failed lately: a provider (with an empty scope), or one scope of it."""
        self._asked_ms: dict[int, int] = {}
        self._asking: set[asyncio.Task[None]] = set()

    def publish(self, providers: Iterable[Provider]) -> None:
        """Take note of pauses that an earlier process has left, and of those that are ended."""
        for provider in providers:
            breaker = self._breakers.get((provider.name, ""))
            if breaker is None and provider.paused_at_ms and provider.paused_until_ms:
                breaker = self._breaker(provider.name, "")
                breaker.go_on(provider.paused_at_ms, provider.paused_until_ms, FAILS)
            elif breaker is not None and breaker.is_stored and not provider.paused_at_ms:
                self._forget(provider.name)

    # --- before a request is sent ------------------------------------------------------------

    def refusal(self, provider: str, scope: str) -> ApiError | None:
        """Return what to say of a request that must not be sent now, None when it may."""
        if not self._breakers:
            return None
        now_ms = self._clock.now_ms()
        for breaker in self._concerned(provider, scope):
            wait_ms = breaker.wait_ms(now_ms)
            if wait_ms:
                return provider_failing(provider, breaker.reason, wait_ms)
        return None

    def begin(self, sent: Attempted) -> Sequence[Breaker]:
        """Return what the request is a trial of; `end_trial` of each must be called at its end."""
        if not self._breakers:
            return ()
        concerned = self._concerned(sent.provider.name, sent.scope)
        return [breaker for breaker in concerned if breaker.begin()]

    def is_paused(self, provider: Provider) -> bool:
        """Say whether nothing is sent to a provider at this moment."""
        breaker = self._breakers.get((provider.name, ""))
        fails = breaker is not None and breaker.wait_ms(self._clock.now_ms()) > 0
        return provider.is_paused_by_operator or fails

    def _concerned(self, provider: str, scope: str) -> list[Breaker]:
        found = [self._breakers.get((provider, "")), self._breakers.get((provider, scope))]
        return [breaker for breaker in found if breaker is not None]

    # --- what came of it ---------------------------------------------------------------------

    def note_answer(self, sent: Attempted, tried: Tried, trial: Sequence[Breaker]) -> None:
        """Take note that the provider has answered as it should."""
        tried.key.note_answer(sent.scope, self._clock.now_ms())
        if tried.state == "out_of_quota":
            self._set_key_state(tried, _State("active"))
        self.note_life(sent, trial)

    def note_life(self, sent: Attempted, trial: Sequence[Breaker]) -> None:
        """Take note that the provider is there, whatever it thinks of the request or the key."""
        if not self._breakers:
            return
        name = sent.provider.name
        for key in ((name, ""), (name, sent.scope)):
            breaker = self._breakers.get(key)
            # While it is paused only the trial counts: what was sent before may still be answered.
            if breaker is None or (breaker.is_open and breaker not in trial):
                continue
            del self._breakers[key]
            if breaker.is_open and not key[1]:
                self._resume(name)

    def note_refusal(self, sent: Attempted, tried: Tried, failure: Failure, status: int) -> None:
        """Do to the key what the provider's refusal asks for."""
        if failure.kind is FailureKind.DEAD:
            self._take_out(sent.provider, tried, _State("dead", failure.excerpt, status))
        elif failure.kind is FailureKind.OUT_OF_QUOTA:
            until_ms = self._clock.now_ms() + OUT_OF_QUOTA_PARK_MS
            state = _State("out_of_quota", failure.excerpt, status, until_ms)
            self._take_out(sent.provider, tried, state)
        elif failure.kind is FailureKind.COOLDOWN:
            told_s = failure.retry_after_s
            told_ms = None if told_s is None else told_s * 1000
            tried.key.rest(sent.scope, self._clock.now_ms(), told_ms)
        elif failure.kind is FailureKind.SUSPECT:
            self._ask_about(sent.provider, tried, partial(self._judge_key, sent.provider, tried))

    def note_unreachable(self, sent: Attempted, error: str) -> None:
        """Count that there was no connection to the provider: no client can cause that."""
        breaker = self._breaker(sent.provider.name, "")
        if breaker.count(self._clock.now_ms()):
            self._pause(sent.provider.name, breaker, UNREACHABLE, error, None)

    def note_busy(self, sent: Attempted, failure: Failure, status: int) -> None:
        """Count that the provider has too much to do: this scope is left alone, no key is."""
        breaker = self._breaker(sent.provider.name, sent.scope)
        now_ms = self._clock.now_ms()
        if not breaker.count(now_ms):
            return
        reason = f"it is overloaded ({status}) for {sent.scope}"
        breaker.pause(now_ms, reason, (failure.retry_after_s or 0) * 1000)
        left_alone_s = breaker.pause_ms // 1000
        _log.warning("%s: %s; left alone for %d s", sent.provider.name, reason, left_alone_s)

    def note_unanswered(self, sent: Attempted, tried: Tried, error: str, status: int) -> None:
        """Count a failure that may be due to what was asked: after some, the provider is asked.

        Args:
            sent: the request.
            tried: the key that it was sent with.
            error: what happened, for the operator.
            status: the provider's HTTP status, 0 when none came.
        """
        breaker = self._breaker(sent.provider.name, "")
        if breaker.count(self._clock.now_ms()):
            judge = partial(self._judge_provider, sent.provider.name, breaker, error, status)
            self._ask_about(sent.provider, tried, judge)

    def _breaker(self, provider: str, scope: str) -> Breaker:
        breaker = self._breakers.get((provider, scope))
        if breaker is None:
            longest_ms = SCOPE_PAUSE_MS_MAX if scope else PROVIDER_PAUSE_MS_MAX
            breaker = Breaker(self._failures_max or NEVER, longest_ms)
            self._breakers[provider, scope] = breaker
        return breaker

    def _forget(self, provider: str) -> None:
        """Begin anew with a provider and all its scopes."""
        for key in [key for key in self._breakers if key[0] == provider]:
            del self._breakers[key]

    # --- asking the provider itself ----------------------------------------------------------

    def _ask_about(self, provider: Provider, tried: Tried, judge: Callable[[Probe], None]) -> None:
        """Ask a provider whether it answers to a key, and let that be judged."""
        now_ms, key = self._clock.now_ms(), tried.key
        if now_ms - self._asked_ms.get(key.id, -ASK_AGAIN_MS) < ASK_AGAIN_MS:
            return
        self._asked_ms[key.id] = now_ms

        async def ask() -> None:
            judge(await self._ask(provider, key.secret))

        task = asyncio.get_running_loop().create_task(ask())
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def _judge_key(self, provider: Provider, tried: Tried, probe: Probe) -> None:
        if probe.refuses_key:
            del self._asked_ms[tried.key.id]  # enabled again, it is to be asked about again
            self._take_out(provider, tried, _State("dead", probe.message, probe.status))

    def _judge_provider(
        self, name: str, breaker: Breaker, error: str, status: int, probe: Probe
    ) -> None:
        if self._breakers.get((name, "")) is not breaker:
            return  # it has answered others meanwhile
        if probe.is_down:
            self._pause(name, breaker, FAILS, error, status or None)
            return
        self._forget(name)
        if breaker.is_open:
            self._resume(name)

    def close(self) -> None:
        """Ask no more."""
        for task in self._asking:
            task.cancel()

    # --- what is written ---------------------------------------------------------------------

    def _pause(
        self, name: str, breaker: Breaker, reason: str, error: str, status: int | None
    ) -> None:
        """Pause a provider: users are told the reason, the operator also what happened."""
        now_ms = self._clock.now_ms()
        breaker.pause(now_ms, reason)
        _log.warning("%s is paused for %d s: %s: %s", name, breaker.pause_ms // 1000, reason, error)
        self._enqueue(_write_pause, breaker, name, f"{reason}: {error}", status, now_ms)

    def _resume(self, name: str) -> None:
        _log.warning("%s answers again", name)
        self._enqueue(self._write_resume, name)

    def _write_resume(self, tx: Tx, name: str) -> None:
        provider = key_pool.find_provider(tx, name)
        if provider is None or provider.is_paused_by_operator:
            return
        reason = "it answers again"
        now_ms = self._clock.now_ms()
        key_pool.resume_provider(tx, name, actor=ACTOR, now_ms=now_ms, reason=reason)
        breaker = self._breakers.get((name, ""))
        if breaker is not None and breaker.is_stored:
            # Taken from the database meanwhile, which knew no better.
            del self._breakers[name, ""]

    def _take_out(self, provider: Provider, tried: Tried, state: "_State") -> None:
        _log.warning(
            "provider key %s of %s is now %s: %s",
            *(tried.key.name, provider.name, state.name, state.reason),
        )
        self._set_key_state(tried, state)

    def _set_key_state(self, tried: Tried, state: "_State") -> None:
        key = tried.key
        if key.state != tried.state:
            return  # while this attempt ran, another one or the operator has had a newer word
        # In memory at once; again when it is written, should an older state be read meanwhile.
        key.state, key.until_ms = state.name, state.until_ms
        self._enqueue(_write_key_state, tried, state, self._clock.now_ms())


class _State(NamedTuple):
    """A state that a key gets, why, by what HTTP status, and until when."""

    name: str
    reason: str | None = None
    upstream_status: int | None = None
    until_ms: int | None = None


def _write_key_state(tx: Tx, tried: Tried, state: _State, now_ms: int) -> None:
    key = tried.key
    is_changed = key_pool.set_key_state(
        tx,
        key.id,
        state.name,
        reason=state.reason,
        actor=ACTOR,
        now_ms=now_ms,
        until_ms=state.until_ms,
        upstream_status=state.upstream_status,
        only_from=tried.state,
    )
    if is_changed:
        key.state, key.until_ms = state.name, state.until_ms


def _write_pause(
    tx: Tx, breaker: Breaker, name: str, reason: str, status: int | None, now_ms: int
) -> None:
    if key_pool.find_provider(tx, name) is None:
        return  # removed meanwhile
    key_pool.pause_provider(
        tx,
        name,
        reason=reason,
        actor=ACTOR,
        now_ms=now_ms,
        until_ms=breaker.until_ms,
        upstream_status=status,
    )
    breaker.is_stored = True
