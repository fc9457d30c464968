"""The demo provider's `embeddings`: a vector of length one for each input, from its hash."""

import math
import struct
from base64 import b64encode
from hashlib import shake_256
from typing import Annotated, Literal

import msgspec

from llmproxy.demo.openai_completions import read_texts
from llmproxy.demo.openai_wire import json_answer, missing, read_body, refuse_model
from llmproxy.demo.replies import Answer, Counted, PromptCache, Request

DIMENSIONS = 1536
DIMENSIONS_LARGE = 3072


class _Create(msgspec.Struct):
    model: str = ""
    input: str | list[str | int | list[int]] | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=DIMENSIONS_LARGE)] | None = None


def answer(request: Request, _cache: PromptCache) -> Answer:
    """Answer one request.

    Raises:
        RefusalError: the request is wrong.
    """
    create = read_body(request, _Create)
    refuse_model(create.model)
    if create.input in (None, "", []):
        raise missing("input", is_empty=create.input is not None)
    texts = read_texts(create.input)
    size = create.dimensions or (DIMENSIONS_LARGE if "large" in create.model else DIMENSIONS)
    data = [
        {"object": "embedding", "index": i, "embedding": _encoded(_vector(text, size), create)}
        for i, (text, _) in enumerate(texts)
    ]
    tokens = sum(tokens for _, tokens in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    body = {"object": "list", "data": data, "model": create.model, "usage": usage}
    return json_answer(request, body, Counted(request.path, create.model, tokens))


def _vector(text: str, size: int) -> list[float]:
    digest = shake_256(text.encode("utf-8", "replace")).digest(2 * size)
    values = struct.unpack(f"<{size}h", digest)
    length = math.hypot(*values) or 1.0
    return [value / length for value in values]


def _encoded(vector: list[float], create: _Create) -> list[float] | str:
    if create.encoding_format == "float":
        return vector
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
