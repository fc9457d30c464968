"""Owns how the server watches its connections' deadlines, and how the process stops."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from typing_extensions import override

from llmproxy.server.protocol import ProxyProtocol

SWEEP_TICKS = 10
"""uvicorn ticks ten times a second."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
FORCED_STEP_S = 2.0
"""For what still runs then, or after a second signal: once to be cut, once to be cancelled."""


class ProxyServer(uvicorn.Server):
    """uvicorn's server that stops as a service should: drained, and with exit code 0.

    When it has ended, SIGINT and SIGTERM are ignored: what is left to do must not be killed.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        on_started: Callable[[], None],
        on_stop: Callable[[], None],
        on_forced_stop: Callable[[], None],
        header_timeout_s: float,
        body_timeout_s: float,
    ) -> None:
        """Take the deadlines of requests and what to call at each step of the process's life.

        Args:
            config: uvicorn's own settings.
            on_started: connections are accepted.
            on_stop: the stop has begun, nothing new is admitted.
            on_forced_stop: what still runs must end now.
            header_timeout_s: how long a request's head may take to come.
            body_timeout_s: how long its body may take, with one more second for each MiB.
        """
        super().__init__(config)
        self._on_started = on_started
        self._on_stop = on_stop
        self._on_forced_stop = on_forced_stop
        self._header_timeout_s = header_timeout_s
        self._body_timeout_s = body_timeout_s

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, then say so."""
        await super().startup(sockets)
        self._on_started()

    @override
    async def on_tick(self, counter: int) -> bool:
        """Look at the deadlines of all connections, once a second."""
        if counter % SWEEP_TICKS == 0:
            now_s = asyncio.get_running_loop().time()
            for connection in tuple(self.server_state.connections):
                assert isinstance(connection, ProxyProtocol)
                connection.check_deadline(now_s, self._header_timeout_s, self._body_timeout_s)
        return await super().on_tick(counter)

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop admitting, finish what runs; end what does not finish, settled."""
        self._on_stop()
        await super().shutdown(sockets)
        if self.server_state.tasks:
            self._on_forced_stop()
            _, running = await asyncio.wait(self.server_state.tasks, timeout=FORCED_STEP_S)
            for task in running:  # a client that does not read, a body that does not come
                task.cancel()
            if running:
                await asyncio.wait(running, timeout=FORCED_STEP_S)

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop gently at the first signal, at once at the second; never die of one."""
        # Not the loop's own handlers: taking those away brings the deadly default back.
        for number in STOP_SIGNALS:
            signal.signal(number, self._stop)
        try:
            yield
        finally:
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


@contextlib.contextmanager
def signals_restored() -> Iterator[None]:
    """Give SIGINT and SIGTERM back, after a block in which a server ran, what they did before."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
