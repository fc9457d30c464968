"""Gemini's own API: what is read of answers, and of streams as events and as arrays."""

import json
from typing import Any

import pytest

from llmproxy.dialects.base import Reading
from llmproxy.dialects.gemini_chunks import GeminiStreamReader
from llmproxy.dialects.gemini_contents import GENERATE, STREAM, GeminiContents
from llmproxy.dialects.gemini_embeddings import EMBED, GeminiEmbeddings
from llmproxy.usage import Leg, Usage

MODEL = "gemini-2.5-flash"


def candidate(text: str = "hi", index: int = 0, end: str | None = None, **more: Any) -> Any:  # noqa: ANN401
    ended = {"finishReason": end} if end else {}
    return {"content": {"parts": [{"text": text}]}, "index": index, **ended, **more}


def chunk(*candidates: object, **fields: object) -> dict[str, object]:
    return {"candidates": candidates, "modelVersion": "gemini-2.5-flash-001", **fields}


def usage(**counts: object) -> dict[str, object]:
    return {"usageMetadata": counts}


def events(*chunks: object) -> bytes:
    return b"".join(b"data: " + json.dumps(one).encode() + b"\r\n\r\n" for one in chunks)


def array(*chunks: object) -> bytes:
    return b"[" + b",\r\n".join(json.dumps(one).encode() for one in chunks) + b"]"


def read_stream(stream: bytes, model: str = MODEL) -> GeminiStreamReader:
    reader = GeminiContents(STREAM, model).stream_reader(withholds_usage=False)
    assert reader.events.feed(stream) + reader.events.finish() == stream
    return reader


def read_plain(answer: object, model: str = MODEL) -> Reading:
    return GeminiContents(GENERATE, model).read_answer(json.dumps(answer).encode())


BOTH = pytest.mark.parametrize("written", [events, array])

# --- usage ---


@pytest.mark.parametrize(
    ("counts", "leg"),
    [
        ({"promptTokenCount": 5, "totalTokenCount": 5}, Leg(input=5)),
        (
            {"promptTokenCount": 5, "candidatesTokenCount": 3, "thoughtsTokenCount": 2},
            Leg(input=5, output=5, reasoning=2),
        ),
        (
            {"promptTokenCount": 9, "cachedContentTokenCount": 4, "toolUsePromptTokenCount": 3},
            Leg(input=8, cache_read=4, round_input=9),
        ),
        # Of what was cached some may be audio; more than all cannot.
        *(
            (
                {
                    "promptTokenCount": 9,
                    "cachedContentTokenCount": 4,
                    "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": told}],
                },
                Leg(input=5, cache_read=4, cache_read_audio=audio),
            )
            for told, audio in ((3, 3), (9, 4), (-1, 0))
        ),
        # What stands in the total alone was made.
        (
            {"promptTokenCount": 5, "candidatesTokenCount": 3, "totalTokenCount": 20},
            Leg(input=5, output=15),
        ),
        ({"totalTokenCount": 20}, Leg(output=20)),
        (
            {
                "promptTokenCount": 90,
                "cachedContentTokenCount": 20,
                "candidatesTokenCount": 40,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 10},
                    {"modality": "IMAGE", "tokenCount": 50},
                    {"modality": "AUDIO", "tokenCount": 30},
                ],
                "cacheTokensDetails": [{"modality": "IMAGE", "tokenCount": 20}],
                "candidatesTokensDetails": [
                    {"modality": "IMAGE", "tokenCount": 30},
                    {"modality": "AUDIO", "tokenCount": 10},
                    {"modality": ["?"]},
                    7,
                ],
            },
            Leg(
                input=70,
                cache_read=20,
                output=40,
                input_audio=30,
                input_image=30,
                output_audio=10,
                output_image=30,
            ),
        ),
    ],
)
def test_usage_is_read_into_disjoint_classes(counts: dict[str, Any], leg: Leg) -> None:
    reading = read_plain(chunk(candidate(), **usage(**counts)))
    assert reading.is_final
    assert reading.usage == Usage((leg,))
    assert reading.model == "gemini-2.5-flash-001"


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"candidatesTokenCount": 5},
        {"promptTokenCount": "5"},
        {"promptTokenCount": 5.0},
        {"promptTokenCount": True},
        {"promptTokenCount": -5},
        {"promptTokenCount": 2**40},
        {"promptTokenCount": 5, "cachedContentTokenCount": 6},
        {"promptTokenCount": 5, "candidatesTokenCount": 3, "thoughtsTokenCount": 2.0},
        [],
        "x",
        7,
    ],
)
def test_usage_that_cannot_be_true_is_no_bill(record: object) -> None:
    for reading in (
        read_plain(chunk(candidate(), usageMetadata=record)),
        read_stream(events(chunk(candidate(end="STOP"), usageMetadata=record))).reading(),
    ):
        assert not reading.is_final
        assert reading.usage is None
        assert reading.problem
        assert json.loads(reading.raw_usage or b"") == record


@pytest.mark.parametrize("odd", [1.0, -1, "1", None, True, 2**40, [1]])
def test_an_odd_count_that_is_only_information_does_not_lose_the_bill(odd: object) -> None:
    details = [{"modality": "AUDIO", "tokenCount": odd}, {"modality": "IMAGE", "tokenCount": 2}]
    counts = {
        "promptTokenCount": 5,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": odd,
        "totalTokenCount": 12,
        "promptTokensDetails": details,
        "candidatesTokensDetails": details,
    }
    reading = read_plain(chunk(candidate(), **usage(**counts)))
    # 12 - 5 were made, thoughts and all.
    assert reading.usage == Usage((Leg(input=5, output=7, input_image=2, output_image=2),))
    assert reading.is_final


def test_no_tokens_for_a_text_are_no_bill() -> None:
    record = {"promptTokenCount": 0, "totalTokenCount": 0}
    assert not read_plain(chunk(candidate(), usageMetadata=record)).is_final


@pytest.mark.parametrize("tier", ["PRIORITY", "priority", "SERVICE_TIER_PRIORITY"])
def test_the_tier_is_read(tier: str) -> None:
    reading = read_plain(chunk(candidate(), **usage(promptTokenCount=1, serviceTier=tier)))
    assert reading.usage is not None
    assert reading.usage.service_tier == "priority"


# --- streams ---


@BOTH
def test_the_last_record_counts_and_what_it_leaves_out_is_the_last_that_was_told(
    written: Any,  # noqa: ANN401
) -> None:
    reader = read_stream(
        written(
            chunk(candidate(), **usage(promptTokenCount=447, candidatesTokenCount=50)),
            chunk(candidate(), **usage(promptTokenCount=8, candidatesTokenCount=7)),
            chunk(candidate(end="STOP"), **usage(promptTokenCount=1767, candidatesTokenCount=0)),
        )
    )
    reading = reader.reading()
    assert reader.is_complete
    assert reading.usage == Usage((Leg(input=1767, output=7),))
    assert json.loads(reading.raw_usage or b"") == {
        "promptTokenCount": 1767,
        "candidatesTokenCount": 7,
    }


@BOTH
@pytest.mark.parametrize(
    ("last", "leg"),
    [
        # A smaller prompt, and a larger one: both are fresh.
        ({"promptTokenCount": 2000}, Leg(input=2000, output=7)),
        ({"promptTokenCount": 9000}, Leg(input=9000, output=7)),
        ({"promptTokenCount": 9000, "cachedContentTokenCount": 1}, Leg(8999, 1, output=7)),
        # This one tells of no prompt at all.
        ({"totalTokenCount": 5007}, Leg(input=904, cache_read=4096, output=7)),
    ],
)
def test_what_was_read_from_the_cache_belongs_to_its_own_prompt(
    written: Any,  # noqa: ANN401
    last: dict[str, int],
    leg: Leg,
) -> None:
    first = usage(promptTokenCount=5000, cachedContentTokenCount=4096, candidatesTokenCount=7)
    stream = written(chunk(candidate(), **first), chunk(candidate(end="STOP"), **usage(**last)))
    assert read_stream(stream).reading().usage == Usage((leg,))


@BOTH
def test_the_record_is_kept_as_it_came(written: Any) -> None:  # noqa: ANN401
    record = '{"promptTokenCount": 3,  "new":[1.0]}'
    stream = written(chunk(candidate(end="STOP"), usageMetadata="@")).replace(
        b'"@"', record.encode()
    )
    assert read_stream(stream).reading().raw_usage == record.encode()


@BOTH
def test_a_stream_is_complete_when_all_candidates_have_ended(written: Any) -> None:  # noqa: ANN401
    counts = usage(promptTokenCount=3, candidatesTokenCount=2)
    first = chunk(candidate(index=0, end="STOP"), candidate(index=1), **counts)
    for stream in (written(first), written(first, chunk(candidate(index=1), **counts))):
        reader = read_stream(stream)
        assert not reader.is_complete
        assert not reader.reading().is_final
    reader = read_stream(written(first, chunk(candidate(index=1, end="MAX_TOKENS"), **counts)))
    assert reader.is_complete
    assert reader.reading().is_final
    assert reader.is_over == (written is array)


def test_an_array_without_its_end_is_not_complete() -> None:
    whole = array(chunk(candidate(end="STOP"), **usage(promptTokenCount=3)))
    reader = read_stream(whole[:-1])
    assert not reader.is_complete
    assert reader.reading().is_final  # but what it used is known


@BOTH
def test_a_blocked_prompt_is_complete(written: Any) -> None:  # noqa: ANN401
    feedback = {"promptFeedback": {"blockReason": "SAFETY"}, **usage(promptTokenCount=3)}
    reader = read_stream(written(feedback))
    assert reader.is_complete
    assert reader.reading().usage == Usage((Leg(input=3),))


@BOTH
def test_an_error_in_a_stream_is_seen(written: Any) -> None:  # noqa: ANN401
    reader = read_stream(
        written(chunk(candidate()), {"error": {"code": 503, "status": "UNAVAILABLE"}})
    )
    assert reader.reading().has_error
    assert not reader.is_complete


@BOTH
def test_generated_text_is_counted(written: Any) -> None:  # noqa: ANN401
    call = {"functionCall": {"name": "f", "args": {"a": 1}}}
    parts = [{"text": "über"}, {"text": "x", "thought": True}, call]
    reader = read_stream(written(chunk({"content": {"parts": parts}})))
    assert reader.seen_bytes == 5 + 1 + len(json.dumps(call["functionCall"]))


def test_an_image_is_not_counted_as_text() -> None:
    data = {"mimeType": "image/png", "data": "iVBO" * 250_000}
    made = {"content": {"parts": [{"text": "here"}, {"inlineData": data}]}, "index": 0}
    written = len(json.dumps(data))
    few = 4 + -(-written // 256)
    for stream in (events(chunk(made)), array(chunk(made))):
        assert read_stream(stream).seen_bytes == few
    around = len(json.dumps(made)) - written
    assert read_plain(chunk(made)).seen_bytes == around + written // 256


@BOTH
@pytest.mark.parametrize(
    "odd",
    [
        {"index": None},
        {"index": "0"},
        {"index": 0.5},
        {"content": {"parts": {"text": "hi"}}},
        {"content": {"parts": [7]}},
        {"content": []},
        {"groundingMetadata": {"webSearchQueries": {}}},
    ],
)
def test_an_odd_member_of_the_last_candidate_does_not_hide_that_it_has_ended(
    written: Any,  # noqa: ANN401
    odd: dict[str, object],
) -> None:
    last = {**candidate(end="STOP"), **odd}
    for candidates in ([last], last):
        counts = usage(promptTokenCount=3, candidatesTokenCount=2)
        reader = read_stream(written(chunk(candidate()), {"candidates": candidates, **counts}))
        assert reader.is_complete
        assert reader.reading().usage == Usage((Leg(input=3, output=2),))
        assert reader.reading().is_final


@BOTH
@pytest.mark.parametrize("odd", [{"content": 7}, 7, {"content": {"parts": [{"text": 7}]}}])
def test_odd_chunks_do_no_harm(written: Any, odd: object) -> None:  # noqa: ANN401
    reader = read_stream(
        written(chunk(odd), chunk(candidate(end="STOP"), **usage(promptTokenCount=3)))
    )
    assert reader.is_complete
    assert reader.reading().is_final
    assert reader.seen_bytes


@pytest.mark.parametrize(("model", "billed"), [(MODEL, 1), ("gemini-3.8-flash", 4), ("own", 4)])
def test_searches_are_counted_as_they_are_billed(model: str, billed: int) -> None:
    def grounded(count: int, index: int = 0, end: str | None = None) -> object:
        queries = {"webSearchQueries": ["q"] * count}
        return candidate(index=index, end=end, groundingMetadata=queries)

    counts = usage(promptTokenCount=1)
    stream = events(
        chunk(grounded(1), grounded(1, 1, "STOP"), **counts),
        chunk(grounded(3, 0, "STOP"), **counts),
    )
    plain = chunk(grounded(3), grounded(1), **counts)
    for reading in (read_stream(stream, model).reading(), read_plain(plain, model)):
        assert reading.usage == Usage((Leg(input=1, web_searches=billed),))


# --- embeddings ---


def test_embeddings_without_usage_are_estimated() -> None:
    answer = json.dumps({"embedding": {"values": [0.25] * 9}}).encode()
    reading = GeminiEmbeddings(EMBED, "gemini-embedding-001").read_answer(answer)
    assert reading.usage is None
    assert not reading.is_final
    assert reading.seen_bytes
