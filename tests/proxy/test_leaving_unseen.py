"""Clients that leave where it is hard to see, or before anything has been sent."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proxy.helpers import CHAT, MESSAGES, Site, chat, estimate_nanousd, message
from tests.service.helpers import Books
from tests.support.proxy import RunningProxy
from tests.support.stub_provider import Out, SeenRequest, StubProvider

LONG = "x" * 600_000
"""More than is read of a body before somebody asks for more."""


class Mute:
    """A provider's end that says nothing to whoever connects."""

    def __init__(self) -> None:
        self.was_reached = threading.Event()

    async def __call__(self, out: Out) -> None:
        self.was_reached.set()
        await out.client_gone.wait()


async def never(request: SeenRequest, out: Out) -> None:
    await out.client_gone.wait()


@pytest.fixture
def mute() -> Mute:
    return Mute()


@pytest.fixture
def site_of_silence(tmp_path: Path, mute: Mute) -> Iterator[Site]:
    """A proxy that reads on for a second; `openai` never answers, `anthropic` has no TLS."""
    environ = {"LLMPROXY_DRAIN_TIMEOUT_S": "1", "LLMPROXY_CONNECT_TIMEOUT_S": "60"}
    with StubProvider() as stub, StubProvider() as silent, RunningProxy(tmp_path, environ) as proxy:
        stub.handle = never
        silent.on_connect = mute
        proxy.use_provider("openai", f"{stub.url}/v1")
        proxy.use_provider("anthropic", silent.url.replace("http:", "https:"))
        proxy.start()
        books = Books(tmp_path)
        yield Site(proxy, stub, books)
        books.close()
        proxy.verify_ledger()


def test_the_client_of_a_long_request_is_seen_to_leave(site_of_silence: Site) -> None:
    site = site_of_silence
    visitor = site.visitor()
    body = chat(messages=[{"role": "user", "content": LONG}])
    with site.send(visitor, CHAT, body):
        site.stub.wait_for_requests(1)
    row = site.ended(visitor)
    assert row["reason"] == "the client left and the answer did not end within 1 s"
    assert row["basis"] == "estimate"


def test_a_drain_that_brings_nothing_costs_at_least_the_input(site_of_silence: Site) -> None:
    site, body = site_of_silence, chat()
    visitor = site.visitor()
    with site.send(visitor, CHAT, body):
        site.stub.wait_for_requests(1)
    nanousd = estimate_nanousd(body, 0, input_rate=2_500, output_rate=10_000)
    site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)


def test_who_leaves_while_the_provider_is_being_connected_to_pays_nothing(
    site_of_silence: Site, mute: Mute
) -> None:
    site = site_of_silence
    visitor = site.visitor()
    with site.send(visitor, MESSAGES, message()):
        assert mute.was_reached.wait(10)
    row = site.assert_released(visitor)
    assert row["reason"] == "the client left and the answer did not end within 1 s"
    assert row["attempts"] == 1
