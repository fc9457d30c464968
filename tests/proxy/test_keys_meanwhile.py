"""Provider keys whose state changes while requests run, and second attempts after a refusal."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmproxy import key_pool
from tests.proxy.conftest import running_site
from tests.proxy.helpers import CHAT, Site, chat
from tests.support.answers import CannedError, data_event, openai_chat, openai_error, plain
from tests.support.proxy import PROVIDER_KEY
from tests.support.stub_provider import Out, SeenRequest
from tests.support.waiting import wait_until

SECOND_KEY = "sk-provider-secret-0002"
BAD_KEY = openai_error("bad_key")
RATE_LIMIT = openai_error("rate_limit")
LIMITS = {
    "LLMPROXY_DRAIN_TIMEOUT_S": "1",
    "LLMPROXY_IDLE_TIMEOUT_S": "1",
    "LLMPROXY_FIRST_BYTE_TIMEOUT_S": "10",
    "LLMPROXY_STALL_TIMEOUT_S": "1",
    "LLMPROXY_TOTAL_TIMEOUT_S": "4",
}


@pytest.fixture(scope="module")
def two_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy with two keys of one provider, which waits 1 s for anything but a first byte."""
    with running_site(tmp_path_factory.mktemp("two-keys"), LIMITS) as site:
        site.proxy.run("provider-keys", "add", "openai", stdin=SECOND_KEY)
        yield site


@pytest.fixture(autouse=True)
def all_keys_active(two_keys: Site) -> None:
    two_keys.books.set_key_states("openai", "active")
    time.sleep(0.3)  # until the server has seen it


def first_refused(site: Site, second: Callable[[SeenRequest, Out], object]) -> None:
    """Let the next request be rate limited for a moment, the one after it be answered so."""
    begun = len(site.stub.requests)

    async def handle(request: SeenRequest, out: Out) -> None:
        if len(site.stub.requests) == begun + 1:
            await out.json(429, RATE_LIMIT.body, [("retry-after", "1")])
        else:
            await second(request, out)  # type: ignore[misc]

    site.stub.handle = handle


def test_the_second_attempt_has_the_whole_time_until_a_first_byte(two_keys: Site) -> None:
    async def slow(request: SeenRequest, out: Out) -> None:
        await asyncio.sleep(2)
        await out.json(200, openai_chat())

    first_refused(two_keys, slow)
    visitor = two_keys.visitor()
    assert two_keys.ask(visitor, CHAT, chat(model="gpt-4.1")).status == 200
    assert two_keys.ended(visitor)["attempts"] == 2


def test_leaving_during_the_second_attempt_is_not_free(two_keys: Site) -> None:
    async def never(request: SeenRequest, out: Out) -> None:
        await out.client_gone.wait()

    first_refused(two_keys, never)
    seen = len(two_keys.stub.requests)
    visitor = two_keys.visitor()
    with two_keys.send(visitor, CHAT, chat(model="gpt-4.1-mini")):
        two_keys.stub.wait_for_requests(seen + 2)
    row = two_keys.ended(visitor)
    assert (row["state"], row["basis"], row["attempts"]) == ("settled", "estimate", 2)
    assert row["charged_nanousd"] > 0


def test_a_late_answer_does_not_bring_a_dead_key_back(two_keys: Site) -> None:
    is_dead = threading.Event()

    async def handle(request: SeenRequest, out: Out) -> None:
        if b"slow" not in request.body:
            await out.json(BAD_KEY.status, BAD_KEY.body)
            return
        await asyncio.to_thread(is_dead.wait, 5)
        await out.json(200, openai_chat())

    two_keys.stub.handle = handle
    seen = len(two_keys.stub.requests)
    # Whichever key a user meets first, two slow requests of different users may share it or not.
    slow = [
        threading.Thread(target=two_keys.ask, args=(visitor, CHAT, chat(user="slow")))
        for visitor in (two_keys.visitor(), two_keys.visitor(), two_keys.visitor())
    ]
    for thread in slow:
        thread.start()
    two_keys.stub.wait_for_requests(seen + 3)
    assert two_keys.ask(two_keys.visitor(), CHAT, chat()).status == 503
    is_dead.set()
    for thread in slow:
        thread.join()
    last = two_keys.visitor()
    seen = len(two_keys.stub.requests)
    assert two_keys.ask(last, CHAT, chat()).status == 503
    assert len(two_keys.stub.requests) == seen
    assert {state for state, _ in two_keys.books.key_states("openai").values()} == {"dead"}


def test_a_key_refused_after_somebody_elses_commit_is_out_at_once(two_keys: Site) -> None:
    may_answer = threading.Event()

    async def handle(request: SeenRequest, out: Out) -> None:
        await asyncio.to_thread(may_answer.wait, 5)
        await out.json(BAD_KEY.status, BAD_KEY.body)

    two_keys.stub.handle = handle
    visitor, other = two_keys.visitor(), two_keys.visitor()
    seen = len(two_keys.stub.requests)
    asking = threading.Thread(target=two_keys.ask, args=(visitor, CHAT, chat()))
    asking.start()
    two_keys.stub.wait_for_requests(seen + 1)
    two_keys.books.credit(other.name, "1")
    time.sleep(0.3)  # until the server has read everything anew
    may_answer.set()
    asking.join()
    seen = len(two_keys.stub.requests)
    assert two_keys.ask(other, CHAT, chat()).status == 503
    assert len(two_keys.stub.requests) == seen


def test_a_refusal_with_half_a_character_takes_the_key_out_too(two_keys: Site) -> None:
    two_keys.stub.handle = plain(b'{"error":{"message":"bad \\ud800 key"}}', status=401)
    assert two_keys.ask(two_keys.visitor(), CHAT, chat()).status == 503
    wait_until(
        lambda: {state for state, _ in two_keys.books.key_states("openai").values()} == {"dead"}
    )


def other_key(site: Site) -> tuple[str, str]:
    """Name and secret of the key that the last request was not sent with."""
    sent = site.last_request().header("authorization") or b""
    secret = PROVIDER_KEY if SECOND_KEY.encode() in sent else SECOND_KEY
    with site.books.database.read() as tx:
        keys = key_pool.list_provider_keys(tx, "openai")
    (name,) = [key.name for key in keys if key.masked.endswith(secret[-4:])]
    return name, secret


def make_seen(site: Site) -> None:
    """Return when the server has seen every change: it looks again for a key that it has not."""
    assert site.ask(site.visitor(), CHAT, chat(model="no-such-model")).status == 400


class FirstIsLate:
    """A provider that refuses all, and the first request only when it may."""

    def __init__(self, first: CannedError, others: CannedError) -> None:
        self.may_answer = threading.Event()
        self._answers = [first]
        self._others = others

    async def __call__(self, request: SeenRequest, out: Out) -> None:
        if not self._answers:
            await out.json(self._others.status, self._others.body, [("retry-after", "60")])
            return
        answer = self._answers.pop()
        await asyncio.to_thread(self.may_answer.wait, 20)
        await out.json(answer.status, answer.body)


@pytest.mark.parametrize("command", ["disable", "remove"])
def test_a_key_that_the_operator_takes_away_during_an_attempt_is_not_tried_next(
    two_keys: Site, command: str
) -> None:
    two_keys.stub.handle = provider = FirstIsLate(BAD_KEY, BAD_KEY)
    seen = len(two_keys.stub.requests)
    visitor = two_keys.visitor()
    with two_keys.send(visitor, CHAT, chat()) as client:
        two_keys.stub.wait_for_requests(seen + 1)
        other, secret = other_key(two_keys)
        yes = ["--yes"] if command == "remove" else []
        two_keys.proxy.run("provider-keys", command, "openai", other, *yes)
        make_seen(two_keys)
        provider.may_answer.set()
        got = two_keys.take(client)
    if command == "remove":
        two_keys.proxy.run("provider-keys", "add", "openai", "--name", other, stdin=secret)
    assert (got.status, got.error()["code"]) == (503, "no_active_provider_keys")
    assert len(two_keys.stub.requests) == seen + 1
    two_keys.assert_released(visitor)
    assert two_keys.ended(visitor)["attempts"] == 1


@pytest.mark.parametrize(
    ("model", "refusal", "status", "code"),
    [
        ("gpt-4o", BAD_KEY, 503, "no_active_provider_keys"),
        ("gpt-4.1-nano", RATE_LIMIT, 429, "rate_limit_exceeded"),
    ],
)
def test_a_key_that_another_request_was_refused_with_meanwhile_is_not_tried_next(
    two_keys: Site, model: str, refusal: CannedError, status: int, code: str
) -> None:
    two_keys.stub.handle = provider = FirstIsLate(BAD_KEY, refusal)
    seen = len(two_keys.stub.requests)
    visitor = two_keys.visitor()
    with two_keys.send(visitor, CHAT, chat(model=model)) as client:
        two_keys.stub.wait_for_requests(seen + 1)
        assert two_keys.ask(two_keys.visitor(), CHAT, chat(model=model)).status == status
        assert len(two_keys.stub.requests) == seen + 3  # it has tried both keys
        provider.may_answer.set()
        got = two_keys.take(client)
    assert (got.status, got.error()["code"]) == (status, code)
    assert (got.header("retry-after") is not None) == (status == 429)
    assert len(two_keys.stub.requests) == seen + 3
    assert two_keys.ended(visitor)["attempts"] == 1


@pytest.mark.parametrize("status", [101, 600, 999])
def test_a_status_that_is_none_is_a_502(two_keys: Site, status: int) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        await out.json(status, b'{"error":{"message":"no"}}')

    two_keys.stub.handle = handle
    visitor = two_keys.visitor()
    got = two_keys.ask(visitor, CHAT, chat())
    assert (got.status, got.error()["code"]) == (502, "upstream_unreachable")
    two_keys.assert_released(visitor)


def test_a_client_that_does_not_read_the_error_of_a_cut_is_hung_up_on(two_keys: Site) -> None:
    async def flood(request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "text/event-stream")])
        small = data_event({"choices": [{"index": 0, "delta": {"content": "x"}}]})
        for _ in range(16):  # for most of the four seconds that an answer may take
            await out.chunk(small)
            await asyncio.sleep(0.2)
        large = data_event({"choices": [{"index": 0, "delta": {"content": "x" * 60_000}}]})
        try:
            while True:
                await out.chunk(large)
        except ConnectionResetError:
            pass

    two_keys.stub.handle = flood
    visitor = two_keys.visitor()
    with two_keys.send(visitor, CHAT, chat(stream=True)) as client:
        assert two_keys.ended(visitor)["state"] == "settled"
        port = client.local_port
        wait_until(lambda: not is_established(two_keys.proxy.port, port))


def is_established(server_port: int, client_port: int) -> bool:
    """Whether the server's side of a connection is still open, by the kernel's own table."""
    wanted = (f":{server_port:04X}", f":{client_port:04X}", "01")
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, state = line.split()[1:4]
        if local.endswith(wanted[0]) and remote.endswith(wanted[1]) and state == wanted[2]:
            return True
    return False
