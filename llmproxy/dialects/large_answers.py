"""Owns the reading of plain answers that are too large to be read as a whole.

What makes an answer large is one member: the vectors of embeddings, a picture, a long text. The
few that the bill depends on stand before or behind it, so an answer without its middle, closed up
to an object again, is read by its dialect like any other.
"""

import msgspec

from llmproxy.dialects.answers import UNREADABLE, refuse_zero
from llmproxy.dialects.base import Endpoint, Reading
from llmproxy.dialects.json_slowly import lexemes
from llmproxy.usage import UsageError

BEGINNING_BYTES = 16 * 1024
END_BYTES = 256 * 1024
"""Some answers repeat the request's tools between their output and its usage."""
_NAMES = (
    *(b'"usage"', b'"tool_usage"', b'"service_tier"', b'"model"', b'"error"'),
    *(b'"usageMetadata"', b'"modelVersion"'),
)
"""Members that a bill, or its reason, may depend on."""
_TRIES_MAX = 8
_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class LargeAnswer:
    """Takes an answer piece by piece and keeps its beginning and its end."""

    def __init__(self) -> None:
        """Start with nothing taken."""
        self.size = 0
        self._beginning = b""
        self._end = bytearray()

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the answer."""
        self.size += len(piece)
        if not self._beginning:
            piece = piece.lstrip()  # what some servers send to keep a client waiting
        if len(self._beginning) < BEGINNING_BYTES:
            self._beginning += piece[: BEGINNING_BYTES - len(self._beginning)]
        self._end += piece[-END_BYTES:]
        if len(self._end) > 2 * END_BYTES:
            del self._end[:-END_BYTES]

    def seen_bytes(self, endpoint: Endpoint) -> int:
        """Return for how many bytes of text the answer counts, as far as it has come."""
        return -(-self.size // endpoint.bytes_per_seen_byte)

    def reading(self, endpoint: Endpoint) -> Reading:
        """Return what was read of the answer, now that all of it has come.

        Without a usage at the beginning or the end, the reading says so: it is estimated then.
        """
        whole = self._without_middle()
        # What is no JSON object, such as sound, is read by what there is of it.
        read = endpoint.read_answer(self._beginning if whole is None else whole)
        if read.is_by_request:
            return read
        read = msgspec.structs.replace(
            read, seen_bytes=self.seen_bytes(endpoint), images=read.images or None
        )
        problem = read.problem
        if read.usage is None:
            # What was cut out says nothing against an object.
            is_without = problem is None or (whole is not None and read.raw_usage is None)
            if is_without and not read.has_error:
                problem = f"no usage at the beginning or end of an answer of {self.size:,} bytes"
            return msgspec.structs.replace(read, problem=problem)
        try:
            refuse_zero(read.usage, self.size)
        except UsageError as error:
            cost = read.usage.provider_cost
            return msgspec.structs.replace(
                read, usage=None, is_final=False, problem=str(error), provider_cost=cost
            )
        return read

    def _without_middle(self) -> bytes | None:
        """Return an object of the answer's first members and its last; None if it is no object."""
        first, last = _first_members(self._beginning), _last_members(bytes(self._end))
        if first is None:
            return None
        if not last:
            return first + b"}"
        return first + (b"" if first == b"{" else b",") + last


def _first_members(beginning: bytes) -> bytes | None:
    """Return an object's beginning up to the last comma between its own members, less that."""
    depth, end = 0, 0
    try:
        for kind, start, stop in lexemes(beginning):
            if not depth and kind != b"{":
                return None
            if kind in {b"{", b"["}:
                depth += 1
                end = end or stop
            elif kind in {b"}", b"]"}:
                depth -= 1
            elif kind == b"," and depth == 1:
                end = start
    except ValueError:
        pass  # here the beginning was cut off
    return beginning[:end].lstrip() if end else None


def _last_members(end: bytes) -> bytes:
    """Return an object's end from the earliest of the known members that are its own.

    What stands there is its own, and not within a text or another object, exactly when an object
    that begins there is whole at the end.
    """
    earliest = b""
    for name in _NAMES:
        position = len(end)
        for _ in range(_TRIES_MAX):
            position = end.rfind(name, 0, position)
            if position < 0:
                break
            is_escaped = end[position - 1 : position] in {b"\\", b""}
            if not is_escaped and _is_whole(b"{" + end[position:]):
                earliest = max(earliest, end[position:], key=len)
                break
    return earliest


def _is_whole(written: bytes) -> bool:
    try:
        _object_decoder.decode(written)
    except UNREADABLE:
        return False
    return True
