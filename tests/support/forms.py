"""Forms with files, as the SDKs write them."""

import struct
from collections.abc import Mapping

BOUNDARY = "a351f941c4272c5c8c1ad0876e2b7f78"


def form(texts: Mapping[str, str], files: Mapping[str, bytes], boundary: str = BOUNDARY) -> bytes:
    """A `multipart/form-data` body; its files are called by what they are."""
    parts = [part(f'name="{name}"', text.encode(), boundary) for name, text in texts.items()]
    parts += [
        part(f'name="{name}"; filename="{name}.{_extension(content)}"', content, boundary)
        for name, content in files.items()
    ]
    return b"".join(parts) + f"--{boundary}--\r\n".encode()


def _extension(content: bytes) -> str:
    return "wav" if content.startswith(b"RIFF") else "bin"


def part(disposition: str, content: bytes, boundary: str = BOUNDARY, *headers: str) -> bytes:
    """One part of a form, with these headers besides."""
    lines = [f"--{boundary}", f"Content-Disposition: form-data; {disposition}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content + b"\r\n"


def wav(samples: int, rate: int = 8000, channels: int = 1, width: int = 1) -> bytes:
    """A WAV file of silence, of so many samples for each channel."""
    block = channels * width
    size = samples * block
    head = struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE")
    head += struct.pack(
        "<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * block, block, 8 * width
    )
    return head + struct.pack("<4sI", b"data", size) + bytes(size)
