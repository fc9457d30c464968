"""What may pass of a chunk of a growing stream that must not pass as a whole."""

import json

import pytest

from llmproxy.cover import PIECE_BYTES, Cover, PileTooLargeError
from llmproxy.dialects import sse
from llmproxy.dialects.base import Reading
from llmproxy.dialects.openai_chunks import ChunkStreamReader
from llmproxy.dialects.sse import EventTooLargeError
from tests.test_gate import Scene, growing

ENDLESS = b"data: " + b"x" * 1100


def event(text: str) -> bytes:
    """An event that fills a piece by itself, so that a pile is read one by one."""
    choice = {"index": 0, "delta": {"content": text}, "logprobs": "x" * PIECE_BYTES}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def plain_event(text: str) -> bytes:
    """An event with this text, and little else."""
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


def len_of(reading: Reading) -> int:
    return reading.seen_bytes


@pytest.fixture
def cover(monkeypatch: pytest.MonkeyPatch) -> Cover:
    """Of a stream that holds 1,000 tokens, which 2,000 bytes of text may be."""
    monkeypatch.setattr(sse, "EVENT_BYTES_MAX", 1000)
    reader = ChunkStreamReader(withholds_usage=False)
    return Cover(growing(Scene(), b"hold"), reader, len_of)


def test_pieces_that_are_held_pass_though_a_later_one_is_too_large(cover: Cover) -> None:
    events = [event("a" * 900), event("b" * 1100)]
    with pytest.raises(PileTooLargeError, match="1,000 bytes") as raised:
        cover.read(b"".join([*events, ENDLESS]))
    assert raised.value.beginning == b"".join(events)


def test_pieces_that_are_not_held_do_not_pass(cover: Cover) -> None:
    events = [event("a" * 900), event("b" * 1101)]
    with pytest.raises(PileTooLargeError) as raised:
        cover.read(b"".join([*events, ENDLESS]))
    assert raised.value.beginning == events[0]


@pytest.mark.parametrize("blank", [b"\n\n", b"\r\n\r\n"])
def test_a_pile_is_cut_between_events_however_their_lines_end(cover: Cover, blank: bytes) -> None:
    """Gemini's end in CRLF. 2,000 bytes of text are held; half an event would tell nothing."""
    events = [plain_event("a" * 30).replace(b"\n\n", blank) for _ in range(100)]
    with pytest.raises(PileTooLargeError) as raised:
        cover.read(b"".join([*events, ENDLESS]))
    passed = raised.value.beginning
    assert passed == b"".join(events[: passed.count(blank)])
    assert 1 <= passed.count(blank) <= 2000 // 30


def test_nothing_passes_twice(cover: Cover) -> None:
    """What was read before has passed, when the next chunk turns out to be too large."""
    pile = event("a") + event("b")
    assert cover.read(pile) == pile
    with pytest.raises(EventTooLargeError) as raised:
        cover.read(ENDLESS)
    assert not isinstance(raised.value, PileTooLargeError)
    assert cover.read(pile) == pile
    with pytest.raises(PileTooLargeError) as again:
        cover.read(ENDLESS * 5)
    assert again.value.beginning == b""


def test_it_is_told_when_the_hold_needs_a_look(cover: Cover) -> None:
    """Half a step before its end: at 1,000 bytes of text."""
    cover.read(event("a" * 1000))
    assert not cover.is_outgrown
    cover.read(event("a"))
    assert cover.is_outgrown


def fresh(*, withholds_usage: bool = False) -> Cover:
    """Likewise, with events of any usual length."""
    reader = ChunkStreamReader(withholds_usage=withholds_usage)
    return Cover(growing(Scene(), b"hold"), reader, len_of)


def test_of_an_event_that_goes_on_only_so_much_passes_as_is_held() -> None:
    """2,000 bytes of text. The event before it, unread, may have 690 of them."""
    cover, whole, long = fresh(), plain_event("a" * 400), plain_event("b" * 1900)
    assert cover.read(whole) == whole
    assert cover.read(long[:1250]) == long[:1250]
    assert cover.read(long[1250:1400]) + cover.read(long[1400:-1]) == b""
    assert cover.read(long[-1:] + b"data") == long[1250:]
    assert cover.is_outgrown
    assert cover.read(b": x") == b""
    assert cover.read(b"\n\n") == b"data: x\n\n"


@pytest.mark.parametrize("withholds", [False, True])
def test_what_is_whole_passes_though_something_long_has_begun(withholds: bool) -> None:
    cover, whole, long = fresh(withholds_usage=withholds), plain_event("a"), plain_event("b" * 3000)
    assert cover.read(whole + long[:-1]) == whole
    assert cover.read(long[-1:]) == long


def test_what_is_kept_passes_with_the_end() -> None:
    unended = plain_event("b" * 2200).rstrip()
    cover = fresh()
    assert cover.read(unended) == unended[:0]
    assert cover.read(None) == unended
    assert cover.is_outgrown


def test_behind_the_last_word_nothing_is_kept() -> None:
    last = plain_event("b" * 900) + b"data: [DONE]\n\n"
    cover = fresh()
    assert cover.read(last + b": a comment without an end" * 90).startswith(last)
    assert cover.read(b"\n\n") == b"\n\n"


@pytest.mark.parametrize("size", [1, 7, 100, 1023, 9000, 99_999])
@pytest.mark.parametrize("withholds", [False, True])
def test_however_it_comes_all_passes_once_and_in_its_order(size: int, withholds: bool) -> None:
    cover = fresh(withholds_usage=withholds)
    texts = ["a" * 700, "b", "c" * 20_000, "d" * 900, ": ping", "e" * 20_000]
    whole = b"".join(plain_event(text) for text in texts) + b"data: [DONE]\n\n"
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert b"".join(cover.read(piece) for piece in [*pieces, None]) == whole


def dense(size: int) -> bytes:
    """An event of so much text, and 69 bytes more."""
    chunk = {"choices": [{"index": 0, "delta": {"content": "a" * size}}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def test_text_that_is_surely_held_is_not_even_counted() -> None:
    """Of 2,000 bytes that are held, 1,500 may have passed before there is a look, and not more.

    By the most that an event can have: half more than it is long.
    """
    reader = ChunkStreamReader(withholds_usage=False)
    cover = Cover(growing(Scene(), b"hold"), reader, lambda reading: reading.seen_bytes)
    cover.read(dense(900))
    assert 1400 < reader.seen_bytes_max <= 1500
    assert (cover.is_outgrown, reader.counted_bytes) == (False, 0)
    cover.read(dense(50))
    assert (cover.is_outgrown, reader.counted_bytes) == (False, 950)
    cover.read(dense(50))
    assert (cover.is_outgrown, reader.counted_bytes) == (False, 950)
    cover.read(dense(310))
    assert (cover.is_outgrown, reader.counted_bytes) == (True, 1310)


def test_where_all_is_held_nothing_is_counted() -> None:
    reader = ChunkStreamReader(withholds_usage=False)
    hold = growing(Scene(), b"hold")
    hold.look_at_bytes = 2**63
    cover = Cover(hold, reader, lambda reading: reading.seen_bytes)
    for _ in range(9):
        cover.read(dense(1000))
    assert (cover.is_outgrown, reader.counted_bytes) == (False, 0)
