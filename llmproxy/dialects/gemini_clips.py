"""Owns how many tokens the audio and video in a Gemini request may be, by format and size. Pure.

Exact for plain WAV files. Of everything else the size says little: nothing keeps a minute of
silence, or of a still picture, from being a few bytes.
"""

import binascii
from typing import NamedTuple

from llmproxy.dialects import sound
from llmproxy.dialects.base import ClipTokens
from llmproxy.dialects.media import text_length
from llmproxy.dialects.multipart_gate import HEAD_BYTES, File

VIDEO_SECOND_TOKENS = 300
"""A frame of 258 tokens, 32 of its sound, and the time that stands beside them."""
VIDEO_BYTES_PER_SECOND_MIN = 16_000
"""128 kbit/s: of ordinary video hardly any takes less. No bound."""
FPS_MAX = 24
"""The most frames in a second that a request may ask for."""
_KINDS = ("audio/", "video/")
_HEAD_CHARS = -(-HEAD_BYTES // 3) * 4


class Clip(NamedTuple):
    """Audio or video in the body."""

    data_bytes: int
    """Of its base64 in the body."""
    tokens: ClipTokens
    """At most, where it is sure; else of nearly all that have this size."""
    is_sure: bool
    is_video: bool


def is_clip(kind: str) -> bool:
    """Say whether a MIME type in lower case is one of audio or video."""
    return kind.startswith(_KINDS)


def read_clip(data: str, kind: str) -> Clip:
    """Return what the base64 of audio or video may amount to.

    Args:
        data: the base64.
        kind: its MIME type, for which `is_clip` is true.
    """
    data_bytes = text_length(data)
    size = -(-data_bytes * 3 // 4)
    if kind.startswith("video/"):
        seconds = -(-size // VIDEO_BYTES_PER_SECOND_MIN)
        tokens = seconds * VIDEO_SECOND_TOKENS
        return Clip(data_bytes, ClipTokens(tokens, tokens), is_sure=False, is_video=True)
    file = File("data", size, _head(data), (), kind.partition(";")[0].rstrip())
    longest, likely, is_sure = sound.length(file)
    rate = sound.GEMINI_SECOND_TOKENS
    return Clip(data_bytes, ClipTokens(longest * rate, likely * rate), is_sure, is_video=False)


def frames_per_second(given: object) -> int:
    """Return how many frames of each second may be read, where a request asks for so many."""
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given <= FPS_MAX:
        return FPS_MAX  # it is refused, or lowered to that
    return max(1, -int(-given // 1))


def _head(data: str) -> bytes:
    """Return how the data begin; nothing where they are not plain base64."""
    try:
        return binascii.a2b_base64(data[:_HEAD_CHARS], strict_mode=True)[:HEAD_BYTES]
    except ValueError:
        return b""
