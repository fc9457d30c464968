"""Owns what the readers of all streams have in common: what is read when, and told when.

Most events pass unread (`sse.Deferral`). What they say is read when somebody asks: how much text
there was, or what is to be paid while nothing final has come. Once the last word has, the bill
stands, and the rest is read no more. Must not know what events mean: that is each dialect's.
"""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import msgspec
from typing_extensions import override

from llmproxy.dialects.answers import decoded_all, refuse_zero
from llmproxy.dialects.base import Reading
from llmproxy.dialects.event_lines import may_tell_error
from llmproxy.dialects.sse import Splitter
from llmproxy.usage import UsageError

E = TypeVar("E", bound=msgspec.Struct)


class BaseStreamReader(ABC):
    """Reads one stream; see `StreamReader` for what it tells, and `EventReader` for what it takes.

    A dialect's own says what events mean.
    """

    events: Splitter

    def __init__(self) -> None:
        """Start with nothing read."""
        self.is_over = False
        self._is_complete = False
        self.counted_bytes = 0
        """Of generated text, in what has been read."""
        self._at_end: Reading | None = None

    @property
    def is_complete(self) -> bool:
        """The answer has come to its proper end."""
        if self._at_end is None:
            self._catch_up()
        return self._is_complete

    @property
    def seen_bytes(self) -> int:
        """How much generated text has passed."""
        self._catch_up()
        return self.counted_bytes

    @property
    def seen_bytes_max(self) -> int:
        """The most that it can be, without a look at what has passed unread.

        Half more than that is long: the call of a tool counts for 31 bytes where it must have 24
        (`CALL_BYTES`), and an event may have many.
        """
        return self.counted_bytes + self.events.deferred_bytes * 3 // 2

    def reading(self) -> Reading:
        """Return what has been read so far; after the last word it is always the same."""
        if self._at_end is None:
            self._catch_up()  # which may come to the last word
        return self._at_end or self._tell()

    @abstractmethod
    def on_event(self, name: bytes, data: bytes) -> bool:
        """Take an event; see `EventReader`."""

    def on_deferred(self, datas: list[bytes]) -> bool:
        """Take the data of events that have passed unread; see `EventReader`."""
        del datas
        return False

    def on_finish(self) -> None:  # noqa: B027 - most have a last word
        """Take the end of the stream; see `EventReader`."""

    @abstractmethod
    def _make_reading(self, seen_bytes: int) -> Reading:
        """Return what the events that have been read tell, and so much text."""

    def _tell(self) -> Reading:
        """Return what has been read so far.

        What has come to its proper end was generated, also where nothing of it looks like text: it
        may have come in a shape that nobody knows. It counts for something, and is not free.
        """
        reading = self._make_reading(self.counted_bytes)
        is_told = reading.usage is not None or reading.seen_bytes or reading.has_error
        if not self._is_complete or is_told:
            return reading
        return msgspec.structs.replace(reading, seen_bytes=1)

    def _catch_up(self) -> None:
        """Read what has passed unread."""
        self.events.read_deferred()

    def _end(self) -> None:
        """Take the last word. What has passed unread is read only where it may change the bill.

        One that is read later, though it passed before, changes nothing any more.
        """
        if self._at_end is not None:
            return
        self._is_complete = True
        reading = self._read_at_end(b"".join(self.events.deferred))
        if reading is None or not self._is_believed(reading):
            self._catch_up()  # which may come to an earlier last word: nothing changes behind it
            self._is_complete = True
            reading = self._tell()
            if reading.is_final:
                reading = msgspec.structs.replace(reading, seen_bytes=0)
        self._at_end, self.is_over = reading, True
        self.events.defer_nothing()

    def _read_at_end(self, unread: bytes) -> Reading | None:
        """Return what is told at the end whatever the unread events say; None if that matters.

        Here they are such as only bring text.
        """
        return None if may_tell_error(unread) else self._make_reading(0)

    def _is_believed(self, reading: Reading) -> bool:
        """Say whether the text that has passed, however much it is, leaves the usage as it is."""
        if not reading.is_final or reading.usage is None:
            return False
        try:
            refuse_zero(reading.usage, self.seen_bytes_max)
        except UsageError:
            return False
        return True


class DeferringStreamReader(BaseStreamReader, Generic[E]):
    """Reads a stream most events of which may pass unread, and are then read several at once."""

    def __init__(self, decoder: msgspec.json.Decoder[E]) -> None:
        """Take what reads an event."""
        super().__init__()
        self._decoder = decoder

    @override
    def on_deferred(self, datas: list[bytes]) -> bool:
        """Take the data of events that have passed unread; see `EventReader`."""
        events = decoded_all(self._decoder, datas)
        if events is None or not self._may_wait(events):
            return False
        for event in events:
            self._take(event)
        return True

    @abstractmethod
    def _take(self, event: E) -> None:
        """Take an event that has been read."""

    def _take_one(self, event: E, data: bytes, *, is_whole: bool) -> None:
        """Take an event; where not all of it could be read, all of it counts as text.

        Mended JSON may be longer than it was, and counts for no more than `seen_bytes_max`.
        """
        before = self.counted_bytes
        self._take(event)
        if not is_whole:
            generated = self.counted_bytes - before
            self.counted_bytes = before + max(generated, self.events.unread_bytes(data))
        self.counted_bytes = min(self.counted_bytes, before + len(data) * 3 // 2)

    def _may_wait(self, events: list[E]) -> bool:
        """Say whether events could pass unread; else each of them has to come by itself."""
        del events
        return True
