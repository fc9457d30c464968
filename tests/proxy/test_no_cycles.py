"""Requests leave nothing behind that only the collector finds, which is made to look seldom.

`GC_THRESHOLDS`: until it looks, everything stays in memory that such a cycle holds.
"""

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fixtures import PLAIN, STREAMS
from tests.proxy.conftest import running_site
from tests.proxy.helpers import Site
from tests.support.answers import broken_stream, plain, stream
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
INPUT = {"model": "gpt-4o-mini", "input": "a"}
ANTHROPIC = {"model": "claude-sonnet-4-5", "messages": [], "max_tokens": 9, "stream": True}
BROKEN = "a broken stream"
CONNECTION = {"Connection", "HttpResponseParser", "method"}
"""What an ended connection to a provider leaves; there are few of them."""
REQUESTS = 20


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy whose garbage is not collected, but counted at a signal."""
    home = tmp_path_factory.mktemp("counted")
    (home / "sitecustomize.py").write_text(COUNTER.format(path=str(home / "garbage.json")))
    with running_site(home, {"PYTHONPATH": str(home)}) as site:
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


CASES: dict[str, tuple[str, dict[str, Any], Handler, int]] = {
    "plain": (CHAT, {**STREAMING, "stream": False}, plain(PLAIN["openai-chat"].answer), 200),
    "chat": (CHAT, STREAMING, sse("openai-chat"), 200),
    "responses": (RESPONSES, {**INPUT, "stream": True}, sse("openai-responses-incomplete"), 200),
    "messages": (MESSAGES, ANTHROPIC, sse("anthropic-messages"), 200),
    BROKEN: (CHAT, STREAMING, broken_stream(STREAMS["openai-chat"].events[:4]), 200),
    "a failing provider": (CHAT, STREAMING, plain(b'{"error":{"message":"no"}}', 500), 500),
    "a refused request": (CHAT, {**STREAMING, "model": "unknown"}, sse("openai-chat"), 400),
    "what is no request": (CHAT, {"model": 7}, sse("openai-chat"), 400),
}


@pytest.mark.parametrize("name", CASES)
def test_a_request_leaves_no_cycle_behind(site: Site, name: str) -> None:
    path, body, site.stub.handle, status = CASES[name]
    visitor, sent = site.visitor(), json.dumps(body).encode()
    for _ in range(3):  # what is made once stays
        site.ask(visitor, path, sent)
    garbage(site)
    for _ in range(REQUESTS):
        assert site.ask(visitor, path, sent).status == status
    left = {kind for kind, count in garbage(site).items() if count >= REQUESTS}
    assert left <= (CONNECTION if name == BROKEN else set())
