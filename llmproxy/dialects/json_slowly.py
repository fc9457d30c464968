"""Owns the reading of large JSON texts without keeping other threads waiting, whatever is in them.

The standard parser is one call that keeps the interpreter to itself: 3 s for 32 MiB of `[[],[],…`.
This one is ten times slower, but no step of it takes longer than some milliseconds, and the tree it
returns is small: long texts are checked in place and only their beginnings kept (`LongText`).
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

VALUES_MAX = 250_000
"""Names and values. An agent's 30 MB have about 150,000: what makes a body large is text."""
DEPTH_MAX = 900
KEPT_BYTES_MAX = 4096
"""Longer texts keep only their beginning. One of 256 characters, the longest that is read for the
bill, has 3,072 bytes at most."""
_BEGINNING_CHARS = 1100
_NAME_BYTES_MAX = 64 * 1024
_UTF8_STEP_BYTES = 1024 * 1024

# Bounded and possessive: one match takes milliseconds at most and never goes back.
_LEXEME = re.compile(
    rb"[ \t\n\r]{0,262144}+"
    rb'(?:([{}\[\],:"])'
    rb"|(-?(?:0|[1-9][0-9]{0,5000}+)(?:\.[0-9]{1,5000}+)?+(?:[eE][+-]?[0-9]{1,5000}+)?+)"
    rb"|(true|false|null)"
    rb"|(NaN|-?Infinity))?"
)
_TEXT = re.compile(rb'(?:[^"\\\x00-\x1f]{1,8192}+|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})){0,64}+')
_BEGINNING = re.compile(
    rb'(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})){0,%d}+' % _BEGINNING_CHARS
)
_LITERALS = {b"true": True, b"false": False, b"null": None}


class OversizeError(ValueError):
    """The text may be JSON, but nobody needs so much of it."""


class AmbiguousError(ValueError):
    """The text is JSON, but not every parser would read it alike."""


class LongText(str):
    """The beginning of a long text, and where the whole of it stands in the body."""

    __slots__ = ("body", "end", "start")

    body: bytes
    start: int
    end: int
    """From the first character's byte up to the closing quote."""


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of these members.

    Raises:
        AmbiguousError: a key stands twice.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                msg = f"the key {key!r:.60} stands twice in one object"
                raise AmbiguousError(msg)
            seen.add(key)
    return found


def no_constant(name: str) -> None:
    """Refuse what Python would read as a number, though JSON has none such.

    Raises:
        AmbiguousError: always.
    """
    msg = f"{name} is not JSON"
    raise AmbiguousError(msg)


def lexemes(body: bytes, position: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind, start and end of each lexeme from a position on.

    The kind is the punctuation itself, `"` for a text, `0` for a number, `t` for a literal, `N` for
    NaN and Infinity.

    Raises:
        ValueError: something that is none.
    """
    size = len(body)
    while position < size:
        found = _LEXEME.match(body, position)
        assert found is not None
        end = found.end()
        group = found.lastindex
        if group is None:
            if end == position:
                msg = f"no JSON at {position}"
                raise ValueError(msg)
        else:
            start = found.start(group)
            kind = found[1] if group == 1 else b"0tN"[group - 2 : group - 1]
            if kind == b'"':
                end = _text_end(body, end)
            yield kind, start, end
        position = end


def _text_end(body: bytes, position: int) -> int:
    """Return where a text ends whose characters begin at a position."""
    while True:
        found = _TEXT.match(body, position)
        assert found is not None
        end = found.end()
        if body[end : end + 1] == b'"':
            return end + 1
        if end == position:
            msg = f"no text at {position}"
            raise ValueError(msg)
        position = end


def read_slowly(body: bytes) -> object:
    """Return the value of a JSON text; texts above 4 KiB only with their beginning.

    Raises:
        AmbiguousError: JSON, but not every parser would read it alike.
        OversizeError: of too many values.
        ValueError: no JSON in UTF-8.
        RecursionError: nested too deeply.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(body), _UTF8_STEP_BYTES):
        decoder.decode(body[start : start + _UTF8_STEP_BYTES])
    decoder.decode(b"", final=True)
    return _Reader(body).read()


_Step = Callable[["_Reader", bytes, int, int], None]


class _Reader:
    """Builds the tree. `_expects` takes the next lexeme; a stack stands in for recursion."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._expects: _Step = _Reader._value
        self._values = 0
        self._value_read: Any = None
        self._opened: list[tuple[list[Any] | None, bytes, str]] = []
        """What is open around the innermost container, with the names that wait for a value."""
        self._items: list[Any] | None = None
        """Of the innermost open container: its items, or pairs of names and values."""
        self._closing = b""
        self._name = ""

    def read(self) -> object:
        for kind, start, end in lexemes(self._body):
            self._expects(self, kind, start, end)
        if self._items is not None or self._expects is not _Reader._end_or_next:
            msg = "the text ends too soon"
            raise ValueError(msg)
        return self._value_read

    def _value(self, kind: bytes, start: int, end: int) -> None:
        self._count()
        if kind == b"{":
            self._open(b"}")
            self._expects = _Reader._first_name
        elif kind == b"[":
            self._open(b"]")
            self._expects = _Reader._first_value
        elif kind == b'"':
            self._take(self._text(start, end))
        elif kind == b"t":
            self._take(_LITERALS[self._body[start:end]])
        elif kind == b"0":
            number = self._body[start:end]
            is_whole = number.removeprefix(b"-").isdigit()
            self._take(int(number) if is_whole else float(number))
        elif kind == b"N":
            no_constant(self._body[start:end].decode())
        else:
            raise _unexpected(start)

    def _first_value(self, kind: bytes, start: int, end: int) -> None:
        if kind == b"]":
            self._close()
        else:
            self._value(kind, start, end)

    def _first_name(self, kind: bytes, start: int, end: int) -> None:
        if kind == b"}":
            self._close()
        else:
            self._next_name(kind, start, end)

    def _next_name(self, kind: bytes, start: int, end: int) -> None:
        if kind != b'"':
            raise _unexpected(start)
        self._count()
        if end - start > _NAME_BYTES_MAX:
            msg = f"a name has more than {_NAME_BYTES_MAX:,} bytes"
            raise OversizeError(msg)
        self._name = json.loads(self._body[start:end])
        self._expects = _Reader._colon

    def _colon(self, kind: bytes, start: int, _end: int) -> None:
        if kind != b":":
            raise _unexpected(start)
        self._expects = _Reader._value

    def _end_or_next(self, kind: bytes, start: int, _end: int) -> None:
        if self._items is None:
            raise _unexpected(start)
        if kind == self._closing:
            self._close()
        elif kind == b",":
            self._expects = _Reader._next_name if self._closing == b"}" else _Reader._value
        else:
            raise _unexpected(start)

    def _open(self, closing: bytes) -> None:
        if len(self._opened) >= DEPTH_MAX:
            raise RecursionError
        self._opened.append((self._items, self._closing, self._name))
        self._items, self._closing = [], closing

    def _close(self) -> None:
        closed: Any = self._items
        if self._closing == b"}":
            closed = no_duplicates(closed)
        self._items, self._closing, self._name = self._opened.pop()
        self._take(closed)

    def _take(self, value: object) -> None:
        if self._items is None:
            self._value_read = value
        else:
            self._items.append((self._name, value) if self._closing == b"}" else value)
        self._expects = _Reader._end_or_next

    def _count(self) -> None:
        self._values += 1
        if self._values > VALUES_MAX:
            msg = f"it has more than {VALUES_MAX:,} names and values"
            raise OversizeError(msg)

    def _text(self, start: int, end: int) -> str:
        if end - start > KEPT_BYTES_MAX:
            found = _BEGINNING.match(self._body, start + 1)
            assert found is not None
            text = found[0].decode(errors="ignore")  # the last character may be cut
            beginning = LongText(json.loads(f'"{text}"'))
            beginning.body, beginning.start, beginning.end = self._body, start + 1, end - 1
            return beginning
        raw = self._body[start:end]
        text = raw.decode()
        return str(json.loads(text)) if b"\\" in raw else text[1:-1]


def _unexpected(position: int) -> ValueError:
    return ValueError(f"unexpected at {position}")
