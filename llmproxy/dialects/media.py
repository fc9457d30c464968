"""Owns images and PDFs that a body carries as base64: their bytes in it, and their pages. Pure.

What counts by its bytes is text, also where it calls itself something else: only images and PDFs
are told apart. Must not know in which members of a request they stand: that is each dialect's.
"""

import binascii
import re
from typing import NamedTuple

from llmproxy.dialects.json_slowly import LongText
from llmproxy.dialects.pdf_pages import count_pages, pages_by_size

# An SVG is text, whatever reads it.
_MEDIA_TYPE = r"(?:image/(?!svg)[a-z0-9.+-]{1,60}|application/(pdf))"
_MEDIA = re.compile(_MEDIA_TYPE, re.IGNORECASE)
_DATA_URL = re.compile(rf"data:{_MEDIA_TYPE}(?:;[^,;]{{0,60}}){{0,4}};base64,", re.IGNORECASE)
_STEP_BYTES = 1024 * 1024


class Embedded(NamedTuple):
    """An image or PDF in the body."""

    data_bytes: int
    """Of its base64 in the body; never more than stand there, however it is escaped."""
    pdf_pages: int
    """0 for an image."""


def in_data_url(url: object) -> Embedded | None:
    """Return what a `data:` URL carries; None for a link, and for what is neither image nor PDF."""
    if not isinstance(url, str):
        return None
    found = _DATA_URL.match(url)
    return None if found is None else _embedded(url, found.end(), is_pdf=bool(found[1]))


def in_base64(data: object, media_type: object) -> Embedded | None:
    """Return what a text of base64 carries; None where it is neither image nor PDF."""
    if not isinstance(data, str) or not isinstance(media_type, str):
        return None
    found = _MEDIA.fullmatch(media_type)
    return None if found is None else _embedded(data, 0, is_pdf=bool(found[1]))


def _embedded(text: str, start: int, *, is_pdf: bool) -> Embedded:
    data_bytes = max(0, text_length(text) - start)
    if not is_pdf:
        return Embedded(data_bytes, 0)
    pdf = _decode(text, start)
    return Embedded(data_bytes, pages_by_size(data_bytes) if pdf is None else count_pages(pdf))


def text_length(text: str) -> int:
    """Return how many characters a text has; of a long one at most, and never above its bytes."""
    if not isinstance(text, LongText):
        return len(text)
    body, start, end = text.body, text.start, text.end
    escapes = body.count(b"\\", start, end)
    if not escapes:
        return end - start
    return end - start - escapes - 4 * body.count(b"\\u", start, end)


def _decode(text: str, start: int) -> bytearray | None:
    """Return what the base64 from a character on stands for, None when it is none.

    Step by step: a long one must not keep other threads waiting.
    """
    if isinstance(text, LongText):
        written, end = text.body, text.end
        begin = text.start
        if start:  # behind the head of a `data:` URL, which may have escapes of its own
            begin = max(begin, written.find(b",", begin, end) + 1)
    else:
        written, begin = text.encode(errors="replace"), start
        end = len(written)
    escapes = written.count(b"\\", begin, end)
    # Some encoders write every slash of JSON as `\/`; no other escape stands in base64.
    if escapes and written.count(b"\\/", begin, end) != escapes:
        return None
    found, rest = bytearray(), b""
    try:
        for step in range(begin, end, _STEP_BYTES):
            piece = rest + written[step : min(step + _STEP_BYTES, end)].replace(b"\\", b"")
            whole = len(piece) & ~3
            found += binascii.a2b_base64(piece[:whole], strict_mode=True)
            rest = piece[whole:]
    except binascii.Error:
        return None
    return found
