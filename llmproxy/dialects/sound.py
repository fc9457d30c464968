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
_RATE_MAX = 192_000
_FMT_BYTES = (16, 18)
"""Of plain samples: the second with the length of an extension that is not there."""
_CHUNK_NAME_BYTES = 4
_CHUNKS = frozenset({b"data", b"LIST", b"fact", b"bext", b"JUNK", b"junk", b"PAD ", b"FLLR"})
"""What recorders write behind the format: the samples, or notes before them."""
# The last is what clients write that do not look into the file; it says nothing, as None does.
_WAV_TYPES = frozenset({None, "audio/wav", "audio/x-wav", "audio/wave", "application/octet-stream"})


def seconds_of_wav(file: File) -> int | None:
    """Return the seconds of a WAV file of plain samples, begun ones counted; None for others.

    By the size of the file, not by what its head says of the samples: it may not be longer. One
    that could be read as another format, by its name or by an odd head, is none.
    """
    if len(file.head) < _WAV.size or not _is_called_wav(file):
        return None
    riff, _, wave, kind, size, coding, *layout = _WAV.unpack_from(file.head)
    channels, rate, byte_rate, block, bits = layout
    if (riff, wave, kind, coding) != (b"RIFF", b"WAVE", b"fmt ", _PCM) or size not in _FMT_BYTES:
        return None
    if not 0 < rate <= _RATE_MAX or byte_rate != rate * block or not channels:
        return None
    if bits % 8 or not bits or block != channels * bits // 8:
        return None
    format_end = _WAV.size - _FMT_BYTES[0] + size
    if file.head[format_end : format_end + _CHUNK_NAME_BYTES] not in _CHUNKS:
        return None
    samples = file.size - _WAV.size - 8  # the head of the samples themselves
    seconds: int = -(-samples // byte_rate)
    return max(1, seconds)


def _is_called_wav(file: File) -> bool:
    if file.content_type not in _WAV_TYPES:
        return False
    return all(name.casefold().endswith(".wav") for name in file.filenames if name)


def seconds_max(file: File) -> int:
    """Return how many seconds of sound a file has at most, by the lowest ordinary rate."""
    return -(-file.size // BYTES_PER_SECOND_MIN)


def seconds_likely(file: File) -> int:
    """Return how many seconds of sound a file is likely to have."""
    return -(-file.size // BYTES_PER_SECOND)
