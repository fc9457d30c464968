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
    HALF_CLOSES = "half-closes before the answer and reads on"
    HALF_CLOSES_MIDWAY = "half-closes before the fault and reads on"

    @property
    def half_closes(self) -> bool:
        """Say whether it only says that it will send no more."""
        return self in {Client.HALF_CLOSES, Client.HALF_CLOSES_MIDWAY}


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
        await self._at(Client.LEAVES_EARLY, Client.HALF_CLOSES)

    async def fault(self) -> None:
        """What was sent so far is in order; the fault comes next."""
        await self._at(Client.LEAVES_MIDWAY, Client.HALF_CLOSES_MIDWAY)

    async def ends(self) -> None:
        """Everything was sent."""
        await self._at(Client.LEAVES_LATE)

    async def hangs(self, out: Out) -> None:
        """Nothing more will ever be sent: wait until the proxy hangs up."""
        await self.ends()
        await out.client_gone.wait()

    async def _at(self, *moments: Client) -> None:
        if self._client in moments and not self.reached.done():
            self.reached.set_result(None)
            await asyncio.wait_for(asyncio.wrap_future(self.left), MEETS_WITHIN_S)


Handler = Callable[[SeenRequest, Out, Stage], Awaitable[None]]


class End(Enum):
    """How an answer ends for a client that stays."""

    CLEAN = "the framing says that it is complete"
    OUR_ERROR = "an error answer of ours"
    OUR_EVENT = "an error event of ours after what was passed on, and a clean end"
    CUT = "no clean end"
    NOTHING = "the connection ends without an answer"


class Bulk(NamedTuple):
    """A long body, which is made only when it is looked at."""

    before: bytes
    part: bytes
    times: int
    """How often the part comes."""
    after: bytes

    @property
    def length(self) -> int:
        """In bytes."""
        return len(self.before) + len(self.part) * self.times + len(self.after)

    def made(self) -> bytes:
        """All of it."""
        return self.before + self.part * self.times + self.after


class View(NamedTuple):
    """What a client that stays must see."""

    status: int
    end: End
    body: bytes | Bulk | None = None
    """What was passed on of the provider's bytes; None where nobody can know."""
    code: str | None = None
    """Of our error, or of our error event."""
    should_retry: bytes | None = None
    """`x-should-retry` of our error."""
    retry_after: bytes | None = None
    is_beginning: bool = False
    """Of the body only a beginning is passed on before our event."""


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
    """Where the provider of a cell listens.

    No cell meets a connection of another one: it has a server of its own, or one that answers
    once on each connection.
    """

    SHARED = "one server for all, that keeps no connection"
    OWN = "a server for this cell alone, whose connection is kept and has answered before"
    UNREAD = "a server that answers when it has read the head of a request"
    RESET = "a server that resets every connection which it has accepted"
    CLOSED = "a port on which nothing listens"
    TLS = "a server of TLS, with a certificate that is in order"
    SELF_SIGNED = "a server of TLS, with a certificate that nobody vouches for"
    OTHER_NAME = "a server of TLS, with the certificate of another host"
    EXPIRED = "a server of TLS, with a certificate that has ended"
    NO_TLS = "a server that answers the TLS handshake in plain HTTP"
    TLS_CLOSED = "a server that hangs up on the TLS handshake"
    TLS_SILENT = "a server for this cell alone, that says nothing to the TLS handshake"

    @property
    def is_of_one_cell(self) -> bool:
        """Say whether each cell has such a server of its own."""
        return self in {Place.OWN, Place.TLS_SILENT}

    @property
    def takes_requests(self) -> bool:
        """Say whether the provider comes to where a client could leave."""
        return self in {Place.SHARED, Place.OWN, Place.UNREAD, Place.TLS, Place.TLS_SILENT}


class Limits(Enum):
    """What the proxy is set to: it waits long, but for what is looked at."""

    PATIENT = "it waits as long as it takes"
    HASTY = "a provider may be silent for two seconds"
    UNCONNECTED = "a provider must be connected within two seconds"
    SHORT = "a provider may be silent for two seconds, and take six for all"
    WATCHED = "one cell after the other, and the memory is looked at"
    BRIEF_DRAIN = "an answer is read on for two seconds after its client left"


SILENT_S = 2
"""Of the provider under HASTY, and of reading on under BRIEF_DRAIN; a busy machine needs some."""
TOTAL_S = 6
"""Of an answer under SHORT."""


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
    is waited for. Such cells run under HASTY or `limits`, and again under BRIEF_DRAIN."""
    padding_bytes: int = 0
    """How much longer the request is than usual."""
    view_headers: tuple[bytes, ...] = ()
    """Headers that the client must not get."""
    limits: Limits | None = None
    """Other limits than usual."""
    memory_mib_max: int = 0
    """Under WATCHED: how much more memory the proxy may take while it serves this."""


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
