"""Owns the recognition of events that say the same as one before, but for their text.

Nearly all events of an OpenAI or Anthropic stream differ from the one before in one string: the
next words. Where all bytes around it are the same, and nothing in it could end it early, such an
event is the same JSON with another text, and need not be parsed to be counted. Must never take for
a repeat what a parser would read in another way (but for text with bytes that no JSON may have).
"""

_OBFUSCATION = b'"obfuscation":'
"""OpenAI's padding of random length behind the text."""
LEARNT_MAX = 4
"""A stream whose first events are all unlike each other will hardly have repeats."""


class Repeats:
    """The event of one stream that the next ones are expected to repeat."""

    __slots__ = ("_after", "_before", "_between", "_learnt", "_name")

    def __init__(self) -> None:
        """Begin without any."""
        self._learnt = 0
        self._name: bytes | None = None
        self._before = b""
        """Up to the quote that opens the text."""
        self._between = b""
        """From the quote that closes the text to the one that opens the padding, if any."""
        self._after = b""
        """From the closing quote of the last of them to the end."""

    def text_bytes(self, name: bytes, data: bytes) -> int:
        """Return how many bytes the text of an event has if it is a repeat, else -1."""
        if name != self._name or b"\\" in data or not data.startswith(self._before):
            return -1
        opened = len(self._before)
        closes = closed = data.find(b'"', opened)
        if self._between:
            if not data.startswith(self._between, closes):
                return -1
            closed = data.find(b'"', closes + len(self._between))
        return closes - opened if data[closed:] == self._after else -1

    @property
    def may_learn(self) -> bool:
        """Whether it is still worth while."""
        return self._learnt < LEARNT_MAX

    def learn(self, name: bytes, data: bytes, member: bytes, written: bytes) -> None:
        """Expect repeats of an event that says nothing but a text, where it is clear which.

        Args:
            name: the event's.
            data: its JSON.
            member: the name of the member with the text.
            written: its value, as it stands there: a JSON string with its quotes.
        """
        self._learnt += 1
        self._name = None
        label = b'"%b":' % member
        if b"\\" in data or data.count(label) != 1 or data.count(_OBFUSCATION) > 1:
            return
        opens = data.find(b'"', data.find(label) + len(label))
        closes = opens + len(written) - 1
        if written[:1] != b'"' or data[opens : closes + 1] != written:
            return
        between, after = b"", data[closes:]
        if _OBFUSCATION in after:
            opened = after.find(b'"', after.find(_OBFUSCATION) + len(_OBFUSCATION)) + 1
            between, after = after[:opened], after[after.find(b'"', opened) :]
            if not between.rstrip(b' "').endswith(_OBFUSCATION):
                return  # it is no string
        self._name, self._before, self._between, self._after = (
            name,
            data[: opens + 1],
            between,
            after,
        )

    def forget(self) -> None:
        """Expect no repeats until another event is learnt."""
        self._name = None
