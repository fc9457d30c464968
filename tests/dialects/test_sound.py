"""How long the sound of a file is held to be, and which WAV files are believed."""

import struct

import pytest

from llmproxy.dialects.base import RequestFacts
from llmproxy.dialects.multipart_gate import File
from llmproxy.dialects.openai_audio import TRANSCRIPTION_FORMATS, OpenAIAudio
from llmproxy.dialects.sound import Wav, read_wav
from tests.support.forms import form, wav

MP3 = b"\xff\xfb\x90\x00" * 1000


def transcription(file: bytes) -> RequestFacts:
    endpoint = OpenAIAudio("audio/transcriptions", TRANSCRIPTION_FORMATS)
    return endpoint.read_request(form({"model": "m"}, {"file": file}))


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
