"""A stream of Gemini's whose last chunk is read alone: the same is told as where each chunk is."""

import json
from typing import Any

import pytest

from llmproxy.dialects.base import Reading
from llmproxy.dialects.gemini_chunks import GeminiStreamReader
from llmproxy.dialects.gemini_contents import STREAM, GeminiContents
from llmproxy.usage import Leg

PROMPT = {"promptTokenCount": 9}
ENDED = {"content": {"parts": []}, "finishReason": "STOP"}
Told = tuple[Reading, bool]


def event(eol: str = "\r\n", **members: object) -> bytes:
    return f"data: {json.dumps(members)}{eol}{eol}".encode()


def text(words: str = "a", **members: object) -> bytes:
    candidate = {"content": {"parts": [{"text": words}]}, "index": 0}
    chunk: dict[str, Any] = {"candidates": [candidate], "modelVersion": "m", **members}
    return event(**chunk)


def last(usage: dict[str, Any], **members: object) -> bytes:
    candidate = {**ENDED, "index": 0}
    told: dict[str, Any] = {"candidates": [candidate], "modelVersion": "m", "usageMetadata": usage}
    return event(**{**told, **members})


def new_reader(model: str = "gemini-2.5-flash") -> GeminiStreamReader:
    return GeminiContents(STREAM, model).stream_reader(withholds_usage=False)


def told(reader: GeminiStreamReader, *events: bytes, asks: str = "at the end") -> Told:
    """What a reader tells of a stream; it may be asked for more before the end comes."""
    for one in events:
        reader.events.feed(one)
        if asks == "each":
            assert reader.seen_bytes >= 0
        elif asks == "all":
            assert reader.reading().seen_bytes >= 0
    reader.events.finish()
    return reader.reading(), reader.is_complete


SOME = {**PROMPT, "candidatesTokenCount": 5, "totalTokenCount": 14}
MORE = {**PROMPT, "candidatesTokenCount": 70, "thoughtsTokenCount": 30, "totalTokenCount": 109}
SOUND = [{"modality": "AUDIO", "tokenCount": 4}, {"modality": "TEXT", "tokenCount": 5}]
WORDS = [{"modality": "TEXT", "tokenCount": 9}]
CASES: dict[str, list[bytes]] = {
    "ordinary": [text(usageMetadata=SOME), text(), last(MORE)],
    "one chunk": [last(MORE)],
    "counts left out": [text(usageMetadata=MORE), text(usageMetadata=SOME), last(PROMPT)],
    "counts of nothing": [text(usageMetadata=MORE), last({**PROMPT, "thoughtsTokenCount": 0})],
    "counts told again": [
        text(usageMetadata=MORE),
        text(usageMetadata={**PROMPT, "thoughtsTokenCount": 4}),
        text(usageMetadata={**PROMPT, "thoughtsTokenCount": 0}),
        last(PROMPT),
    ],
    "only the first tells the prompt": [text(usageMetadata=SOME), last({"totalTokenCount": 40})],
    "the cache of an earlier prompt": [
        text(usageMetadata={**SOME, "cachedContentTokenCount": 4}),
        last(PROMPT),
    ],
    "counts that are none": [text(usageMetadata={"candidatesTokenCount": "7"}), last(PROMPT)],
    "no usage": [text(), last({})],
    "usage of nothing": [text(), last({"promptTokenCount": 0, "totalTokenCount": 0})],
    "usage that cannot be true": [text(), last({**MORE, "cachedContentTokenCount": 12})],
    "another candidate": [text(), event(candidates=[{"index": 1}]), last(MORE)],
    "the third candidate": [text(), event(candidates=[{"index": 2}]), last(MORE)],
    "a candidate of a strange number": [text(), event(candidates=[{"index": -1}]), last(MORE)],
    "another candidate, loosely": [
        text(),
        event(candidates=[{"index": 1}]).replace(b'":', b'" :'),
        last(MORE),
    ],
    "another candidate, tightly": [
        text(),
        event(candidates=[{"index": 1}]).replace(b": 1", b":1"),
        last(MORE),
    ],
    "both have ended": [text(), last(MORE, candidates=[ENDED, {**ENDED, "index": 1}])],
    "one of both has": [text(), last(MORE, candidates=[ENDED, {"index": 1}])],
    "none has": [text(), text(usageMetadata=MORE)],
    "ended before": [last(SOME), text(usageMetadata=MORE)],
    "usage alone at the end": [last(SOME), event(usageMetadata=MORE, modelVersion="m")],
    "an error on the way": [text(), event(error={"code": 503}), last(MORE)],
    "no error on the way": [text("the error", error=None), last(MORE)],
    "a named error": [text(), b"event: error\n" + text(), last(MORE)],
    "an error at the end": [text(usageMetadata=SOME), last(MORE, error={"code": 503})],
    "blocked": [event(promptFeedback={"blockReason": "SAFETY"}), last(MORE)],
    "searches": [
        event(candidates=[{"groundingMetadata": {"webSearchQueries": ["a", "b"]}}]),
        last(MORE),
    ],
    "another model": [text(modelVersion="m-2"), last(MORE)],
    "no model at the end": [text(modelVersion="m-2"), last(MORE, modelVersion=None)],
    "a count within a call": [
        event(candidates=[{"content": {"parts": [{"functionCall": {"candidatesTokenCount": 9}}]}}]),
        last(PROMPT),
    ],
    "two lines of data": [text(usageMetadata=SOME), b"data: {\r\n" + last(MORE)],
    "a line behind the data": [text(usageMetadata=SOME), last(MORE)[:-2] + b'id: {"a":1}\r\n\r\n'],
    "counts in two lines": [
        text(usageMetadata=MORE),
        text(usageMetadata=SOME)[:-2] + b"data: {}\r\n\r\n",
        last(PROMPT),
    ],
    "a last event that is written without a blank": [
        last(SOME),
        last(MORE).replace(b"data: ", b"data:"),
    ],
    "a last event behind an id": [last(SOME), b"id: 4\r\n" + last(MORE)],
    "a last event behind a CR": [last(SOME), b"id: 4\r" + last(MORE)],
    "counts in an event that is written without a blank": [
        text(usageMetadata=SOME),
        text(usageMetadata=MORE).replace(b"data: ", b"data:"),
        last(PROMPT),
    ],
    "an error that is read at once": [
        event(error={"code": 503})[:-2] + b"id: 1\r\n\r\n",
        text(),
        last(MORE),
    ],
    "another candidate that is read at once": [
        event(candidates=[{"index": 1}])[:-2] + b"id: 1\r\n\r\n",
        text(),
        last(MORE),
    ],
    "searches that are read at once": [
        event(candidates=[{"groundingMetadata": {"webSearchQueries": ["a"]}}])[:-2]
        + b"id: 1\r\n\r\n",
        text(),
        last(MORE),
    ],
    "counts that are read at once": [
        text(usageMetadata=MORE)[:-2] + b"id: 1\r\n\r\n",
        text(),
        last(PROMPT),
    ],
    "a cache that is read at once": [
        text(usageMetadata={**MORE, "cachedContentTokenCount": 4})[:-2] + b"id: 1\r\n\r\n",
        text(),
        last(PROMPT),
    ],
    "a tier": [text(usageMetadata={**SOME, "serviceTier": "priority"}), text(), last(MORE)],
    "sound": [text(usageMetadata={**SOME, "promptTokensDetails": SOUND}), text(), last(MORE)],
    "sound, then none": [
        text(usageMetadata={**SOME, "promptTokensDetails": SOUND}),
        text(usageMetadata={**SOME, "promptTokensDetails": WORDS}),
        last(MORE),
    ],
    "sound of the cache": [
        text(usageMetadata={**SOME, "cachedContentTokenCount": 4, "cacheTokensDetails": SOUND}),
        last(MORE),
    ],
    "no JSON at the end": [text(usageMetadata=SOME), last(MORE)[:-5] + b"}\r\n\r\n"],
    "a comment at the end": [text(), last(MORE), b": {}\r\n\r\n"],
    "the last line not ended": [text(), last(MORE)[:-2]],
}


@pytest.mark.parametrize("eol", [b"\r\n", b"\n"])
@pytest.mark.parametrize("name", CASES)
def test_the_same_is_told(name: str, eol: bytes) -> None:
    events = [one.replace(b"\r\n", eol) for one in CASES[name]]
    wanted = told(new_reader(), *events, asks="each")
    assert told(new_reader(), *events) == wanted
    assert told(new_reader(), *events, asks="all") == wanted
    assert told(new_reader(), b"".join(events)) == wanted
    for count in range(len(events)):  # some have been read before, as they are for a note
        reader = new_reader()
        for one in events[:count]:
            reader.events.feed(one)
        assert reader.reading().seen_bytes >= 0
        assert told(reader, *events[count:]) == wanted


@pytest.mark.parametrize(
    ("name", "leg"),
    [
        ("ordinary", Leg(input=9, output=100, reasoning=30)),
        ("counts left out", Leg(input=9, output=35, reasoning=30)),
        ("counts of nothing", Leg(input=9, output=100, reasoning=30)),
        ("counts told again", Leg(input=9, output=74, reasoning=4)),
        ("only the first tells the prompt", Leg(input=9, output=31)),
        ("the cache of an earlier prompt", Leg(input=9, output=5)),
        ("counts that are read at once", Leg(input=9, output=100, reasoning=30)),
        ("sound", Leg(input=9, input_audio=4, output=100, reasoning=30)),
        ("sound, then none", Leg(input=9, output=100, reasoning=30)),
        ("sound of the cache", Leg(input=9, output=100, reasoning=30)),
    ],
)
def test_what_the_last_leaves_out_is_the_last_that_was_told(name: str, leg: Leg) -> None:
    reading, is_complete = told(new_reader(), *CASES[name])
    assert reading.usage is not None
    assert (reading.usage.legs, reading.is_final, is_complete) == ((leg,), True, True)


@pytest.mark.parametrize("name", ["ordinary", "counts left out", "no error on the way", "a tier"])
def test_other_chunks_are_not_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for noted in (0, 1):  # the first, as soon as it has come
        reader, events = new_reader(), CASES[name]
        for one in events[:noted]:
            reader.events.feed(one)
        assert reader.reading().seen_bytes >= 0
        monkeypatch.setattr(reader, "on_deferred", pytest.fail)
        assert told(reader, *events[noted:])[1]


def test_on_the_way_all_that_came_counts() -> None:
    """A killed proxy charges the estimate of the last note: each chunk may say that it ends."""
    chunks = [text("a" * 300)[:-3] + b"}\r\n\r\n", last(PROMPT), text("a" * 300)]
    reader = new_reader()
    for number, chunk in enumerate(chunks):
        reader.events.feed(chunk)
        assert reader.reading().seen_bytes == (300, 300, 600)[number]


def test_of_several_models_the_last_that_is_named_counts() -> None:
    for name, model in (("no model at the end", "m-2"), ("another model", "m")):
        assert told(new_reader(), *CASES[name])[0].model == model
