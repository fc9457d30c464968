"""What a cell of the matrix is: a fault, what the client does, and what both must come to."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from enum import Enum
from typing import NamedTuple

from typing_extensions import override

from tests.faults.dialects import Dialect
from tests.support.stub_provider import Out, SeenRequest

MEETS_WITHIN_S = 60.0


class Client(Enum):
    """What the client does."""

    STAYS = "stays"
    LEAVES_EARLY = "leaves before the answer"
    LEAVES_MIDWAY = "leaves before the fault"
    LEAVES_LATE = "leaves after the fault"


class Stage:
    """Where one cell's client and provider wait for each other.

    The provider says how far it is; where the client means to leave, it goes on only when the
    client has left.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.reached: Future[None] = Future()
        """The provider is where the client means to leave."""
        self.left: Future[None] = Future()
        """The client has left."""

    async def begins(self) -> None:
        """The request has come, and nothing was answered."""
        await self._at(Client.LEAVES_EARLY)

    async def fault(self) -> None:
        """What was sent so far is in order; the fault comes next."""
        await self._at(Client.LEAVES_MIDWAY)

    async def ends(self) -> None:
        """Everything was sent."""
        await self._at(Client.LEAVES_LATE)

    async def hangs(self, out: Out) -> None:
        """Nothing more will ever be sent: wait until the proxy hangs up."""
        await self.ends()
        await out.client_gone.wait()

    async def _at(self, moment: Client) -> None:
        if moment is self._client and not self.reached.done():
            self.reached.set_result(None)
            await asyncio.wait_for(asyncio.wrap_future(self.left), MEETS_WITHIN_S)


Handler = Callable[[SeenRequest, Out, Stage], Awaitable[None]]


class End(Enum):
    """How an answer ends for a client that stays."""

    CLEAN = "the framing says that it is complete"
    OUR_ERROR = "an error answer of ours"
    OUR_EVENT = "an error event of ours after what was passed on, and a clean end"
    CUT = "no clean end"


class View(NamedTuple):
    """What a client that stays must see."""

    status: int
    end: End
    body: bytes | None = None
    """What was passed on of the provider's bytes; None where a reset may overtake them."""
    code: str | None = None
    """Of our error, or of our error event."""
    should_retry: bytes | None = None
    """`x-should-retry` of our error."""
    retry_after: bytes | None = None


class Row(NamedTuple):
    """How the request must end in the ledger and in its reporting row."""

    state: str
    basis: str
    cost_nanousd: int
    upstream_status: int | None
    reason: str | None
    """A pattern for the beginning of it; None: there must be none."""
    raw_usage: bool | None = None
    """Whether a usage record is kept; None: not looked at."""

    def differs(self, row: dict[str, object]) -> list[str]:
        """Say what of a reporting row is not as expected."""
        wanted = {
            "state": self.state,
            "basis": self.basis,
            "cost_nanousd": self.cost_nanousd,
            "upstream_status": self.upstream_status,
        }
        found = [
            f"{key} {row[key]!r}, not {want!r}" for key, want in wanted.items() if row[key] != want
        ]
        reason = row["reason"]
        if self.reason is None:
            is_told = reason is None
        else:
            is_told = isinstance(reason, str) and bool(re.match(self.reason, reason))
        if not is_told:
            found.append(f"reason {reason!r}, not {self.reason!r}")
        if self.raw_usage is not None and (row["raw_usage"] is not None) != self.raw_usage:
            found.append(f"raw_usage {row['raw_usage']!r}")
        return found


class Place(Enum):
    """Where the provider of a cell listens."""

    SHARED = "one server for all, whose connections are used again and again"
    OWN = "a server for this cell alone, whose connection has answered before"
    UNREAD = "a server that answers when it has read the head of a request"
    RESET = "a server that resets every connection which it has accepted"
    CLOSED = "a port on which nothing listens"


class Limits(Enum):
    """What the proxy is set to: it waits long, but for what is looked at."""

    PATIENT = "it waits as long as it takes"
    HASTY = "a provider may be silent for two seconds"
    BRIEF_DRAIN = "an answer is read on for two seconds after its client left"


SILENT_S = 2
"""Of the provider under HASTY, and of reading on under BRIEF_DRAIN; a busy machine needs some."""


class Case(NamedTuple):
    """A fault in one dialect, plain or streamed, and what it must come to."""

    fault: str
    handle: Handler
    view: View
    row: Row
    """Whatever the client does: leaving changes nothing."""
    place: Place = Place.SHARED
    has_middle: bool = False
    """Something is answered before the fault."""
    rests_key: bool = False
    """The provider's key is not used for a while after it: the cell needs one of its own."""
    abandoned: Row | None = None
    """Of an answer that never ends: what it comes to when the client leaves and nothing more
    is waited for. Such cells run under Limits.HASTY, and again under BRIEF_DRAIN."""
    padding_bytes: int = 0
    """How much longer the request is than usual."""
    view_headers: tuple[bytes, ...] = ()
    """Headers that the client must not get."""


class Cell(NamedTuple):
    """A case and a client."""

    number: int
    dialect: Dialect
    is_stream: bool
    case: Case
    client: Client
    limits: Limits

    @override
    def __str__(self) -> str:
        mode = "stream" if self.is_stream else "plain"
        where = f"{self.dialect.name} {mode}: {self.case.fault}: the client {self.client.value}"
        return where + (f" ({self.limits.value})" if self.limits is Limits.BRIEF_DRAIN else "")

    @property
    def row(self) -> Row:
        """How it must end."""
        if self.limits is Limits.BRIEF_DRAIN:
            assert self.case.abandoned is not None
            return self.case.abandoned
        return self.case.row
