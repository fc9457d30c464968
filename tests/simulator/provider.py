"""The providers: what stands in the place of `llmproxy.upstream.Upstream` and its answers."""

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any, cast

from typing_extensions import override

from llmproxy.key_pool import Provider
from llmproxy.probe import Probe
from llmproxy.upstream_connection import Answer, Headers, UpstreamError
from tests.simulator.answers import Event, Manners, Script, Wanted, compose
from tests.simulator.office import MODELS
from tests.simulator.visit import Sent, Visit

VISIT_HEADER = b"x-visit"
READ_BYTES_MAX = 64 * 1024
AT_ONCE_S = 1e-6
"""What is as near as this is now: a timer may ring as much as a nanosecond early."""


class SimulatedProbes:
    """Answers when the proxy itself asks whether a provider is there."""

    def __init__(self, rng: random.Random) -> None:
        """Take what its moods are drawn from."""
        self._rng = rng

    async def __call__(self, provider: Provider, secret: str) -> Probe:
        """See `probe.ask`."""
        await asyncio.sleep(self._rng.choice((0.01, 1.0, 9.0)))
        status = self._rng.choice((200, 401, 500, None))
        return Probe("simulated", status, "a mood", refuses_key=status == 401)


class SimulatedUpstream:
    """Answers every request as its visit's plan says."""

    def __init__(
        self, visits: dict[int, Visit], manners: Manners, on_sent: Callable[[Visit], None]
    ) -> None:
        """Take who may come; `on_sent` looks at the books before a request is answered."""
        self._visits = visits
        self._manners = manners
        self._on_sent = on_sent

    async def post(
        self,
        base_url: str,
        path: str,
        headers: Headers,
        body: bytes,
        on_sending: Callable[[], None],
    ) -> Answer:
        """See `Upstream.post`."""
        visit = self._visits[int(dict(headers)[VISIT_HEADER])]
        sent = Sent()
        visit.sent.append(sent)
        reply = visit.ask.replies[min(len(visit.sent), len(visit.ask.replies)) - 1]
        self._on_sent(visit)
        visit.note(
            f"request {len(visit.sent)} to {base_url.partition('//')[2]}{path}: {reply.kind}"
        )
        if reply.kind != "refused":
            sent.was_connected = True
            on_sending()
        await asyncio.sleep(reply.delay_s)
        if reply.kind == "silent":
            await asyncio.get_running_loop().create_future()
        if reply.kind in {"refused", "dropped"}:
            sent.status = -1
            raise UpstreamError("it is not there", was_sent=reply.kind == "dropped")
        if reply.kind == "error":
            sent.status = reply.status
            error = {"error": {"message": "no", "code": reply.code}, "from": "provider"}
            data = json.dumps(error).encode()
            script = Script(is_stream=False, events=[Event(data)], chunks=[(0.0, data)])
            return self._answer(visit, sent, script, reply.status)
        sent.status = 200
        sent.wanted = _wanted(visit, body)
        sent.script = compose(random.Random(reply.seed), sent.wanted, self._manners)
        return self._answer(visit, sent, sent.script, 200)

    @staticmethod
    def _answer(visit: Visit, sent: Sent, script: Script, status: int) -> Answer:
        kind = b"text/event-stream" if script.is_stream else b"application/json"
        return _Answer(visit, sent, script, status, [(b"content-type", kind)])


def _wanted(visit: Visit, body: bytes) -> Wanted:
    fields: dict[str, Any] = json.loads(body)
    limits = [fields[name] for name in ("max_tokens", "max_completion_tokens") if name in fields]
    highest = cast("int", MODELS[f"{visit.ask.dialect}/{visit.ask.model}"]["max_output_tokens"])
    return Wanted(
        dialect=visit.ask.dialect,
        model=visit.ask.model,
        is_stream=visit.ask.is_stream,
        output_max=min([highest, *limits]),
        asks_usage=bool(fields.get("stream_options", {}).get("include_usage")),
        body_bytes=len(visit.ask.body),
    )


class _Answer(Answer):
    """An answer whose body comes when its time has come."""

    def __init__(
        self, visit: Visit, sent: Sent, script: Script, status: int, headers: Headers
    ) -> None:
        self.status = status
        self.headers = headers
        self._visit = visit
        self._sent = sent
        self._script = script
        self._began_s = asyncio.get_running_loop().time()
        self._next = 0
        self._is_closed = False

    @override
    async def next_chunk(self) -> bytes | None:
        """Return what has come, or wait for more."""
        script, loop = self._script, asyncio.get_running_loop()
        assert not self._is_closed, "a closed answer is read"
        while True:
            chunk = self._take(loop.time())
            if chunk:
                self._sent.read_bytes += len(chunk)
                self._sent.longest_read = max(self._sent.longest_read, len(chunk))
                return chunk
            if self._next < len(script.chunks):
                until_s = self._began_s + script.chunks[self._next][0]
            elif script.ends == "silence":
                await loop.create_future()
                continue
            elif self._began_s + script.end_s <= loop.time() + AT_ONCE_S:
                break
            else:
                until_s = self._began_s + script.end_s
            await _sleep_until(until_s)
        self._sent.saw = script.ends
        self._visit.note(f"the provider's answer: {script.ends}")
        if script.ends == "reset":
            raise UpstreamError("its connection ended in the middle", was_sent=True)
        return None

    @override
    def close(self) -> None:
        """Hang up."""
        self._is_closed = self._sent.was_hung_up_on = True

    def _take(self, now_s: float) -> bytes:
        taken: list[bytes] = []
        chunks = self._script.chunks
        while (
            self._next < len(chunks) and self._began_s + chunks[self._next][0] <= now_s + AT_ONCE_S
        ):
            taken.append(chunks[self._next][1])
            self._next += 1
            if sum(map(len, taken)) > READ_BYTES_MAX:
                break
        return b"".join(taken)


async def _sleep_until(at_s: float) -> None:
    """Sleep; exactly until then, whatever floating point makes of the difference."""
    loop = asyncio.get_running_loop()
    woken = loop.create_future()
    timer = loop.call_at(at_s, _wake, woken)
    try:
        await woken
    finally:
        timer.cancel()


def _wake(woken: "asyncio.Future[None]") -> None:
    if not woken.done():
        woken.set_result(None)
