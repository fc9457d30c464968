"""Owns how long the sound in a file is, at most and likely, and what a second of it is in tokens.

From its first bytes and its size. Pure.

Exact for plain WAV files; of all others only their size tells anything. What a WAV file says of
itself is not what every decoder believes: ffmpeg, the most usual one, looks into its samples for
other formats, in which as many bytes may be hours.
"""

import re
import struct
from typing import NamedTuple

from llmproxy.dialects.multipart_gate import HEAD_BYTES, File

GEMINI_SECOND_TOKENS = 32
"""Of a second, as Google's guide to tokens has it: the highest number of those that say one."""
OPENAI_SECOND_TOKENS = 10
"""One for each tenth of a second."""
BYTES_PER_SECOND_MIN = 1000
"""8 kbit/s, the lowest rate that MP3 has. Silence in other formats may take less: no bound."""
BYTES_PER_SECOND = 8000
"""64 kbit/s, where nothing else is known."""

_WAV = struct.Struct("<4sI4s4sIHHIIHH")
_PCM = 1
_EXTENSIBLE = 0xFFFE
_EXTENSION = struct.Struct("<HHI16s")
_EXTENSION_BYTES = 22
_PCM_GUID = bytes.fromhex("0100000000001000800000aa00389b71")
_RATE_MAX = 192_000
_CHANNELS_MAX = 8
_BITS = (8, 16, 24, 32)
_PROBED_BITS = 16
"""In samples of this size alone ffmpeg looks for MP3, AAC and others, as far as 5 MB."""
_FMT_BYTES = (16, 18)
"""Of plain samples: the second with the length of an extension that is not there."""
_FMT_EXTENSIBLE_BYTES = 40
_NOTES = frozenset({b"LIST", b"fact", b"bext", b"JUNK", b"junk", b"PAD ", b"FLLR"})
"""Chunks that recorders write between the format and the samples."""
_CHUNK_HEAD_BYTES = 8
_BURSTS_WITHIN_BYTES = 64 * 1024
"""Of the samples, so much is looked at for IEC 61937; all of it must be known here."""
# Its sync words, of both byte orders, in words of 16, 24 and 32 bits.
_IEC_61937 = re.compile(rb"\x72\xf8.{0,2}\x1f\x4e|\xf8\x72.{0,2}\x4e\x1f", re.DOTALL)
# The last is what clients write that do not look into the file; it says nothing, as None does.
_WAV_TYPES = frozenset(
    {None, "audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave", "application/octet-stream"}
)


class Length(NamedTuple):
    """How many seconds of sound a file has; begun ones count."""

    longest: int
    """By the lowest ordinary rate, where its size is all that is known: hardly any has more."""
    likely: int
    is_sure: bool
    """It surely has no more than the longest."""


class Wav(NamedTuple):
    """What is known of a WAV file of plain samples."""

    seconds: int
    """Begun ones count."""
    is_sure: bool
    """No decoder is known to take its samples for something else, and longer."""


def length(file: File) -> Length:
    """Return how long the sound in a file is; see `read_wav`."""
    wav = read_wav(file)
    if wav is not None:
        return Length(wav.seconds, wav.seconds, wav.is_sure)
    longest, likely = -(-file.size // BYTES_PER_SECOND_MIN), -(-file.size // BYTES_PER_SECOND)
    return Length(longest, likely, is_sure=False)


def read_wav(file: File) -> Wav | None:
    """Return how long a WAV file of plain samples is; None for others.

    By the size of the file, not by what its head says of the samples: it may not be longer. One
    that could be read as another format, by its name, an odd head or its first samples, is none.
    """
    head = file.head
    if len(head) < _WAV.size or not _is_called_wav(file):
        return None
    riff, _, wave, kind, size, coding, *layout = _WAV.unpack_from(head)
    channels, rate, byte_rate, block, bits = layout
    if (riff, wave, kind) != (b"RIFF", b"WAVE", b"fmt ") or not _is_pcm(head, size, coding, bits):
        return None
    if not 0 < rate <= _RATE_MAX or not 0 < channels <= _CHANNELS_MAX or bits not in _BITS:
        return None
    if block != channels * bits // 8 or byte_rate != rate * block:
        return None
    if not _has_samples(head, _WAV.size - _FMT_BYTES[0] + size) or _may_be_other(head):
        return None
    samples = file.size - _WAV.size - _CHUNK_HEAD_BYTES
    seconds: int = -(-samples // byte_rate)
    return Wav(max(1, seconds), is_sure=bits != _PROBED_BITS)


def _is_called_wav(file: File) -> bool:
    if file.content_type not in _WAV_TYPES:
        return False
    return all(name.casefold().endswith(".wav") for name in file.filenames if name)


def _is_pcm(head: bytes, size: int, coding: int, bits: int) -> bool:
    """Say whether a format is that of plain samples, be it in its longer form."""
    if coding == _PCM:
        return size in _FMT_BYTES
    if (coding, size) != (_EXTENSIBLE, _FMT_EXTENSIBLE_BYTES):
        return False
    extension = head[_WAV.size : _WAV.size + _EXTENSION.size]
    if len(extension) < _EXTENSION.size:
        return False
    length, valid_bits, _, guid = _EXTENSION.unpack(extension)
    return (length, valid_bits, guid) == (_EXTENSION_BYTES, bits, _PCM_GUID)


def _has_samples(head: bytes, position: int) -> bool:
    """Say whether the samples begin, behind notes only, so early that their beginning is known."""
    while (name := head[position : position + 4]) in _NOTES:
        size = int.from_bytes(head[position + 4 : position + _CHUNK_HEAD_BYTES], "little")
        position += _CHUNK_HEAD_BYTES + size + size % 2
    begin = position + _CHUNK_HEAD_BYTES
    return name == b"data" and begin <= HEAD_BYTES - _BURSTS_WITHIN_BYTES


def _may_be_other(head: bytes) -> bool:
    """Say whether samples may be speech of a dictaphone (ACT), or compressed sound (IEC 61937).

    The former are 8 kbit/s behind such a head, 84 in hexadecimal, and zeros.
    """
    is_act = head[256:257] == b"\x84" and not any(head[44:256]) and not any(head[264:512])
    return is_act or _IEC_61937.search(head) is not None
