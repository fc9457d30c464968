"""The demo provider's `images/generations`: small squares of one colour, from the prompt's hash.

Billed as OpenAI's image models are, at their lowest quality, which is what it says it has drawn.
"""

import struct
import zlib
from base64 import b64encode
from hashlib import blake2b
from typing import Annotated

import msgspec

from llmproxy.demo.openai_wire import (
    CREATED_S,
    json_answer,
    missing,
    read_body,
    refusal,
    refuse_model,
)
from llmproxy.demo.replies import Answer, Counted, PromptCache, Request, count_tokens

EDGE_PIXELS = 16
IMAGE_TOKENS = 272
"""Of an image of 1024 × 1024 in low quality, as OpenAI counts."""
IMAGES_MAX = 10


class _Create(msgspec.Struct):
    model: str = ""
    prompt: str = ""
    n: Annotated[int, msgspec.Meta(ge=1, le=IMAGES_MAX)] | None = None
    stream: bool | None = None


def answer(request: Request, _cache: PromptCache) -> Answer:
    """Answer one request.

    Raises:
        RefusalError: the request is wrong, or wants a stream.
    """
    create = read_body(request, _Create)
    refuse_model(create.model)
    if not create.prompt:
        raise missing("prompt")
    if create.stream:
        raise refusal(400, "The demo provider does not stream images.", "stream")
    count = create.n or 1
    data = [{"b64_json": b64encode(png(f"{create.prompt} {i}")).decode()} for i in range(count)]
    tokens_in, tokens_out = count_tokens(len(create.prompt)), count * IMAGE_TOKENS
    usage = {
        "input_tokens": tokens_in,
        "input_tokens_details": {"text_tokens": tokens_in, "image_tokens": 0},
        "output_tokens": tokens_out,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": tokens_out},
        "total_tokens": tokens_in + tokens_out,
    }
    body = {"created": CREATED_S, "output_format": "png", "quality": "low", "data": data}
    counted = Counted(request.path, create.model, tokens_in, tokens_out)
    return json_answer(request, {**body, "usage": usage}, counted)


def png(text: str) -> bytes:
    """Return a square in a colour that depends on a text, as a PNG file."""
    colour = blake2b(text.encode("utf-8", "replace"), digest_size=3).digest()
    rows = (b"\0" + colour * EDGE_PIXELS) * EDGE_PIXELS  # each begins with its filter: none
    header = struct.pack(">IIBBBBB", EDGE_PIXELS, EDGE_PIXELS, 8, 2, 0, 0, 0)  # 8 bits of RGB
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*each) for each in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
