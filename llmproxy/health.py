"""Owns what the providers' answers do to their keys, and to providers that fail.

Each change counts in memory at once, and is then written with its history. What an answer means is
read by `dialects/failures.py`; a doubt is settled by asking the provider ourselves
(`questions.py`), so that nothing in a client's request can take a key or a provider out. Must not
touch money.
"""

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple, Protocol

from llmproxy import key_pool
from llmproxy.breaker import Breaker
from llmproxy.clock import Clock
from llmproxy.dialects.failures import Failure, FailureKind
from llmproxy.errors import ApiError, provider_failing
from llmproxy.key_pool import Provider
from llmproxy.key_states import ACTOR, KeyStates, State, Tried
from llmproxy.live_keys import OUT_OF_QUOTA_PARK_MS
from llmproxy.probe import Probe
from llmproxy.provider_events import OVERLOADED, ProviderEvent, add_event
from llmproxy.questions import Ask, Questions
from llmproxy.storage.database import Tx
from llmproxy.storage.queue import Enqueue

PROVIDER_PAUSE_MS_MAX = 300_000
SCOPE_PAUSE_MS_MAX = 60_000

NEVER = 2**63
UNREACHABLE = "it cannot be reached"
FAILS = "it fails"
ANSWERS = "it answers again"

_log = logging.getLogger("llmproxy.relay")


class Attempted(Protocol):
    """What is known of a request that is sent: see `Order`."""

    @property
    def provider(self) -> Provider:
        """The provider as it was when the request was admitted."""

    @property
    def scope(self) -> str:
        """What its rate is limited by."""


Trial = Mapping[Breaker, int]
"""What a request is a trial of, and of which pause of it: mostly nothing."""
NO_TRIAL: Trial = MappingProxyType({})


class Health:
    """The states of all keys and providers, as requests find them and change them."""

    def __init__(self, enqueue: Enqueue, clock: Clock, ask: Ask, failures_max: int) -> None:
        """Take where writes go, and how many failures in a row pause a provider; 0: none do."""
        self._enqueue = enqueue
        self._clock = clock
        self._questions = Questions(ask)
        self._keys = KeyStates(enqueue, clock)
        self._failures_max = failures_max
        self._breakers: dict[tuple[str, str], Breaker] = {}
        """Of what has failed lately: a provider (with an empty scope), or one scope of it."""
        self._providers: dict[str, Provider] = {}
        """As they are now."""

    def publish(self, providers: Iterable[Provider]) -> None:
        """Take note of pauses that an earlier process has left, and of those that are ended."""
        before, self._providers = self._providers, {one.name: one for one in providers}
        for name, provider in before.items():
            if self._is_outdated(provider):
                self._forget(name)
        for name, provider in self._providers.items():
            if not provider.paused_until_ms or (name, "") in self._breakers:
                continue
            if self._failures_max:
                left_ms = max(0, provider.paused_until_ms - self._clock.now_ms())
                self._breaker(name, "").go_on(self._now_ms(), left_ms, FAILS)
            else:
                self._resume(name, "pause_after_failures is 0 now")

    def _is_elsewhere(self, provider: Provider) -> bool:
        """Say whether a provider has been moved, or removed, since it was known like this."""
        now = self._providers.get(provider.name)
        return now is None or (now.id, now.created_at_ms, now.base_url) != (
            *(provider.id, provider.created_at_ms, provider.base_url),
        )

    def _is_outdated(self, provider: Provider) -> bool:
        """Say the same, or that an operator has resumed it since: what failed counts no more."""
        if self._is_elsewhere(provider):
            return True
        return self._providers[provider.name].resumed_at_ms != provider.resumed_at_ms

    def _now_ms(self) -> int:
        """Return the time by which pauses are counted: a clock that is set moves none."""
        return int(self._clock.monotonic_s() * 1000)

    # --- before a request is sent ------------------------------------------------------------

    def refusal(self, provider: str, scope: str) -> ApiError | None:
        """Return what to say of a request that must not be sent now, None when it may."""
        if not self._breakers:
            return None
        now_ms = self._now_ms()
        for breaker in self._concerned(provider, scope):
            wait_ms = breaker.wait_ms(now_ms)
            if wait_ms:
                return provider_failing(provider, breaker.reason, wait_ms)
        return None

    def begin(self, sent: Attempted) -> Trial:
        """Return what the request is a trial of; `end_trial` of each must be called at its end."""
        if not self._breakers:
            return NO_TRIAL
        now_ms, concerned = self._now_ms(), self._concerned(sent.provider.name, sent.scope)
        return {breaker: pause for breaker in concerned if (pause := breaker.begin(now_ms))}

    def is_paused(self, provider: Provider) -> bool:
        """Say whether nothing is sent to a provider at this moment."""
        breaker = self._breakers.get((provider.name, ""))
        fails = breaker is not None and breaker.wait_ms(self._now_ms()) > 0
        return provider.is_paused_by_operator or fails

    def is_left_alone(self, provider: str) -> bool:
        """Say whether a provider, or a part of it, has failed and is or was paused for it.

        That is known here alone: in the database a provider stands as paused only as a whole.
        """
        return any(
            name == provider and breaker.is_open for (name, _), breaker in self._breakers.items()
        )

    def _concerned(self, provider: str, scope: str) -> list[Breaker]:
        found = [self._breakers.get((provider, "")), self._breakers.get((provider, scope))]
        return [breaker for breaker in found if breaker is not None]

    # --- what came of it ---------------------------------------------------------------------

    def note_answer(self, sent: Attempted, tried: Tried, trial: Trial) -> None:
        """Take note that an answer has begun as it should: a trial has gone well."""
        tried.key.note_answer(sent.scope, self._clock.now_ms())
        if tried.state == "out_of_quota" and not self._is_elsewhere(sent.provider):
            self._keys.put_back(tried)
        if not trial:
            return
        name = sent.provider.name
        for key in ((name, ""), (name, sent.scope)):
            breaker = self._breakers.get(key)
            if breaker is not None and breaker in trial:
                del self._breakers[key]
                if not key[1]:
                    _log.warning("%s answers again", name)
                    self._resume(name, ANSWERS)

    def note_end(self, sent: Attempted) -> None:
        """Take note that a good answer has come to its end: what failed before it is forgotten."""
        if not self._breakers or self._is_outdated(sent.provider):
            return
        for key in ((sent.provider.name, ""), (sent.provider.name, sent.scope)):
            breaker = self._breakers.get(key)
            # What was sent before a pause may still be answered: it says nothing of now.
            if breaker is not None and not (breaker.is_open or breaker.is_asked_about):
                del self._breakers[key]

    def note_refusal(
        self, sent: Attempted, tried: Tried, trial: Trial, failure: Failure, status: int
    ) -> None:
        """Do to the key what the provider's refusal asks for."""
        if self._is_elsewhere(sent.provider):
            return  # what is said there says nothing of here
        self._ask_after_trial(sent, tried, trial)
        if failure.kind is FailureKind.DEAD:
            state = State("dead", failure.excerpt, status)
            self._keys.take_out(sent.provider.name, tried, state)
        elif failure.kind is FailureKind.OUT_OF_QUOTA:
            until_ms = self._clock.now_ms() + OUT_OF_QUOTA_PARK_MS
            state = State("out_of_quota", failure.excerpt, status, until_ms)
            self._keys.take_out(sent.provider.name, tried, state)
        elif failure.kind is FailureKind.COOLDOWN:
            told_s = failure.retry_after_s
            told_ms = None if told_s is None else told_s * 1000
            tried.key.rest(sent.scope, self._clock.now_ms(), told_ms)
        elif failure.kind is FailureKind.SUSPECT:
            judge = partial(self._judge_key, sent.provider, tried)
            asked = (tried.key.id, sent.provider, tried.key.secret)
            self._questions.put(*asked, judge, self._now_ms())

    def note_unreachable(self, sent: Attempted, trial: Trial, error: str) -> None:
        """Count that there was no connection to the provider: no client can cause that."""
        if self._is_outdated(sent.provider):
            return
        breaker = self._breaker(sent.provider.name, "")
        if breaker.count(trial.get(breaker, 0)):
            self._pause(sent.provider.name, breaker, UNREACHABLE, error, None)

    def note_busy(
        self, sent: Attempted, tried: Tried, trial: Trial, failure: Failure, status: int
    ) -> None:
        """Count that the provider has too much to do: this scope is left alone, no key is."""
        if self._is_outdated(sent.provider):
            return
        self._ask_after_trial(sent, tried, trial)
        name, now_ms = sent.provider.name, self._now_ms()
        breaker = self._breaker(name, sent.scope)
        if not breaker.count(trial.get(breaker, 0)):
            return
        breaker.pause(
            now_ms, f"it is overloaded for {sent.scope}", (failure.retry_after_s or 0) * 1000
        )
        reason = f"{sent.scope}: {failure.excerpt}"
        _log.warning("%s is overloaded, %d s for %s", name, breaker.pause_ms // 1000, reason)
        wall_ms = self._clock.now_ms()
        until_ms = wall_ms + breaker.pause_ms
        event = ProviderEvent(name, None, OVERLOADED, reason, status, until_ms, ACTOR, wall_ms)
        self._enqueue(add_event, event)

    def note_unanswered(
        self, sent: Attempted, tried: Tried, trial: Trial, error: str, status: int
    ) -> None:
        """Count a failure that may be due to what was asked: after some, the provider is asked.

        Args:
            sent: the request.
            tried: the key that it was sent with.
            trial: what it was a trial of.
            error: what happened, for the operator.
            status: the provider's HTTP status, 0 when none came.
        """
        if self._is_outdated(sent.provider):
            return
        breaker = self._breaker(sent.provider.name, "")
        if not breaker.count(trial.get(breaker, 0)) or breaker.is_asked_about:
            return
        # A trial that has failed must be judged; other failures can wait for another look.
        breaker.is_asked_about = self._ask_about(
            breaker, sent, tried, error, status, is_urgent=breaker.is_open
        )

    def _ask_after_trial(self, sent: Attempted, tried: Tried, trial: Trial) -> None:
        """Let a provider be asked whose trial has decided nothing.

        Whoever sends what is refused must not be able to use up one trial after the other.
        """
        breaker = self._breakers.get((sent.provider.name, ""))
        if breaker is not None and breaker in trial and not breaker.is_asked_about:
            breaker.is_asked_about = self._ask_about(breaker, sent, tried, "", 0)

    def _breaker(self, provider: str, scope: str) -> Breaker:
        breaker = self._breakers.get((provider, scope))
        if breaker is None:
            longest_ms = SCOPE_PAUSE_MS_MAX if scope else PROVIDER_PAUSE_MS_MAX
            breaker = Breaker(self._failures_max or NEVER, longest_ms)
            self._breakers[provider, scope] = breaker
        return breaker

    def _forget(self, provider: str) -> None:
        """Begin anew with a provider and all its scopes."""
        self._questions.forget(provider)
        for key in [key for key in self._breakers if key[0] == provider]:
            del self._breakers[key]

    # --- asking the provider itself ----------------------------------------------------------

    def _ask_about(
        self,
        breaker: Breaker,
        sent: Attempted,
        tried: Tried,
        error: str,
        status: int,
        *,
        is_urgent: bool = False,
    ) -> bool:
        """Let a provider be asked whether it fails; say if it is."""
        name = sent.provider.name
        judge = partial(self._judge_provider, name, breaker, error, status)
        asked = (name, sent.provider, tried.key.secret)
        return self._questions.put(*asked, judge, self._now_ms(), is_urgent=is_urgent)

    def _judge_key(self, provider: Provider, tried: Tried, found: Probe) -> None:
        if self._is_elsewhere(provider):
            self._questions.forget(tried.key.id)  # nothing is known of where it is used now
        elif found.refuses_key:
            self._questions.forget(tried.key.id)  # enabled again, it is to be asked about again
            state = State("dead", found.message, found.status)
            self._keys.take_out(provider.name, tried, state)

    def _judge_provider(
        self, name: str, breaker: Breaker, error: str, status: int, found: Probe
    ) -> None:
        breaker.is_asked_about = False
        if self._breakers.get((name, "")) is not breaker:
            return  # the operator has had a word, or a trial has been answered meanwhile
        if found.result == "unknown" or breaker.is_paused(self._now_ms()):
            return  # nothing has been found out, or it has been paused since: once is enough
        if found.is_down:
            self._pause(name, breaker, FAILS, error or found.message, status or found.status)
            return
        del self._breakers[name, ""]
        if breaker.is_open:
            _log.warning("%s answers again", name)
            self._resume(name, ANSWERS)

    def close(self) -> None:
        """Ask no more."""
        self._questions.close()

    # --- what is written ---------------------------------------------------------------------

    def _pause(
        self, name: str, breaker: Breaker, reason: str, error: str, status: int | None
    ) -> None:
        """Pause a provider: users are told the reason, the operator also what happened."""
        now_ms = self._clock.now_ms()
        breaker.pause(self._now_ms(), reason)
        _log.warning("%s is paused for %d s: %s: %s", name, breaker.pause_ms // 1000, reason, error)
        pause = _Pause(name, f"{reason}: {error}", status, now_ms, now_ms + breaker.pause_ms)
        self._enqueue(self._write_pause, breaker, pause)

    def _write_pause(self, tx: Tx, breaker: Breaker, pause: "_Pause") -> None:
        is_in_force = self._breakers.get((pause.name, "")) is breaker
        if not is_in_force or key_pool.find_provider(tx, pause.name) is None:
            return  # resumed, or removed, before it came to this
        key_pool.pause_provider(
            tx,
            pause.name,
            reason=pause.reason,
            actor=ACTOR,
            now_ms=pause.at_ms,
            until_ms=pause.until_ms,
            upstream_status=pause.upstream_status,
        )
        breaker.is_stored = True

    def _resume(self, name: str, reason: str) -> None:
        self._enqueue(self._write_resume, name, reason)

    def _write_resume(self, tx: Tx, name: str, reason: str) -> None:
        provider = key_pool.find_provider(tx, name)
        if provider is None or provider.is_paused_by_operator:
            return
        now_ms = self._clock.now_ms()
        key_pool.end_pause(tx, name, actor=ACTOR, now_ms=now_ms, reason=reason)
        breaker = self._breakers.get((name, ""))
        if breaker is not None and breaker.is_stored:
            # Taken from the database meanwhile, which knew no better.
            del self._breakers[name, ""]


class _Pause(NamedTuple):
    """A pause as it is written; times by the clock on the wall."""

    name: str
    reason: str
    upstream_status: int | None
    at_ms: int
    until_ms: int
