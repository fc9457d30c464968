"""Owns how many pages a PDF has, roughly and cheaply: what providers bill a PDF by. Pure.

Pages are counted by their objects, in the file itself and in its compressed object streams, without
reading the document. Where that is not possible, the size of the file speaks.
"""

import re
import zlib

PAGE_BYTES = 3 * 1024
"""Of a page of plain text, where pages cannot be counted."""
PAGES_BY_SIZE_MAX = 100
PAGE_BYTES_MAX = 1024 * 1024
"""A scanned page is not larger: so many pages there are at least, whatever was counted."""
PAGES_MAX = 10_000
_STREAMS_MAX = 2000
_STREAM_BYTES_MAX = 128 * 1024
_INFLATED_BYTES_MAX = 1024 * 1024
"""Of one object stream; of all together it is so many times the file, and not above the total."""
_INFLATION_MAX = 20
_INFLATED_TOTAL_BYTES_MAX = 16 * 1024 * 1024

_OBJECT = re.compile(rb"/Type[ \t\r\n]{0,8}/(?:(Page)(?![A-Za-z])|ObjStm)")
_STREAM = re.compile(rb"[^\x00]{0,512}?stream\r?\n")


def count_pages(pdf: bytes | bytearray) -> int:
    """Return an estimate of a PDF's pages, at least 1."""
    pages = _count_objects(pdf) or pages_by_size(len(pdf))
    return max(pages, -(-len(pdf) // PAGE_BYTES_MAX))


def pages_by_size(pdf_bytes: int) -> int:
    """Return how many pages of plain text a file of this size may have, from 1 to 100."""
    return min(max(1, -(-pdf_bytes // PAGE_BYTES)), PAGES_BY_SIZE_MAX)


def _count_objects(pdf: bytes | bytearray) -> int | None:
    """Return how many page objects there are, None when some of them cannot be seen."""
    pages = streams = 0
    inflatable = min(_INFLATION_MAX * len(pdf), _INFLATED_TOTAL_BYTES_MAX)
    for found in _OBJECT.finditer(pdf):
        if found[1]:
            pages += 1
        else:
            streams += 1
            text = _inflate(pdf, found.end(), min(inflatable, _INFLATED_BYTES_MAX))
            if text is None or streams > _STREAMS_MAX:
                return None
            inflatable -= len(text)
            pages += sum(1 for inner in _OBJECT.finditer(text) if inner[1])
        if pages > PAGES_MAX:
            return PAGES_MAX
    return pages


def _inflate(pdf: bytes | bytearray, position: int, bytes_max: int) -> bytes | None:
    """Return the object stream whose dictionary is at a position, None when it cannot be read."""
    stream = _STREAM.match(pdf, position)
    if stream is None or bytes_max <= 0:
        return None
    inflater = zlib.decompressobj()
    try:
        with memoryview(pdf)[stream.end() : stream.end() + _STREAM_BYTES_MAX] as packed:
            text = inflater.decompress(packed, bytes_max)
    except zlib.error:  # another filter, or encrypted
        return None
    return text if inflater.eof else None
