"""Splitting of event streams: the same bytes out, the same events read, however they arrive."""

import json

import pytest

from llmproxy.dialects import sse
from llmproxy.dialects.sse import HELD_BACK_BYTES_MAX, EventStream, EventTooLargeError

Event = tuple[bytes, bytes]

USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9}}'
"""Stands for the chunk that is to be withheld."""

SAMPLES = {
    "lf": b"event: a\ndata: 1\n\ndata: 2\n\n",
    "crlf": b"event: a\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n",
    "cr": b"event: a\rdata: 1\r\rdata: 2\r\r",
    "mixed": b"event: a\r\ndata: 1\n\r\ndata: 2\r\n\n" + b"event: b\rdata: 3\r\n\r\n",
    "bom": b"\xef\xbb\xbfdata: 1\n\ndata: 2\n\n",
    "comments": b": OPENROUTER PROCESSING\n\n: x\ndata: 1\n: y\n\n:\n\ndata: 2\n\n",
    "several data lines": b"data: 1\ndata: 2\n\ndata:3\ndata: \ndata:  4\n\n",
    "blank lines": b"\n\n\n\ndata: 1\n\n\n\n\ndata: 2\n\n",
    "unicode": 'data: "\u2028 \u2029 \x85 \x0b \x0c é 😀"\n\ndata: "後"\r\n\r\n'.encode(),
    "other fields": b"id: 7\nretry: 10\nevent:a\ndata:1\nunknown: x\n\ndata: 2\n\n",
}

EXPECTED: dict[str, list[Event]] = {
    "lf": [(b"a", b"1"), (b"", b"2")],
    "crlf": [(b"a", b"1"), (b"", b"2")],
    "cr": [(b"a", b"1"), (b"", b"2")],
    "mixed": [(b"a", b"1"), (b"", b"2"), (b"b", b"3")],
    "bom": [(b"", b"1"), (b"", b"2")],
    "comments": [(b"", b"1"), (b"", b"2")],
    "several data lines": [(b"", b"1\n2"), (b"", b"3\n\n 4")],
    "blank lines": [(b"", b"1"), (b"", b"2")],
    "unicode": [
        (b"", '"\u2028 \u2029 \x85 \x0b \x0c é 😀"'.encode()),
        (b"", '"後"'.encode()),
    ],
    "other fields": [(b"a", b"1"), (b"", b"2")],
}

WITHHELD_LINE_ENDS = {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}


class Splitter:
    """A stream that withholds the events with usage, and what came out of it."""

    def __init__(self, *, holds_back: bool) -> None:
        self.events: list[Event] = []
        self.unread: list[int] = []
        """For how much of each its reader would count it, could it not read it."""
        self.ends: list[int] = []
        """Behind how many events it was told of the stream's end."""
        self.is_over = False
        self.stream = EventStream(self, holds_back=holds_back)

    def on_event(self, name: bytes, data: bytes) -> bool:
        self.events.append((name, data))
        self.unread.append(self.stream.unread_bytes(data))
        return b'"usage"' in data

    def on_deferred(self, datas: list[bytes]) -> bool:
        raise AssertionError(datas)  # none is, by default

    def on_finish(self) -> None:
        self.ends.append(len(self.events))

    def run(self, *chunks: bytes) -> bytes:
        passed = b"".join(self.stream.feed(chunk) for chunk in chunks)
        return passed + self.stream.finish()


def cuts(sample: bytes) -> list[list[bytes]]:
    """Every cut into two, all cuts into single bytes, and the whole."""
    in_two = [[sample[:at], sample[at:]] for at in range(1, len(sample))]
    return [[sample], [bytes([byte]) for byte in sample], *in_two]


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("holds_back", [False, True])
def test_events_and_bytes_are_the_same_however_the_stream_is_cut(
    name: str, holds_back: bool
) -> None:
    sample = SAMPLES[name]
    for chunks in cuts(sample):
        splitter = Splitter(holds_back=holds_back)
        assert splitter.run(*chunks) == sample, chunks
        assert splitter.events == EXPECTED[name], chunks


@pytest.mark.parametrize("end", WITHHELD_LINE_ENDS)
@pytest.mark.parametrize("cut_off", [False, True])
def test_exactly_the_withheld_event_is_missing_however_the_stream_is_cut(
    end: str, cut_off: bool
) -> None:
    eol = WITHHELD_LINE_ENDS[end]
    before = b'data: {"choices":[1]}' + eol + eol
    after = b"data: [DONE]" + eol + eol
    if cut_off:  # the server ends without the last blank line
        sample, wanted = before + USAGE, before
    else:
        sample, wanted = before + USAGE + eol + eol + after, before + after
    for chunks in cuts(sample):
        splitter = Splitter(holds_back=True)
        assert splitter.run(*chunks) == wanted, chunks
        assert len(splitter.events) == (2 if cut_off else 3)


@pytest.mark.parametrize("around", [b"\n", b"\r\n"])
def test_blank_lines_beside_a_withheld_event_still_pass(around: bytes) -> None:
    event = USAGE + b"\r\n\r\n"
    after = around + b"data: 1\n\n"
    assert Splitter(holds_back=True).run(around * 2 + event) == around * 2
    assert Splitter(holds_back=True).run(event, after) == after
    assert Splitter(holds_back=True).run(USAGE + b"\n\n" + b": x\r\n\r\n", after) == (
        b": x\r\n\r\n" + after
    )
    assert Splitter(holds_back=True).run(b": x\r\n\r\n" + USAGE + b"\n\n", after) == (
        b": x\r\n\r\n" + after
    )


def test_a_withheld_event_may_come_as_a_chunk_of_its_own() -> None:
    before, after = b"data: 1\n\n", b"data: [DONE]\n\n"
    splitter = Splitter(holds_back=True)
    assert [splitter.stream.feed(each) for each in (before, USAGE + b"\n\n", after)] == [
        before,
        b"",
        after,
    ]


def test_a_byte_order_mark_is_one_at_the_very_beginning_only() -> None:
    splitter = Splitter(holds_back=False)
    splitter.run(b"data: 1\n\n\xef\xbb\xbfdata: 2\n\ndata: 3\n\n")
    assert splitter.events == [(b"", b"1"), (b"", b"3")]


def test_an_event_without_a_final_newline_still_counts_and_passes() -> None:
    for sample in (b"data: 1\n\ndata: 2", b"data: 1\n\ndata: 2\n"):
        for holds_back in (False, True):
            splitter = Splitter(holds_back=holds_back)
            assert splitter.run(sample) == sample
            assert splitter.events == [(b"", b"1"), (b"", b"2")]


def test_the_end_of_an_empty_stream_is_nothing() -> None:
    splitter = Splitter(holds_back=True)
    assert splitter.run() == b""
    assert splitter.run(b"") == b""
    assert splitter.events == []


def test_without_holding_back_every_chunk_passes_at_once() -> None:
    splitter = Splitter(holds_back=False)
    for chunk in (b"da", b"ta: 1", b"\n", b"\n", USAGE, b"\n\n"):
        assert splitter.stream.feed(chunk) == chunk


def test_an_unfinished_event_is_held_back_until_it_is_complete() -> None:
    splitter = Splitter(holds_back=True)
    assert splitter.stream.feed(b"data: 1\n\ndata: {") == b"data: 1\n\n"
    assert splitter.stream.feed(b"}\n") == b""
    assert splitter.stream.feed(b"\n") == b"data: {}\n\n"


def test_no_more_than_16_kib_of_an_unfinished_event_are_held_back() -> None:
    splitter = Splitter(holds_back=True)
    start = b"data: " + b"x" * (HELD_BACK_BYTES_MAX - 6)
    assert HELD_BACK_BYTES_MAX == 16 * 1024
    assert splitter.stream.feed(start) == b""
    assert splitter.stream.feed(b"y") == start + b"y"
    assert splitter.stream.feed(b"z") == b"z"
    assert splitter.stream.feed(b"\n\ndata: 2\n\n") == b"\n\ndata: 2\n\n"
    assert [len(data) for _, data in splitter.events] == [HELD_BACK_BYTES_MAX - 6 + 2, 1]


@pytest.mark.parametrize("is_ended", [True, False])
def test_a_usage_event_that_was_partly_passed_on_is_passed_to_its_end(is_ended: bool) -> None:
    data = {"usage": {}, "choices": [], "padding": "x" * HELD_BACK_BYTES_MAX}
    event = b"data: " + json.dumps(data).encode() + (b"\n\n" if is_ended else b"")
    splitter = Splitter(holds_back=True)
    at = HELD_BACK_BYTES_MAX + 10
    assert splitter.run(event[:at], event[at:]) == event
    assert len(splitter.events) == 1


def test_a_long_event_in_one_chunk_with_its_end_can_still_be_withheld() -> None:
    event = USAGE[:-1] + b',"padding":"' + b"x" * 100_000 + b'"}\n\n'
    assert Splitter(holds_back=True).run(event + b"data: 1\n\n") == b"data: 1\n\n"


@pytest.mark.parametrize("holds_back", [False, True])
def test_a_line_of_5_mb_comes_whole_and_quickly(holds_back: bool) -> None:
    line = b'data: "' + b"x" * 5_000_000 + b'"'
    sample = b"data: 1\n\n" + line + b"\n\ndata: 2\n\n"
    pieces = [sample[at : at + 16_000] for at in range(0, len(sample), 16_000)]
    splitter = Splitter(holds_back=holds_back)
    assert splitter.run(*pieces) == sample
    assert [len(data) for _, data in splitter.events] == [1, len(line) - 6, 1]


def test_an_unreadable_event_counts_in_full_unless_the_end_of_the_stream_cut_it_short() -> None:
    splitter = Splitter(holds_back=False)
    splitter.run(b"data: {12\n\ndata: {", b"123")
    assert splitter.unread == [3, 0]


def test_an_event_of_nothing_but_comments_reaches_no_reader() -> None:
    splitter = Splitter(holds_back=True)
    assert splitter.run(b": ping\n\n: ping\r\n\r\n") == b": ping\n\n: ping\r\n\r\n"
    assert splitter.events == []


def test_an_event_that_does_not_end_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_BYTES_MAX", 1000)
    stream = Splitter(holds_back=False).stream
    stream.feed(b"data: " + b"x" * 994)
    with pytest.raises(EventTooLargeError, match="1,000 bytes"):
        stream.feed(b"y")


def test_a_piece_without_bytes_changes_nothing() -> None:
    pieces = (b"", b"data: 1\r\r", b"", b"\n", b"", b"da", b"", b"ta: 2\n\n", b"")
    for holds_back in (False, True):
        splitter = Splitter(holds_back=holds_back)
        assert splitter.run(*pieces) == b"".join(pieces)
        assert splitter.events == [(b"", b"1"), (b"", b"2")]


@pytest.mark.parametrize("holds_back", [False, True])
def test_it_is_told_how_much_has_passed_of_what_has_not_ended(holds_back: bool) -> None:
    splitter = Splitter(holds_back=holds_back)  # which its stream does not keep alive
    stream = splitter.stream
    assert stream.open_bytes == 0
    stream.feed(b"data: 1\n\ndata: 2")
    assert stream.open_bytes == (0 if holds_back else len(b"data: 2"))
    stream.feed(b"2" * HELD_BACK_BYTES_MAX)
    assert stream.open_bytes == len(b"data: 2") + HELD_BACK_BYTES_MAX
    stream.feed(b"\n\n")
    assert stream.open_bytes == 0


@pytest.mark.parametrize("rest", [b"", b"data: 2", b": 2", b"data: 2\n\n"])
def test_the_end_is_told_once_behind_all_events(rest: bytes) -> None:
    splitter = Splitter(holds_back=True)
    splitter.run(b"data: 1\n\n" + rest)
    assert splitter.ends == [2 if b"data" in rest else 1]


def test_what_hands_everything_over_at_once_has_nothing_open() -> None:
    assert sse.Undeferred().open_bytes == 0


def test_every_byte_passes_of_an_event_cut_behind_one_that_was_too_long_to_be_held_back() -> None:
    long = b"data: " + b"x" * (HELD_BACK_BYTES_MAX + 4000) + b"\n\n"
    after = b"data: 1\n\n"
    chunks = (long[:18_000], long[18_000:], after[:3], after[3:])
    assert Splitter(holds_back=True).run(*chunks) == long + after


def test_a_withheld_event_takes_only_the_end_of_its_own_lines_with_it() -> None:
    """It ends in CR, which a LF may follow, but not where another event has come between."""
    chunks = (USAGE[:40], USAGE[40:] + b"\r\rdata: {}\n\n", b"\ndata: {}\n\n")
    assert Splitter(holds_back=True).run(*chunks) == b"data: {}\n\n\ndata: {}\n\n"
