"""Owns what every dialect offers the request path: how to read requests and answers.

A dialect's endpoint reads a request body into the few facts that matter for money, writes into
the body what must be written, and reads usage out of plain answers and event streams. It never
changes anything else.

When an answer is at its end, and what that means for the bill:

    StreamReader.is_complete  the answer came to its proper end; only bookkeeping may follow.
                              Without it, or an error, the stream broke off: an estimate
    StreamReader.is_over      the last word came (`[DONE]`, `message_stop`): it is settled at once,
                              and what follows counts for nothing
    Reading.has_error         the provider itself ended the answer with an error: its usage counts
                              if it reports one
    Reading.is_final          `usage` can be trusted and nothing changes it any more: it is the
                              bill, and without it there is an estimate (`bill.py`)
    Reading.provider_cost     nothing changes the usage any more, but only its cost can be trusted:
                              the bill of models that are billed by that
    Ending.has_ended          (`settlement.py`) the hold is settled or released: nothing ends it
                              again
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from llmproxy.dialects.sse import Splitter
from llmproxy.errors import ApiError
from llmproxy.usage import Leg, Movers, Usage

BYTES_PER_TOKEN = 3
"""Of text, in and out, where its tokens are not known or not reported (reference wire.md C.2)."""
SEARCHES_MAX_DEFAULT = 10
"""Where a request that may search the web sets no maximum."""

PREVIOUS = "previous_response_id"
"""Names a response that was made through this proxy, if the ledger knows it as this user's."""
KEPT = "what such an id names is kept at the provider, and cannot have been made through this proxy"
"""Why all other ids are refused: the endpoints that make them are not served here."""
JSON_TYPE = b"application/json"
ESCAPE_EXCESS_BYTES = 3
"""Of `\\uXXXX`, which stands for three bytes at most."""


class StoredContext(msgspec.Struct, frozen=True):
    """What the provider keeps of a response and reads again when a request goes on from it."""

    tokens: int
    """All input and output of that response, earlier context included, as it was reported."""
    model: str
    """The model that counted them: another one may count otherwise."""


class ClipTokens(NamedTuple):
    """Of audio and video in a body, in the provider's own tokens."""

    most: int = 0
    """As far as can be told."""
    likely: int = 0


class InputFacts(msgspec.Struct, frozen=True):
    """What a request body says about the size of its input; `input_bound.py` judges it."""

    text_bytes: int
    """The body's bytes, with no character escaped, less those of the images and PDFs in it."""
    has_tools: bool = False
    has_token_ids: bool = False
    """Text comes as numbers, which may have two bytes for a token."""
    media: int = 0
    """Images, in the body or linked, and documents; not the PDFs whose pages are counted."""
    pdf_pages: int = 0
    """Of the PDFs in the body."""
    audio_s: int = 0
    """Seconds of the sound in the body, at most."""
    likely_audio_s: int = 0
    """The same, as well as can be told."""
    clip_tokens: ClipTokens = ClipTokens()
    """Of other audio, and of video, in the body."""
    unsure_clips: int = 0
    """Those of them of which the most is no bound."""
    rereads: str | None = None
    """The option by which the provider reads, and bills, the input again and again."""
    thoughts_by_id: int = 0
    """Earlier reasoning that is only named: the provider fills in what it keeps of it."""
    stored: StoredContext | None = None
    """What is read besides the body, of the response that it goes on from; the ledger knows it."""


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
    media: tuple[str, ...] = ()
    """Classes of audio and image tokens that it may cause, such as `input_audio`."""
    units: tuple[tuple[str, int], ...] = ()
    """What it may cause that is billed by the number: class and highest number, but searches."""
    likely_units: tuple[tuple[str, int], ...] = ()
    """As many of them count where an answer does not tell."""
    image_tokens: int = 0
    """As many are likely for each image that is made, where an answer does not tell."""
    lessened_by: tuple[str, ...] = ()
    """What to ask for so that there may be less output, besides a smaller maximum."""
    unbounded: tuple[str, str] | None = None
    """Why its cost has no upper bound, and what to do instead."""
    tokens_untold: tuple[str, str] | None = None
    """Why the answer will not tell its tokens, so that no model is served which is billed by them,
    and what to do instead."""
    content_type: bytes = JSON_TYPE
    """What the provider is told that the body is."""
    output_tokens_extra: int = 0
    unread_max: int | None = None
    """A maximum under none but names that the provider is not known to read. Where `output_max` is
    the same, it counts all the same: it is written in under a name that the provider does read."""
    names_output: bool = False
    """What kinds of output it may get besides text stands in `media`, also where that is none."""
    hides_output: bool = False
    """Some of the output that is billed may not be seen in the answer, such as thinking."""
    asks_usage: bool = False
    """The client itself asked for a usage chunk in its stream."""
    has_stream_options: bool = False
    """The body has a member `stream_options`, of whatever type."""
    previous_response_id: str | None = None
    """The response that the request goes on from, which the provider keeps."""
    output_within: str | None = None
    """The member in which its maximum of output tokens stands; None where it is the body itself."""
    may_stream_array: bool = False
    """The stream that it asks for may be one JSON array, called `application/json`."""
    keeps_response: bool = False
    """The provider is to keep the answer, so that another request can go on from it."""


class Reading(msgspec.Struct, frozen=True):
    """What has been read of an answer so far.

    `usage` is what the provider last reported; it is the bill only when `is_final`. `seen_bytes`
    counts the generated text that passed, for an estimate; behind the last word of a stream whose
    usage is final nobody may have counted it, and it is 0. `movers` is what the answer said of its
    tier, speed and region. `problem` says why a usage record was not trusted. `provider_cost` is
    what such a record, if nothing changes it any more, says that the provider bills, in 10⁻¹⁵ USD:
    the bill of some models all the same. `response_id` is by what the provider keeps the answer,
    None where it says that it does not. `is_by_request`: the bill is what was asked for
    (`RequestFacts.likely_units`), of which no answer tells more. `images` is how many have come,
    which counts where no tokens are reported of them; None where they cannot be counted, so that
    as many count as were asked for.
    """

    usage: Usage | None = None
    raw_usage: bytes | None = None
    is_final: bool = False
    model: str | None = None
    seen_bytes: int = 0
    movers: Movers = Movers()
    has_error: bool = False
    problem: str | None = None
    provider_cost: int | None = None
    response_id: str | None = None
    is_by_request: bool = False
    images: int | None = 0


class StreamReader(Protocol):
    """Reads one event stream as it passes."""

    is_over: bool
    """The provider's last word has come: nothing more can change the usage."""

    @property
    def is_complete(self) -> bool:
        """The answer has come to its proper end: what follows is only bookkeeping."""

    counted_bytes: int
    """How much generated text has been counted so far: at least so much has passed."""

    @property
    def seen_bytes(self) -> int:
        """How much generated text has passed, all of which is counted for that."""

    @property
    def seen_bytes_max(self) -> int:
        """The most that it can be, which costs nothing to ask."""

    @property
    def events(self) -> Splitter:
        """The splitter that the next bytes are fed to; another one once it is clear what comes."""

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
    bytes_per_seen_byte: int
    """So many of an answer that is too large to be read as a whole count as one of text."""

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


def written_bytes(written: bytes) -> int:
    r"""Return how many bytes a JSON text has, at least, when no character in it is escaped.

    `\uXXXX` stands for three bytes at most, two of them for a pair's four. `\\u` is no escape,
    but a backslash and a letter.
    """
    escapes = written.count(b"\\u")
    if not escapes:
        return len(written)
    return len(written) - ESCAPE_EXCESS_BYTES * (escapes - written.count(b"\\\\u"))


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


def refuse_members(fields: dict[str, Any], refused: Mapping[str, str]) -> None:
    """Refuse members that cannot be metered; null and false ask for nothing.

    Raises:
        ApiError: 400, naming the member and the reason that `refused` gives for it.
    """
    if refused.keys().isdisjoint(fields):
        return
    for key, why in refused.items():
        if fields.get(key) is not None and fields[key] is not False:
            raise not_metered(key, why)


def not_metered(option: str, why: str) -> ApiError:
    """Return the 400 for an option that cannot be metered."""
    message = f"`{option}` cannot be used through this proxy: {why}. Send the request without it."
    return ApiError(400, "option_not_metered", message, param=option)


def estimated(
    reading: Reading,
    input_tokens: int,
    output_tokens_max: int,
    image_tokens: int = 0,
    images_asked: int = 0,
) -> Usage:
    """Return the documented estimate for an answer whose provider reported no final usage.

    Input as reported if any was, else the estimate of the request's; output the largest of what was
    reported, the generated bytes / 3 and `image_tokens` for each image that has come, or was asked
    for where nobody knows how many came, but not more than the request allowed; these images count
    beside it. What the answer said of its tier, speed and region is kept; the request's own wishes
    are the caller's to add.
    """
    images = images_asked if reading.images is None else reading.images
    seen = max(-(-reading.seen_bytes // BYTES_PER_TOKEN), images * image_tokens)
    output = min(seen, output_tokens_max)
    if reading.usage is None:
        leg = Leg(input=input_tokens, output=output, images=images)
        tier, speed, geo = (reading.movers.service_tier, reading.movers.speed, reading.movers.geo)
        return Usage((leg,), service_tier=tier, speed=speed, geo=geo)
    first, *others = reading.usage.legs
    first = msgspec.structs.replace(first, output=max(first.output, output))
    return msgspec.structs.replace(reading.usage, legs=(first, *others))
