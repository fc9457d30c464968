"""Owns what answers with images, sound and transcripts of OpenAI's have in common.

Their usage is read here, plain or streamed, and with it what the provider itself bills. Must not
know what of an event was generated, nor what the counts mean: that is each endpoint's.
"""

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec
from typing_extensions import override

from llmproxy.dialects.answers import ABSENT, decoded, is_given, make_reading, text_of
from llmproxy.dialects.base import Reading
from llmproxy.dialects.openai_usage import read_provider_cost, with_cost
from llmproxy.dialects.sse import EventStream
from llmproxy.dialects.stream_readers import BaseStreamReader
from llmproxy.usage import Leg, Movers, Usage

Legs = Callable[[Any], tuple[Leg, ...]]
"""Reads what was used from an answer's usage, None where it has none.

Raises UsageError for what cannot be true.
"""


class MediaEvent(msgspec.Struct):
    """An event as far as money goes; each endpoint's own adds what it generates."""

    type: str | None = None
    usage: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


E = TypeVar("E", bound=MediaEvent)


def read_media(
    usage: msgspec.Raw,
    legs: Legs,
    *,
    beside: Mapping[str, msgspec.Raw],
    model: msgspec.Raw = ABSENT,
    seen_bytes: int,
    is_final: bool,
    has_error: bool,
) -> Reading:
    """Return what has been read of an answer, with the cost that its provider reports.

    Args:
        usage: the usage object as it came; absent or null when there is none.
        legs: reads it.
        beside: other members of the answer that `legs` reads.
        model: the model that answered.
        seen_bytes: how much generated text has passed, or what other data counts for.
        is_final: nothing more can come that changes the usage.
        has_error: the answer is, or ended in, an error.
    """

    def read() -> Usage:
        told = msgspec.json.decode(usage) if is_given(usage) else None
        return Usage(legs(told), provider_cost=read_provider_cost(told))

    reading = make_reading(
        _record(usage, beside),
        read,
        model=text_of(model),
        movers=Movers(),
        seen_bytes=seen_bytes,
        is_final=is_final,
        has_error=has_error,
    )
    return reading if reading.problem is None else with_cost(reading, usage, is_final=is_final)


def _record(usage: msgspec.Raw, beside: Mapping[str, msgspec.Raw]) -> bytes | None:
    """Return what a charge rests on as it came: the usage, in an object with what stood beside."""
    others = {name: raw for name, raw in beside.items() if is_given(raw)}
    if not others:
        return bytes(usage) if is_given(usage) else None
    return msgspec.json.encode({"usage": usage, **others} if is_given(usage) else others)


class MediaStreamReader(BaseStreamReader, Generic[E]):
    """Reads one stream of an image, of speech or of a transcript; see `StreamReader`."""

    def __init__(
        self,
        decoder: msgspec.json.Decoder[E],
        ends: tuple[str, ...],
        generated: Callable[[E, bytes, int | None], int],
        legs: Legs,
        *,
        whole_bytes_min: int = 0,
    ) -> None:
        """Begin with nothing seen.

        Args:
            decoder: reads one event.
            ends: the types of the event that is the last.
            generated: returns for how many bytes of generated text an event counts, by what was
                read of it and its data; its third argument is None, or what counts of an event that
                could not be read.
            legs: reads the usage.
            whole_bytes_min: the least that a whole stream counts for.
        """
        super().__init__()
        self.events = EventStream(self)
        self._decoder = decoder
        self._ends = ends
        self._generated = generated
        self._legs = legs
        self._whole_bytes_min = whole_bytes_min
        self._usage: msgspec.Raw = ABSENT
        self._has_error = False

    @override
    def _make_reading(self, seen_bytes: int) -> Reading:
        """Return what has been read so far."""
        return read_media(
            self._usage,
            self._legs,
            beside={},
            seen_bytes=max(seen_bytes, self._whole_bytes_min if self._is_complete else 0),
            is_final=self._is_complete or self._has_error,
            has_error=self._has_error,
        )

    @override
    def on_event(self, name: bytes, data: bytes) -> bool:
        """Take an event; none is ever withheld."""
        event, is_whole = decoded(self._decoder, data)
        # Some who speak the dialect leave out the one or the other.
        kind = event.type or name.decode("latin-1")
        if kind == "error" or is_given(event.error):
            self._has_error = True
        unread = None if is_whole else self.events.unread_bytes(data)
        self.counted_bytes += self._generated(event, data, unread)
        if is_given(event.usage):
            self._usage = event.usage
        if kind in self._ends:
            self._is_complete = self.is_over = True
        return False
