"""Owns the recognition of events that say the same as one before, but for their text.

Nearly all events of a stream differ from the one before in one string, the next words, and in
little that does not matter: a number of the event, padding. Where all bytes around these are the
same, and nothing in them could end them early, such an event is the same JSON with another text,
and need not be parsed to be counted. Must never take for a repeat what a parser would read in
another way (but for text with bytes that no JSON may have).
"""

import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

LEARNT_MAX = 4
"""A stream whose first events are all unlike each other will hardly have repeats."""

# What follows the opening quote. Escapes count as they are written, as for those who parse; which
# look at each text with `\u` in it.
_PLAIN = rb'[^"\\\x00-\x1f]*+'
_TEXT = re.compile(rb'%b(?:\\(?:["/bfnrt]|\\(?!u))%b)*+"' % (_PLAIN, _PLAIN))
_NUMBER = re.compile(rb"[1-9][0-9]{0,8}+(?![0-9.eE])")


class Counter(Protocol):
    """Whoever counts the text."""

    seen_bytes: int


class Hole(NamedTuple):
    """What may differ between repeats, and what follows it."""

    match: Callable[[bytes, int], re.Match[bytes] | None]
    after: bytes
    after_bytes: int
    is_text: bool


class Repeats:
    """The event of one stream that the next ones are expected to repeat."""

    __slots__ = (
        *("_before", "_before_bytes", "_counter", "_keeps_last", "_holes", "_learnt"),
        *("event", "last"),
    )

    def __init__(self, counter: Counter) -> None:
        """Begin without any."""
        self._counter = counter
        self._learnt = 0
        self._before: bytes | tuple[bytes, ...] = ()
        """How repeats begin; nothing begins with one of none."""
        self._before_bytes = 0
        self._holes: tuple[Hole, ...] = ()
        self._keeps_last = False
        self.event = b""
        """The event that is being read, as it came."""
        self.last = b""
        """The last repeat, where its reader reads that."""

    def skip(self, chunk: bytes, start: int) -> int:
        """Count the text of all repeats that begin here; return where they end."""
        while chunk.startswith(self._before, start):
            position = start + self._before_bytes
            text_bytes = 0
            for match, after, after_bytes, is_text in self._holes:
                found = match(chunk, position)
                if found is None:
                    return start
                end = found.end()
                if not chunk.startswith(after, end):
                    return start
                if is_text:
                    text_bytes = end - position - 1
                position = end + after_bytes
            self._counter.seen_bytes += text_bytes
            if self._keeps_last:
                self.last = chunk[start:position]
            start = position
        return start

    @property
    def may_learn(self) -> bool:
        """Whether it is still worth while."""
        return self._learnt < LEARNT_MAX

    def learn(
        self, data: bytes, member: bytes, text: bytes, *varied: bytes, keeps_last: bool = False
    ) -> None:
        """Expect repeats of an event that says nothing but a text, where it is clear which.

        Args:
            data: its JSON, which stands in `event`; nothing is learnt where that is in several
                lines, or others follow.
            member: the name of the member with the text.
            text: its value, as it stands there: a JSON string with its quotes.
            varied: names of members, strings or numbers, whose values do not matter, or only those
                of the last repeat.
            keeps_last: the reader reads the `last` one.
        """
        if len(text) <= 2 or text[:1] != b'"':
            return  # the first event often has no text, and more besides
        self._learnt += 1
        self.forget()
        lines = self.event.rstrip(b"\r\n")
        if b"\\" in data or not lines.endswith(data) or self.event[-1:] == b"\r":
            return
        begins = len(lines) - len(data)
        spans = [(begins + _value(data, member), True)]
        if not self.event.startswith(text, spans[0][0]):
            return
        spans += [(begins + at, False) for name in varied if (at := _value(data, name))]
        self._keeps_last = keeps_last
        self._expect(sorted(spans))

    def _expect(self, spans: list[tuple[int, bool]]) -> None:
        """Expect repeats of `event` with other values at these places, one of which is the text."""
        event = self.event
        holes: list[Hole] = []
        before = event
        for at, is_text in reversed(spans):
            is_string = event.startswith(b'"', at)
            begins = at + is_string
            found = (_TEXT if is_string else _NUMBER).match(event, begins)
            if found is None:
                return
            after = before[found.end() :]
            before = before[:begins]
            holes.insert(0, Hole(found.re.match, after, len(after), is_text))
        self._before, self._before_bytes, self._holes = before, len(before), tuple(holes)

    def forget(self) -> None:
        """Expect no repeats until another event is learnt."""
        self._before = ()


def _value(data: bytes, name: bytes) -> int:
    """Return where the value of a member begins; 0 where it is not clear which, or there is none.

    Without a backslash in the JSON, a quoted name and a colon are nothing but a member.
    """
    label = b'"%b":' % name
    at = data.find(label) + len(label)
    if at < len(label) or data.find(label, at) >= 0:
        return 0
    return at + data.startswith(b" ", at)
