"""Requests leave nothing behind that only the collector finds, which is made to look seldom.

`GC_THRESHOLDS`: until it looks, everything stays in memory that such a cycle holds.
"""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.fixtures import PLAIN, STREAMS
from tests.proxy import gemini
from tests.proxy.conftest import running_site
from tests.proxy.helpers import Site
from tests.proxy.test_disconnects import Paused
from tests.support.answers import broken_stream, plain, stream
from tests.support.raw_client import RawClient
from tests.support.stub_provider import Handler
from tests.support.waiting import wait_until

COUNTER = """
import collections
import gc
import json
import os
import signal


def count(*_):
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    told = collections.Counter(type(one).__qualname__ for one in gc.garbage)
    gc.garbage.clear()
    gc.collect()
    with open({path!r} + ".new", "w") as file:
        file.write(json.dumps(told))
    os.replace({path!r} + ".new", {path!r})


gc.disable()
signal.signal(signal.SIGUSR1, count)
"""
CHAT, RESPONSES, MESSAGES = (
    f"/v1/{path}" for path in ("openai/chat/completions", "openai/responses", "anthropic/messages")
)
STREAMING = {"model": "gpt-4o-mini", "messages": [], "stream": True}
EMBEDDED = {"model": "text-embedding-3-small", "input": "a"}
INPUT = {"model": "gpt-4o-mini", "input": "a"}
ANTHROPIC = {"model": "claude-sonnet-4-5", "messages": [], "max_tokens": 9, "stream": True}
ROOTS: dict[str, Any] = {"contents": [{"parts": [{"text": "hi"}]}]}
BROKEN = "a broken stream"
CONNECTION = {"Connection", "HttpResponseParser", "method"}
"""What an ended connection to a provider leaves; there are few of them."""
REQUESTS = 20
CONNECTIONS_MAX = 40
HEAD_BYTES_MAX = 64 * 1024
LARGE = b'{"data":[%b],"usage":{"prompt_tokens":5,"total_tokens":5}}' % (b" " * 9_000_000)
"""More than is read at once."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy whose garbage is not collected, but counted at a signal."""
    home = tmp_path_factory.mktemp("counted")
    (home / "sitecustomize.py").write_text(COUNTER.format(path=str(home / "garbage.json")))
    environ = {"PYTHONPATH": str(home), "LLMPROXY_CONNECTIONS_MAX": str(CONNECTIONS_MAX)}
    with running_site(home, environ) as site:
        site.proxy.use_provider("gemini", site.stub.url)
        yield site


def garbage(site: Site) -> dict[str, int]:
    """What there is by now, by its kind; it is gone then."""
    path = site.proxy.home / "garbage.json"
    path.unlink(missing_ok=True)
    site.proxy.send_signal(signal.SIGUSR1)
    wait_until(path.exists)
    counted: dict[str, int] = json.loads(path.read_text())
    return counted


def sse(name: str) -> Handler:
    return stream(STREAMS[name].events)


def array(body: bytes) -> Handler:
    handle: Handler = gemini.in_pieces(body, 50, gemini.JSON)
    return handle


CASES: dict[str, tuple[str, dict[str, Any], Handler, int]] = {
    "plain": (CHAT, {**STREAMING, "stream": False}, plain(PLAIN["openai-chat"].answer), 200),
    "chat": (CHAT, STREAMING, sse("openai-chat"), 200),
    "responses": (RESPONSES, {**INPUT, "stream": True}, sse("openai-responses-incomplete"), 200),
    "messages": (MESSAGES, ANTHROPIC, sse("anthropic-messages"), 200),
    BROKEN: (CHAT, STREAMING, broken_stream(STREAMS["openai-chat"].events[:4]), 200),
    "a failing provider": (CHAT, STREAMING, plain(b'{"error":{"message":"no"}}', 500), 500),
    "a refused request": (CHAT, {**STREAMING, "model": "unknown"}, sse("openai-chat"), 400),
    "what is no request": (CHAT, {"model": 7}, sse("openai-chat"), 400),
    "a large plain answer": ("/v1/openai/embeddings", EMBEDDED, plain(LARGE), 200),
    "Gemini's array": (gemini.STREAM, ROOTS, array(gemini.ARRAY), 200),
    "Gemini's events": (f"{gemini.STREAM}?alt=sse", ROOTS, stream(gemini.EVENTS), 200),
    "neither of them": (gemini.STREAM, ROOTS, array(b" \n" * 9), 200),
}


def left_by(site: Site, act: Callable[[], None]) -> set[str]:
    """The kinds of what is left behind by each time, or nearly: the last ones may not be over."""
    for _ in range(3):  # what is made once stays
        act()
    garbage(site)
    for _ in range(REQUESTS):
        act()
    return {kind for kind, count in garbage(site).items() if count > REQUESTS // 2}


@pytest.mark.parametrize("name", CASES)
def test_a_request_leaves_no_cycle_behind(site: Site, name: str) -> None:
    path, body, site.stub.handle, status = CASES[name]
    visitor, sent = site.visitor(), json.dumps(body).encode()

    def act() -> None:
        assert site.ask(visitor, path, sent).status == status

    assert left_by(site, act) <= (CONNECTION if name == BROKEN else set())


def test_a_client_that_leaves_in_the_middle_leaves_no_cycle_behind(site: Site) -> None:
    visitor, sent = site.visitor(), json.dumps(STREAMING).encode()

    def act() -> None:
        paused = Paused(STREAMS["openai-chat"].events, 2)
        site.stub.handle = paused
        ended = len(site.books.rows(visitor.name))
        with site.send(visitor, CHAT, sent) as client:
            client.recv_head()
            next(client.recv_chunks())
        paused.go.set()
        wait_until(lambda: len(site.books.rows(visitor.name)) > ended)

    assert left_by(site, act) <= CONNECTION


def get(path: str, **headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "host: x", *(f"{name}: {headers[name]}" for name in headers)]
    return "\r\n".join([*lines, "", ""]).encode()


PAGES = {
    "/healthz": (get("/healthz"), 200),
    "/readyz": (get("/readyz"), 200),
    "a page": (get("/dashboard/sign-in"), 200),
    "another page": (get("/dashboard"), 303),
    "what is not there": (get("/nothing"), 404),
    "a WebSocket": (get("/healthz", connection="upgrade", upgrade="websocket"), 426),
    "a large head": (get("/healthz", x="x" * HEAD_BYTES_MAX), 431),
    "no HTTP": (b"hello\r\n\r\n", 400),
}


def ask(site: Site, request: bytes, status: int) -> None:
    with RawClient(site.proxy.port, timeout_s=20) as client:
        client.send(request)
        assert client.recv_head().status == status
        client.body()


@pytest.mark.parametrize("name", PAGES)
def test_what_no_provider_answers_leaves_no_cycle_behind(site: Site, name: str) -> None:
    request, status = PAGES[name]
    assert left_by(site, lambda: ask(site, request, status)) == set()


def test_too_many_connections_leave_no_cycles_behind(site: Site) -> None:
    with ExitStack() as others:
        for _ in range(CONNECTIONS_MAX):
            others.enter_context(RawClient(site.proxy.port, timeout_s=20))
        wait_until(lambda: is_full(site))
        assert left_by(site, lambda: ask(site, get("/nothing"), 503)) == set()


def is_full(site: Site) -> bool:
    with RawClient(site.proxy.port, timeout_s=20) as client:
        client.send(get("/nothing"))
        return client.recv_head().status == 503


def test_a_client_that_asks_much_at_once_and_leaves_leaves_no_cycles_behind(site: Site) -> None:
    """Of its requests the later ones are never begun."""
    visitor, sent = site.visitor(), json.dumps(STREAMING).encode()

    def act() -> None:
        paused = Paused(STREAMS["openai-chat"].events, 2)
        site.stub.handle = paused
        ended = len(site.books.rows(visitor.name))
        with site.send(visitor, CHAT, sent) as client:
            client.send(get("/healthz") * 3)
            client.recv_head()
            next(client.recv_chunks())
        paused.go.set()
        wait_until(lambda: len(site.books.rows(visitor.name)) > ended)

    assert left_by(site, act) <= CONNECTION
