"""What happens to one request, as seen from the outside: by its client and by the provider."""

from collections.abc import Callable
from dataclasses import dataclass, field

from llmproxy.trace import Trace
from tests.simulator.answers import Script, Wanted
from tests.simulator.plan import Ask


@dataclass
class Sent:
    """One attempt at the provider."""

    status: int = 0
    """0 while there is no answer, -1 when there will be none."""
    is_connected: bool = False
    """Something of the request may have come to the provider."""
    wanted: Wanted | None = None
    script: Script | None = None
    read_bytes: int = 0
    """How much of the body the proxy has taken."""
    longest_read: int = 0
    """The most bytes that it has taken at once."""
    saw: str = ""
    """How the proxy saw the body end: `eof`, `reset`, or not at all."""


@dataclass
class Visit:
    """One request on its way."""

    ask: Ask
    note: Callable[[str], None]
    user: str
    api_key: str
    trace: Trace | None = None
    sent: list[Sent] = field(default_factory=list)
    changes_at_arrival: int = 0
    was_forbidden: bool = False
    """When it came, its user was disabled or its provider paused."""
    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    ended_cleanly: bool = False
    is_gone: bool = False
    """The connection is closed, by whichever side."""
    left: bool = False
    """The client closed it."""
    was_cancelled: bool = False
    has_begun: bool = False
    has_ended: bool = False
    """Its task has run to its end."""

    @property
    def hold_id(self) -> bytes | None:
        """The id of its row and hold, once it has one."""
        if self.trace is None or not self.trace.request_id:
            return None
        return bytes.fromhex(self.trace.request_id.removeprefix("req_"))

    @property
    def state(self) -> str:
        """How it ended in the server's memory; empty until then."""
        return self.trace.state if self.trace else ""
