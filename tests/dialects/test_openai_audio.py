"""Sound in OpenAI's dialect: what a request may cost, and what its answer has used."""

import json
from typing import Any

import pytest

from llmproxy.dialects.base import Endpoint, RequestFacts
from llmproxy.dialects.large_answers import LargeAnswer
from llmproxy.routes import endpoints_of
from llmproxy.usage import Leg, Usage
from tests.support.forms import form, wav
from tests.support.reading import only_leg, read_events, refusal_of

OPENAI = {one.name: one for one in endpoints_of("openai", "openai")}
GROQ = {one.name: one for one in endpoints_of("groq", "openai")}
TRANSCRIPTIONS, TRANSLATIONS = OPENAI["audio/transcriptions"], OPENAI["audio/translations"]
SPEECH = OPENAI["audio/speech"]
MP3 = b"\xff\xfb\x90\x00" * 1000


def transcription(
    file: bytes = MP3, endpoint: Endpoint = TRANSCRIPTIONS, **fields: str
) -> RequestFacts:
    return endpoint.read_request(form({"model": "m", **fields}, {"file": file}))


def speech(**fields: Any) -> RequestFacts:  # noqa: ANN401
    body = {"model": "m", "input": "größer", "voice": "coral", **fields}
    return SPEECH.read_request(json.dumps(body).encode())


COUNTS = {"input_tokens": 50, "output_tokens": 200, "total_tokens": 250}

# --- sound: requests ---


def test_groq_bills_ten_seconds_at_least() -> None:
    endpoint = GROQ["audio/transcriptions"]
    facts = transcription(wav(8000), endpoint, response_format="verbose_json")
    assert facts.units == (("audio_second", 10),)
    assert only_leg(endpoint.read_answer(b'{"text":"a","duration":2.5}')).audio_seconds == 10
    assert only_leg(endpoint.read_answer(b'{"text":"a","duration":12.5}')).audio_seconds == 13


@pytest.mark.parametrize(
    ("endpoint", "fields", "why"),
    [
        (TRANSCRIPTIONS, {"response_format": "text"}, "use json or verbose_json"),
        (TRANSCRIPTIONS, {"response_format": "srt"}, "use json or verbose_json"),
        (TRANSCRIPTIONS, {"response_format": "vtt"}, "use json or verbose_json"),
        (TRANSCRIPTIONS, {"url": "https://x/a.mp3"}, "no known length"),
        (TRANSCRIPTIONS, {"file_id": "file-1"}, "no known length"),
        (TRANSCRIPTIONS, {"file_url": "https://x/a.mp3"}, "no known length"),
        (TRANSCRIPTIONS, {"audio_url": "https://x/a.mp3"}, "no known length"),
        (TRANSCRIPTIONS, {"Audio_URL[]": "https://x/a.mp3"}, "no known length"),
        (TRANSCRIPTIONS, {"fileUrl": "https://x/a.mp3"}, "no known length"),
        (TRANSCRIPTIONS, {"audio[url]": "https://x/a.mp3"}, "no known length"),
        (TRANSCRIPTIONS, {"input.0.file_id": "file-1"}, "no known length"),
        (TRANSLATIONS, {"file_url": "", "response_format": "verbose_json"}, "no known length"),
        (TRANSLATIONS, {}, "use verbose_json"),
        (TRANSLATIONS, {"response_format": "json"}, "use verbose_json"),
        (TRANSLATIONS, {"response_format": "text"}, "use verbose_json"),
    ],
)
def test_sound_whose_answer_would_not_tell_is_refused(
    endpoint: Endpoint, fields: dict[str, str], why: str
) -> None:
    error = refusal_of(endpoint, form({"model": "m", **fields}, {"file": MP3}))
    assert error.code == "option_not_metered"
    assert why in error.message


@pytest.mark.parametrize("provider", ["groq", "one-of-ours"])
def test_json_is_refused_of_providers_that_are_not_known_to_report_usage_in_it(
    provider: str,
) -> None:
    (endpoint,) = (
        one for one in endpoints_of(provider, "openai") if one.name == "audio/transcriptions"
    )
    for fields in ({}, {"response_format": "json"}):
        error = refusal_of(endpoint, form({"model": "m", **fields}, {"file": MP3}))
        assert (error.code, "use verbose_json" in error.message) == ("option_not_metered", True)
    transcription(MP3, endpoint, response_format="verbose_json")


def test_a_transcription_needs_exactly_one_file() -> None:
    assert "exactly one" in refusal_of(TRANSCRIPTIONS, form({"model": "m"}, {})).message
    several = form({"model": "m"}, {"file": MP3, "file[]": MP3})
    assert "exactly one" in refusal_of(TRANSCRIPTIONS, several).message


# --- sound: answers ---


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"usage": {"type": "duration", "seconds": 8}}, Leg(audio_seconds=8)),
        ({"usage": {"type": "duration", "seconds": 8.001}, "duration": 1}, Leg(audio_seconds=9)),
        ({"duration": 0.2}, Leg(audio_seconds=1)),
        ({"usage": {"seconds": 8}}, Leg(audio_seconds=8)),
        ({"usage": {"type": "tokens", "seconds": 8}}, Leg(audio_seconds=8)),
        ({"usage": {"type": "duration"}, "duration": 4}, Leg(audio_seconds=4)),
        ({"usage": {"type": "tokens"}, "duration": 4}, Leg(audio_seconds=4)),
        ({"usage": {"seconds": -1}, "duration": 4}, Leg(audio_seconds=4)),
        ({"usage": [], "duration": 4}, Leg(audio_seconds=4)),
        (
            {"usage": {"prompt_audio_seconds": 3, "prompt_tokens": 4, "total_tokens": 12}},
            Leg(input=4, output=8, input_audio=4, audio_seconds=3),
        ),
        (
            {"usage": {"seconds": 3.5, "input_tokens": 9, "output_tokens": 3}},
            Leg(input=9, output=3, input_audio=9, audio_seconds=4),
        ),
        (
            # What is not said to be text is sound.
            {"usage": {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}},
            Leg(input=9, output=3, input_audio=9),
        ),
        (
            {
                "usage": {
                    "input_tokens": 9,
                    "input_token_details": {"text_tokens": 2},
                    "output_tokens": 3,
                }
            },
            Leg(input=9, output=3, input_audio=7),
        ),
        (
            {
                "usage": {
                    "input_tokens": 9,
                    "input_token_details": {"text_tokens": 12},
                    "output_tokens": 3,
                }
            },
            Leg(input=9, output=3),
        ),
        (
            {
                "usage": {
                    "input_tokens": 9,
                    "input_token_details": {"audio_tokens": 0},
                    "output_tokens": 3,
                }
            },
            Leg(input=9, output=3),
        ),
        (
            {
                "usage": {
                    "prompt_tokens": 9,
                    "prompt_tokens_details": {"text_tokens": 4},
                    "completion_tokens": 3,
                }
            },
            Leg(input=9, output=3, input_audio=5),
        ),
        (
            {
                "usage": {
                    "type": "tokens",
                    "input_tokens": 9,
                    "input_token_details": {"audio_tokens": 7, "text_tokens": 2},
                    "output_tokens": 3,
                }
            },
            Leg(input=9, output=3, input_audio=7),
        ),
    ],
)
def test_a_transcript_reports_tokens_or_begun_seconds(
    answer: dict[str, Any], expected: Leg
) -> None:
    body = json.dumps({"text": "größe", **answer}).encode()
    assert only_leg(TRANSCRIPTIONS.read_answer(body)) == expected


def test_a_transcript_tells_what_the_provider_bills() -> None:
    """In 10⁻¹⁵ USD."""
    usage = {"seconds": 9.2, "cost": 0.000508}
    reading = TRANSCRIPTIONS.read_answer(json.dumps({"text": "a", "usage": usage}).encode())
    assert reading.usage == Usage((Leg(audio_seconds=10),), provider_cost=508_000_000_000)
    done = {"type": "transcript.text.done", "usage": {**COUNTS, "cost": 0.000508}}
    streamed = read_events(TRANSCRIPTIONS, done).usage
    heard = Leg(input=50, output=200, input_audio=50)
    assert streamed == Usage((heard,), provider_cost=508_000_000_000)


def test_what_the_provider_bills_of_sound_is_kept_where_nothing_else_can_be_read() -> None:
    """In 10⁻¹⁵ USD."""
    usage = {"type": "duration", "seconds": -1, "cost": 0.000508}
    plain = TRANSCRIPTIONS.read_answer(json.dumps({"text": "a", "usage": usage}).encode())
    absurd = {**COUNTS, "output_tokens": -1, "cost": 0.000508}
    streamed = read_events(TRANSCRIPTIONS, {"type": "transcript.text.done", "usage": absurd})
    spoken = read_events(SPEECH, {"type": "speech.audio.done", "usage": absurd})
    for reading in (plain, streamed, spoken):
        assert (reading.usage, reading.provider_cost) == (None, 508_000_000_000)
        assert (reading.is_final, bool(reading.problem)) == (False, True)


@pytest.mark.parametrize(
    ("members", "record"),
    [
        (b'"usage":{"seconds":  8.5}', b'{"seconds":  8.5}'),
        (b'"duration":8.50', b'{"duration":8.50}'),
        (
            b'"duration":8.50,"usage":{"type": "tokens"}',
            b'{"usage":{"type": "tokens"},"duration":8.50}',
        ),
        (b'"duration":null,"usage":{"seconds":1}', b'{"seconds":1}'),
        (b'"duration":8,"usage":{"seconds":1},"error":{}', b'{"seconds":1}'),
        (b'"duration":8,"error":{}', None),
    ],
)
def test_the_record_has_the_length_of_the_sound_too(members: bytes, record: bytes | None) -> None:
    reading = TRANSCRIPTIONS.read_answer(b'{"text":"a",' + members + b"}")
    assert reading.raw_usage == record


@pytest.mark.parametrize(
    "answer",
    [
        {"usage": {"type": "duration"}},
        {"usage": {"type": "duration", "seconds": -1}},
        {"usage": {"type": "duration", "seconds": 1e99}},
        {"usage": {"type": "duration", "seconds": True}},
        {"usage": {"type": "duration", "seconds": "8"}},
        {"usage": {"type": "duration", "seconds": 0}},
        {"usage": {"type": "tokens"}},
        {"usage": {**COUNTS, "input_token_details": {"text_tokens": -1}}},
        {"duration": "8"},
    ],
)
def test_an_absurd_length_of_sound_is_not_trusted(answer: dict[str, Any]) -> None:
    reading = TRANSCRIPTIONS.read_answer(json.dumps({"text": "a", **answer}).encode())
    assert not reading.is_final
    assert reading.problem


def test_a_transcript_without_any_measure_is_estimated_by_its_text() -> None:
    reading = TRANSCRIPTIONS.read_answer(b'{"text":"four"}')
    assert (reading.usage, reading.is_final, reading.seen_bytes) == (None, False, 4)
    assert TRANSCRIPTIONS.read_answer(b"1\n00:00 --> 00:01\nHi\n").seen_bytes == 21


@pytest.mark.parametrize("answer", [b'{"text":""}', b'{"text":"","usage":null}', b"{}", b""])
def test_a_transcript_of_silence_without_any_measure_is_not_free(answer: bytes) -> None:
    assert TRANSCRIPTIONS.read_answer(answer).seen_bytes == 1
    assert TRANSCRIPTIONS.read_answer(b'{"text":"","error":{}}').seen_bytes == 0
    done = {"type": "transcript.text.done", "text": ""}
    assert read_events(TRANSCRIPTIONS, done).seen_bytes == 1


def test_an_error_costs_nothing_though_it_tells_how_long_the_sound_is() -> None:
    reading = TRANSCRIPTIONS.read_answer(b'{"duration":12.3,"error":{"message":"overloaded"}}')
    assert (reading.usage, reading.has_error, reading.seen_bytes) == (None, True, 0)
    billed = b'{"duration":12.3,"error":{},"usage":{"type":"duration","seconds":5}}'
    assert only_leg(TRANSCRIPTIONS.read_answer(billed)).audio_seconds == 5


def test_a_stream_of_a_transcript_that_breaks_off_is_estimated_by_its_text() -> None:
    reading = read_events(TRANSCRIPTIONS, {"type": "transcript.text.delta", "delta": "größe"})
    assert (reading.is_final, reading.seen_bytes) == (False, len("größe".encode()))
    assert read_events(TRANSCRIPTIONS, {"type": "error", "error": {}}).has_error


# --- speech ---


@pytest.mark.parametrize(
    ("event", "seen"),
    [({"type": "ping"}, 0), ({"type": "transcript.text.segment", "text": "a"}, 1), ({}, 0)],
)
def test_each_event_of_a_transcript_says_that_something_was_heard(
    event: dict[str, str], seen: int
) -> None:
    reader = TRANSCRIPTIONS.stream_reader(withholds_usage=False)
    reader.events.feed(b"data: %b\n\n" % json.dumps(event).encode())
    assert reader.reading().seen_bytes == seen


def test_speech_is_billed_by_the_characters_of_the_request() -> None:
    facts = speech()
    assert facts.units == facts.likely_units == (("character", 6),)
    assert facts.tokens_untold is not None
    reading = SPEECH.read_answer(b"ID3\x04")
    assert (reading.is_final, reading.is_by_request) == (True, True)
    assert not SPEECH.read_answer(b"").is_final


@pytest.mark.parametrize(
    ("answer", "is_speech"),
    [
        (b'{"error":{"message":"overloaded","code":502}}', False),
        (b'{"id":1,"error":"overloaded"}', False),
        (b'{"error":null}', True),
        (b'{"audio":"aaaa"}', True),
        (b"{\x00\x01 samples that begin as an object does", True),
    ],
)
def test_an_error_that_is_called_a_success_is_no_speech(answer: bytes, is_speech: bool) -> None:
    large = LargeAnswer()
    large.feed(answer)
    for reading in (SPEECH.read_answer(answer), large.reading(SPEECH)):
        assert (reading.has_error, reading.is_final) == (not is_speech, is_speech)
        assert bool(reading.usage) == bool(reading.seen_bytes) == is_speech


def test_a_character_beyond_the_basic_plane_is_one() -> None:
    assert speech(input="🚀é").units == (("character", 2),)


@pytest.mark.parametrize("padding", [{"x": [0] * 70_000}, {"x": "a" * 4 * 1024 * 1024}])
def test_a_long_text_to_say_in_a_body_that_is_read_slowly_is_refused(padding: Any) -> None:  # noqa: ANN401
    assert speech(input="a" * 4000, **padding).units == (("character", 4000),)
    body = {"model": "m", "input": "a" * 5000, "voice": "coral", **padding}
    assert "at most 4,096 characters" in refusal_of(SPEECH, json.dumps(body).encode()).message


def test_speech_in_a_stream_of_events_tells_its_tokens() -> None:
    facts = speech(stream_format="sse")
    assert (facts.is_stream, facts.tokens_untold) == (True, None)
    assert facts.unbounded is not None
    begun = {"type": "speech.audio.delta", "audio": "a" * 1000}
    assert read_events(SPEECH, begun).seen_bytes == -(-1002 // 256)
    done = {"type": "speech.audio.done", "usage": COUNTS}
    assert only_leg(read_events(SPEECH, begun, done)) == Leg(input=50, output=200)


def test_speech_tells_what_the_provider_bills() -> None:
    """In 10⁻¹⁵ USD."""
    done = {"type": "speech.audio.done", "usage": {**COUNTS, "cost": 0.0024}}
    told = read_events(SPEECH, done).usage
    assert told == Usage((Leg(input=50, output=200),), provider_cost=2_400_000_000_000)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"voice": {"id": "voice_1"}}, "kept at the provider"),
        ({"stream_format": "odd"}, "not known"),
        ({"input": None}, "must be text"),
        ({"input": ["a"]}, "must be text"),
    ],
)
def test_speech_that_cannot_be_metered_is_refused(fields: dict[str, Any], why: str) -> None:
    body = {"model": "m", "input": "a", "voice": "coral", **fields}
    assert why in refusal_of(SPEECH, json.dumps(body).encode()).message
