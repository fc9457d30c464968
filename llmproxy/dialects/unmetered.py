"""Endpoints that providers answer for nothing: the counting of tokens, OpenAI's moderations.

They need no hold; what is refused in a metered request because it lives in the operator's account
is refused here too.
"""

from collections.abc import Mapping

from typing_extensions import override

from llmproxy.dialects.base import (
    PREVIOUS,
    InputFacts,
    Reading,
    RequestFacts,
    parts,
    refuse_members,
)
from llmproxy.dialects.json_gate import parse_object, text
from llmproxy.dialects.openai_options import refuse_kept, refuse_references
from llmproxy.dialects.sse import EventStream
from llmproxy.dialects.stream_readers import BaseStreamReader
from llmproxy.usage import Movers


class FreeEndpoint:
    """One endpoint without a price."""

    output_members: tuple[str, ...] = ()
    read_output_members = output_members
    is_free = True
    bytes_per_seen_byte = 1

    def __init__(self, name: str, upstream_path: str, refused: Mapping[str, str]) -> None:
        """Name the endpoint; `refused` gives the reason for each member that it may not have."""
        self.name = name
        self.upstream_path = upstream_path
        self._refused = refused

    def read_request(self, body: bytes) -> RequestFacts:
        """Read the model, which may be left out, and refuse what is not the user's own."""
        fields = parse_object(body, {"model", PREVIOUS, *self._refused})
        refuse_members(fields, self._refused)
        for part in parts(fields.get("input"), fields.get("messages"), fields.get("system")):
            refuse_kept(part)
        refuse_references(fields.get("input"))
        return RequestFacts(
            model=text(fields, "model") or "",
            is_stream=False,
            output_max=0,
            choices=1,
            input=InputFacts(0),
            movers=Movers(),
            may_write_cache=False,
            previous_response_id=text(fields, PREVIOUS),
        )

    def upstream_body(self, body: bytes, facts: RequestFacts, *, injects_usage: bool) -> bytes:
        """Return the body as it is."""
        del facts, injects_usage
        return body

    def read_answer(self, body: bytes) -> Reading:
        """Read nothing: there is nothing to bill."""
        del body
        return Reading()

    def stream_reader(self, *, withholds_usage: bool) -> "UnmeteredStreamReader":
        """Return a reader that reads nothing."""
        del withholds_usage
        return UnmeteredStreamReader()


class UnmeteredStreamReader(BaseStreamReader):
    """Counts the bytes of a stream that this endpoint does not have; see `StreamReader`."""

    def __init__(self) -> None:
        """Start with nothing seen; whatever comes is taken for a whole answer."""
        super().__init__()
        self.events = EventStream(self)

    @property
    @override
    def is_complete(self) -> bool:
        """Wherever it ends: nothing is known of it."""
        return True

    @override
    def on_event(self, name: bytes, data: bytes) -> bool:
        """Take an event; none is ever withheld."""
        del name
        self.counted_bytes += len(data)
        return False

    @override
    def _make_reading(self, seen_bytes: int) -> Reading:
        """Return how much has passed."""
        return Reading(seen_bytes=seen_bytes, problem="a stream that nobody asked for")
