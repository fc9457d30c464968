"""Owns how long the sound in a file can be, from its first bytes and its size. Pure.

Exact for plain WAV files; of all others only their size tells anything.
"""

import struct

from llmproxy.dialects.multipart_gate import File

BYTES_PER_SECOND_MIN = 1000
"""8 kbit/s, the lowest rate that MP3 has. Silence in other formats may take less: no bound."""
BYTES_PER_SECOND = 8000
"""64 kbit/s, where nothing else is known."""

_WAV = struct.Struct("<4sI4s4sIHHIIHH")
_PCM = 1


def seconds_of_wav(file: File) -> int | None:
    """Return the seconds of a WAV file of plain samples, begun ones counted; None for others.

    By the size of the file, not by what its head says of the samples: it may not be longer.
    """
    if len(file.head) < _WAV.size:
        return None
    riff, _, wave, kind, size, coding, channels, rate, _, block, bits = _WAV.unpack_from(file.head)
    if (riff, wave, kind, coding) != (b"RIFF", b"WAVE", b"fmt ", _PCM) or size < 16:
        return None
    if not rate or bits % 8 or not bits or block != channels * bits // 8 or not channels:
        return None
    samples = file.size - _WAV.size - 8  # the head of the samples themselves
    seconds: int = -(-samples // (rate * block))
    return max(1, seconds)


def seconds_max(file: File) -> int:
    """Return how many seconds of sound a file has at most, by the lowest ordinary rate."""
    return -(-file.size // BYTES_PER_SECOND_MIN)


def seconds_likely(file: File) -> int:
    """Return how many seconds of sound a file is likely to have."""
    return -(-file.size // BYTES_PER_SECOND)
