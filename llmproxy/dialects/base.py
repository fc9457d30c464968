"""Owns what every dialect offers the request path: how to read requests and answers.

A dialect's endpoint reads a request body into the few facts that matter for money, writes into
the body what must be written, and reads usage out of plain answers and event streams. It never
changes anything else.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from llmproxy.dialects.sse import EventStream
from llmproxy.errors import ApiError
from llmproxy.usage import Leg, Movers, Usage, UsageError

BYTES_PER_TOKEN = 3
"""Of generated text, where its tokens are not reported."""
SEARCHES_MAX_DEFAULT = 10
"""Where a request that may search the web sets no maximum."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for JSON that is none, of another shape, or nested without end."""


class InputFacts(msgspec.Struct, frozen=True):
    """What a request body says about the size of its input; `input_bound.py` judges it."""

    text_bytes: int
    """The body's bytes, less those of the images and PDFs in it."""
    has_tools: bool = False
    has_token_ids: bool = False
    """Text comes as numbers, which may have two bytes for a token."""
    media: int = 0
    """Images, in the body or linked, and documents; not the PDFs whose pages are counted."""
    pdf_pages: int = 0
    """Of the PDFs in the body."""
    rereads: str | None = None
    """The option by which the provider reads, and bills, the input again and again."""


class RequestFacts(msgspec.Struct, frozen=True):
    """What a request body says about its own cost.

    `output_max` is the request's own maximum of output tokens for one choice, None when it sets
    none that counts.
    """

    model: str
    is_stream: bool
    output_max: int | None
    choices: int
    input: InputFacts
    movers: Movers
    may_write_cache: bool
    may_write_cache_1h: bool = False
    searches: int = 0
    output_tokens_extra: int = 0
    unread_max: int | None = None
    """A maximum under none but names that the provider is not known to read. Where `output_max` is
    the same, it counts all the same: it is written in under a name that the provider does read."""
    hides_output: bool = False
    """Some of the output that is billed may not be seen in the answer, such as thinking."""
    asks_usage: bool = False
    """The client itself asked for a usage chunk in its stream."""
    has_stream_options: bool = False
    """The body has a member `stream_options`, of whatever type."""


class Reading(msgspec.Struct, frozen=True):
    """What has been read of an answer so far.

    `usage` is what the provider last reported; it is the bill only when `is_final`. `seen_bytes`
    counts the generated text that passed, for an estimate. `movers` is what the answer said of
    its tier, speed and region. `problem` says why a usage record was not trusted.
    """

    usage: Usage | None = None
    raw_usage: bytes | None = None
    is_final: bool = False
    model: str | None = None
    seen_bytes: int = 0
    movers: Movers = Movers()
    has_error: bool = False
    problem: str | None = None


class StreamReader(Protocol):
    """Reads one event stream as it passes."""

    is_complete: bool
    """The answer has come to its proper end: what follows is only bookkeeping."""
    is_over: bool
    """The provider's last word has come: nothing more can change the usage."""
    seen_bytes: int
    """How much generated text has passed."""

    @property
    def events(self) -> EventStream:
        """The splitter that bytes are fed to."""

    def reading(self) -> Reading:
        """Return what has been read so far."""


class Endpoint(Protocol):
    """One endpoint of a dialect; stateless."""

    name: str
    """As it stands in reports: `chat/completions`, `messages`."""
    upstream_path: str
    """Appended to the provider's base URL."""
    output_members: tuple[str, ...]
    """The members of a request that may set its maximum of output tokens; none where none can."""
    read_output_members: tuple[str, ...]
    """Those of them that the provider surely reads; the first is the one to write."""
    is_free: bool
    """The provider bills nothing for it: no hold, and a row with cost 0."""

    def read_request(self, body: bytes) -> RequestFacts:
        """Read the facts of a request.

        Raises:
            ApiError: 400, with a message that names what is wrong or cannot be metered.
        """

    def upstream_body(self, body: bytes, facts: RequestFacts, *, injects_usage: bool) -> bytes:
        """Return the bytes to send: the client's own, plus what must be written in."""

    def read_answer(self, body: bytes) -> Reading:
        """Read a whole plain answer."""

    def stream_reader(self, *, withholds_usage: bool) -> StreamReader:
        """Return a reader for one stream; it may withhold the usage chunk we asked for."""


_OPAQUE = frozenset({"input", "input_schema", "parameters", "arguments", "function"})
"""Members of a content part that hold somebody else's JSON: names in there mean nothing."""


ABSENT = msgspec.Raw()
"""A member that an answer does not have."""
_NULL = b"null"


def is_given(raw: msgspec.Raw) -> bool:
    """Say whether a member is there and not null."""
    return bytes(raw) not in {b"", _NULL}


def text_bytes(raw: msgspec.Raw) -> int:
    """Return the length of a JSON string without its quotes; null and absent are 0."""
    length = len(bytes(raw))
    return length - 2 if length > 2 and bytes(raw) != _NULL else 0


def parts(*contents: object) -> Iterator[dict[str, Any]]:
    """Yield every object within messages or system texts, at whatever depth of content."""
    waiting = [*contents]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += [item for item in node if isinstance(item, dict | list)]
        elif isinstance(node, dict):
            yield node
            for key, value in node.items():
                if isinstance(value, dict | list) and key not in _OPAQUE:
                    waiting.append(value)


def what_rereads(fields: dict[str, Any], searches: int) -> str | None:
    """Return what makes the provider read the input, and write what is not shown, again and again.

    That is the work of its own tools, and the compaction of a long context on the way.
    """
    if searches:
        return "tools: web_search"
    return "context_management" if fields.get("context_management") else None


def not_metered(option: str, why: str) -> ApiError:
    """Return the 400 for an option that cannot be metered."""
    message = f"`{option}` cannot be used through this proxy: {why}. Send the request without it."
    return ApiError(400, "option_not_metered", message, param=option)


NO_COUNTS = "usage has no token counts"
"""Of a record without what every answer has: input and output, or their total."""


def unreadable(body: bytes) -> Reading:
    """Return what can be said of a plain answer that is not the JSON of its dialect."""
    problem = "the answer is not the expected JSON" if body else None
    return Reading(seen_bytes=len(body), problem=problem)


def refuse_zero(usage: Usage, seen_bytes: int) -> None:
    """Check that an answer with text was not reported as no tokens at all.

    Raises:
        UsageError: it was.
    """
    if seen_bytes and not any(leg.input_side + leg.output for leg in usage.legs):
        msg = "usage reports no tokens for an answer with text"
        raise UsageError(msg)


def estimated(reading: Reading, input_tokens: int, output_tokens_max: int) -> Usage:
    """Return the documented estimate for an answer whose provider reported no final usage.

    Input as reported if any was, else the estimate of the request's; output the larger of what was
    reported and the generated bytes / 3, but not more than the request allowed. What the answer
    said of its tier, speed and region is kept; the request's own wishes are the caller's to add.
    """
    output = min(-(-reading.seen_bytes // BYTES_PER_TOKEN), output_tokens_max)
    if reading.usage is None:
        leg = Leg(input=input_tokens, output=output)
        tier, speed, geo = (reading.movers.service_tier, reading.movers.speed, reading.movers.geo)
        return Usage((leg,), service_tier=tier, speed=speed, geo=geo)
    first, *others = reading.usage.legs
    first = msgspec.structs.replace(first, output=max(first.output, output))
    return msgspec.structs.replace(reading.usage, legs=(first, *others))
