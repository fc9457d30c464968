"""Clients that leave while their request is being connected: free, until a byte may have left."""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.proxy.conftest import running_site
from tests.proxy.helpers import CHAT, Site, chat, estimate_nanousd
from tests.support.answers import openai_error
from tests.support.waiting import wait_until

FIRST_BYTE = b"\x16"
"""Of a TLS handshake."""


@pytest.fixture(scope="module")
def drainless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy that reads no answer on whose client has left."""
    home = tmp_path_factory.mktemp("drainless")
    with running_site(home, {"LLMPROXY_DRAINS_MAX": "0"}) as site:
        yield site


class Deaf:
    """An address on which nobody answers: connections wait in the backlog for being accepted."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.socket = stack.enter_context(socket.socket())
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(0)
        self.port = self.socket.getsockname()[1]

    def fill(self) -> None:
        """Leave no room: from now on connecting to it neither succeeds nor fails."""
        for _ in range(16):
            filler = self._stack.enter_context(socket.socket())
            filler.settimeout(0.3)
            try:
                filler.connect(("127.0.0.1", self.port))
            except TimeoutError:
                filler.close()  # it would go on trying
                return
        pytest.skip("this system takes more connections than the backlog has room for")

    def accept(self) -> socket.socket:
        self.socket.settimeout(10)
        return self._stack.enter_context(self.socket.accept()[0])


@pytest.fixture
def deaf() -> Iterator[Deaf]:
    with ExitStack() as stack:
        yield Deaf(stack)


def send_to(site: Site, base_url: str) -> None:
    site.proxy.run("providers", "set", "openai", "--base-url", base_url, "--yes")


def is_connecting(proxy_pid: int, port: int) -> bool:
    """Say whether the proxy waits for a connection to a port: a SYN has been sent."""
    wanted = f"0100007F:{port:04X} 02"
    return wanted in Path(f"/proc/{proxy_pid}/net/tcp").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets them wait for ever")
@pytest.mark.parametrize("model", ["gpt-4o", "o3"])
def test_a_client_that_leaves_before_there_is_a_connection_pays_nothing(
    drainless: Site, deaf: Deaf, model: str
) -> None:
    deaf.fill()
    send_to(drainless, f"http://127.0.0.1:{deaf.port}/v1")
    visitor = drainless.visitor()
    with drainless.send(visitor, CHAT, chat(model=model)):
        wait_until(lambda: is_connecting(drainless.proxy.pid, deaf.port))
    row = drainless.assert_released(visitor)
    assert row["reason"] == "the client left and 0 other answers were being drained"
    assert (row["attempts"], row["upstream_status"]) == (1, None)


def test_a_client_that_leaves_during_the_tls_handshake_pays_nothing(
    drainless: Site, deaf: Deaf
) -> None:
    send_to(drainless, f"https://127.0.0.1:{deaf.port}/v1")
    visitor = drainless.visitor()
    with drainless.send(visitor, CHAT, chat()):
        assert deaf.accept().recv(1) == FIRST_BYTE
    drainless.assert_released(visitor)


def test_a_client_that_leaves_once_there_is_a_connection_pays_the_input(
    drainless: Site, deaf: Deaf
) -> None:
    """Whether a provider that has not even accepted it has got it, nobody here can know."""
    send_to(drainless, f"http://127.0.0.1:{deaf.port}/v1")
    visitor, body = drainless.visitor(), chat()
    with drainless.send(visitor, CHAT, body):
        assert deaf.accept().recv(1) == b"P"
    nanousd = estimate_nanousd(body, 0, input_rate=2_500, output_rate=10_000)
    drainless.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets them wait for ever")
def test_what_another_key_was_refused_for_is_forgotten_while_the_next_one_is_connecting(
    drainless: Site, deaf: Deaf
) -> None:
    """The first attempt was sent and brought nothing, of the second no byte has left."""
    drainless.proxy.run("provider-keys", "add", "openai", stdin="sk-provider-secret-0002")
    send_to(drainless, f"http://127.0.0.1:{deaf.port}/v1")
    visitor = drainless.visitor()
    with drainless.send(visitor, CHAT, chat()):
        first = deaf.accept()
        assert first.recv(1) == b"P"
        deaf.fill()
        error = openai_error("rate_limit")
        head = f"HTTP/1.1 429 Limited\r\nconnection: close\r\ncontent-length: {len(error.body)}"
        first.sendall(head.encode() + b"\r\n\r\n" + error.body)
        wait_until(lambda: is_connecting(drainless.proxy.pid, deaf.port))
    row = drainless.assert_released(visitor)
    assert row["reason"] == "the client left and 0 other answers were being drained"
    assert (row["attempts"], row["upstream_status"]) == (2, None)
