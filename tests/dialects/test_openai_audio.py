"""Sound in OpenAI's dialect: what a request may cost, and what its answer has used."""

import json
import struct
from typing import Any

import pytest

from llmproxy.dialects.base import Endpoint, RequestFacts
from llmproxy.dialects.large_answers import LargeAnswer
from llmproxy.dialects.multipart_gate import File
from llmproxy.dialects.sound import Wav, read_wav
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


@pytest.mark.parametrize(
    ("file", "seconds"),
    [
        (wav(8000), 1),
        (wav(8001), 2),
        (wav(44100 * 3, rate=44100, channels=2, width=3), 3),
        (wav(48000 * 2, rate=48000, channels=8, width=4), 2),
        (wav(1), 1),
        (wav(0), 1),
    ],
)
def test_a_wav_file_is_as_long_as_its_samples(file: bytes, seconds: int) -> None:
    facts = transcription(file)
    assert facts.units == facts.likely_units == (("audio_second", seconds),)
    assert (facts.input.audio_s, facts.input.likely_audio_s) == (seconds, seconds)
    assert facts.unbounded is None


def test_what_a_wav_file_says_of_its_own_length_does_not_count() -> None:
    file = wav(80_000)
    shortened = file[:40] + b"\x01\0\0\0" + file[44:]
    assert transcription(shortened).units == (("audio_second", 10),)


@pytest.mark.parametrize(
    "file",
    [
        MP3,
        b"",
        wav(8000)[:30],
        wav(8000).replace(b"RIFF", b"RIFX"),
        wav(8000).replace(b"fmt ", b"LIST"),
        wav(8000)[:20] + b"\x11\0" + wav(8000)[22:],  # ADPCM
        wav(8000)[:22] + b"\0\0" + wav(8000)[24:],  # no channels
        wav(8000)[:24] + bytes(4) + wav(8000)[28:],  # no rate
        wav(8000)[:32] + b"\x09\0" + wav(8000)[34:],  # blocks of more than its channels
        wav(8000)[:34] + b"\x07\0" + wav(8000)[36:],  # seven bits
        wav(8000)[:28] + b"\0\0\0\1" + wav(8000)[32:],  # other bytes in a second than its blocks
        wav(8000, rate=192_001),
        wav(8000)[:36] + b"ID3 " + wav(8000)[40:],  # no samples behind the format
        wav(8000, channels=9),
        wav(8000, width=5),
        wav(8000)[:16] + b"\x28" + wav(8000)[17:],  # a format that is longer
    ],
)
def test_of_other_files_only_the_size_tells_how_long_they_may_be(file: bytes) -> None:
    assert read_wav(File("file", len(file), file)) is None
    facts = transcription(file)
    assert facts.units == (("audio_second", -(-len(file) // 1000)),)
    assert facts.likely_units == (("audio_second", -(-len(file) // 8000)),)
    assert facts.unbounded is not None


PLAIN_WAV = wav(16_000)
WAV_WITH_NOTES = PLAIN_WAV[:36] + b"LIST\4\0\0\0INFO" + PLAIN_WAV[36:-12]
WAV_WITH_EXTENSION = PLAIN_WAV[:16] + b"\x12" + PLAIN_WAV[17:36] + b"\0\0" + PLAIN_WAV[36:-2]


@pytest.mark.parametrize(
    ("content", "names", "kind", "seconds"),
    [
        (PLAIN_WAV, (), None, 2),
        (PLAIN_WAV, ("",), "audio/wav", 2),
        (PLAIN_WAV, ("Speech.WAV",), "audio/x-wav", 2),
        (PLAIN_WAV, ("a.wav", "utf-8''b.wav"), "audio/wave", 2),
        (PLAIN_WAV, (), "audio/vnd.wave", 2),
        (PLAIN_WAV, ("a.wav",), "application/octet-stream", 2),
        (WAV_WITH_NOTES, ("a.wav",), None, 2),
        (WAV_WITH_EXTENSION, ("a.wav",), None, 2),
        (PLAIN_WAV, ("a.mp3",), None, None),
        (PLAIN_WAV, ("a.wav", "utf-8''b.mp3"), None, None),
        (PLAIN_WAV, ("wav",), None, None),
        (PLAIN_WAV, ("a.wav",), "audio/mpeg", None),
    ],
)
def test_a_wav_file_is_one_that_nobody_reads_as_something_else(
    content: bytes, names: tuple[str, ...], kind: str | None, seconds: int | None
) -> None:
    expected = None if seconds is None else Wav(seconds, is_sure=True)
    assert read_wav(File("file", len(content), content, names, kind)) == expected


GUID = bytes.fromhex("0100000000001000800000aa00389b71")
SAMPLES = wav(16_000, width=3)


def extensible(length: int = 22, valid_bits: int = 24, guid: bytes = GUID) -> bytes:
    """As ffmpeg writes WAV files of more than 16 bits."""
    extension = struct.pack("<HHI", length, valid_bits, 4) + guid
    return SAMPLES[:16] + b"\x28\0\0\0\xfe\xff" + SAMPLES[22:36] + extension + SAMPLES[36:]


def test_plain_samples_may_have_the_longer_head() -> None:
    file = extensible()[:-24]  # as much longer is the head than the shortest one
    assert read_wav(File("file", len(file), file)) == Wav(2, is_sure=True)
    floats = GUID.replace(b"\1", b"\3", 1)
    odd = (extensible(0), extensible(valid_bits=16), extensible(guid=floats), extensible()[:50])
    for file in odd:
        assert read_wav(File("file", len(file), file)) is None


def test_samples_of_16_bits_have_a_likely_length_and_no_bound() -> None:
    """In those ffmpeg looks for MP3, AAC and others, whatever the head says."""
    facts = transcription(wav(32_000, rate=16_000, width=2))
    assert facts.units == facts.likely_units == (("audio_second", 2),)
    assert facts.unbounded is not None


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_dictaphone_has_a_wav_head_before_ten_times_as_long_speech(width: int) -> None:
    """G.729 in 1,000 bytes a second: 8,000 bytes are 8 seconds."""
    plain = wav(8000 // width, width=width)
    act = plain[:256] + b"\x84" + bytes(7) + plain[264:]
    assert transcription(act).units == (("audio_second", -(-len(act) // 1000)),)
    assert transcription(act).unbounded is not None
    for file in (act[:50] + b"\1" + act[51:], act[:300] + b"\1" + act[301:]):
        assert transcription(file).units == (("audio_second", 1),)


@pytest.mark.parametrize(
    "sync",
    [
        "72f81f4e",
        "f8724e1f",
        "0072f8001f4e",
        "f872004e1f00",
        "72f8961f4ea5",
        "000072f800001f4e",
        "f87200004e1f0000",
    ],
    ids=["16", "16-big", "24", "24-big", "24-mode", "32", "32-big"],
)
@pytest.mark.parametrize("position", [44, 20_001, 44 + 64 * 1024 - 8])
def test_compressed_sound_may_stand_where_samples_would(sync: str, position: int) -> None:
    plain, bursts = wav(80_000, width=3), bytes.fromhex(sync)
    file = plain[:position] + bursts + plain[position + len(bursts) :]
    assert transcription(plain).units == (("audio_second", 10),)
    assert transcription(file).units == (("audio_second", 241),)  # 240,044 bytes
    assert transcription(file).unbounded is not None


def test_samples_begin_where_all_that_a_decoder_looks_at_is_seen() -> None:
    def noted(size: int) -> bytes:
        return PLAIN_WAV[:36] + b"JUNK" + struct.pack("<I", size) + bytes(size) + PLAIN_WAV[36:]

    begin = 36 + 8 + 8
    near, far = noted(64 * 1024 - begin), noted(64 * 1024 - begin + 2)
    assert read_wav(File("file", len(near), near[: 128 * 1024])) is not None
    assert read_wav(File("file", len(far), far[: 128 * 1024])) is None
    odd = noted(3)[:-16_008] + b"\0" + noted(3)[-16_008:]  # notes of an odd length are filled up
    assert read_wav(File("file", len(odd), odd)) is not None


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


def test_a_stream_of_a_transcript_that_breaks_off_is_estimated_by_its_text() -> None:
    reading = read_events(TRANSCRIPTIONS, {"type": "transcript.text.delta", "delta": "größe"})
    assert (reading.is_final, reading.seen_bytes) == (False, len("größe".encode()))
    assert read_events(TRANSCRIPTIONS, {"type": "error", "error": {}}).has_error


# --- speech ---


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
