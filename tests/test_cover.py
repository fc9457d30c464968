"""What may pass of a chunk of a growing stream that must not pass as a whole."""

import json

import pytest

from llmproxy.cover import PIECE_BYTES, Cover, PileTooLargeError
from llmproxy.dialects import sse
from llmproxy.dialects.openai_chunks import ChunkStreamReader
from llmproxy.dialects.sse import EventTooLargeError
from tests.test_gate import Scene, growing

ENDLESS = b"data: " + b"x" * 1100


def event(text: str) -> bytes:
    """An event that fills a piece by itself, so that a pile is read one by one."""
    choice = {"index": 0, "delta": {"content": text}, "logprobs": "x" * PIECE_BYTES}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


@pytest.fixture
def cover(monkeypatch: pytest.MonkeyPatch) -> Cover:
    """Of a stream that holds 1,000 tokens, which 2,000 bytes of text may be."""
    monkeypatch.setattr(sse, "EVENT_BYTES_MAX", 1000)
    reader = ChunkStreamReader(withholds_usage=False)
    return Cover(growing(Scene(), b"hold"), reader, lambda reading: reading.seen_bytes)


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


def test_text_that_is_surely_held_is_not_even_counted() -> None:
    """However much of what passed is text, 2,000 bytes of it are held."""
    reader = ChunkStreamReader(withholds_usage=False)
    cover = Cover(growing(Scene(), b"hold"), reader, lambda reading: reading.seen_bytes)
    chunk = {"choices": [{"index": 0, "delta": {"content": "a" * 1250}}]}
    cover.read(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    assert 1900 < reader.seen_bytes_max <= 2000
    assert (cover.is_outgrown, reader.counted_bytes) == (False, 0)
    cover.read(event("a"))
    assert (cover.is_outgrown, reader.counted_bytes) == (True, 1251)
