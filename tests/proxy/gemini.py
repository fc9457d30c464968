"""Gemini's own API for tests of the running proxy: its paths, answers and streams."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.proxy.conftest import running_site
from tests.proxy.helpers import Got, Site, Visitor
from tests.support.stub_provider import Out, SeenRequest

MODEL = "gemini-2.5-flash"
BASE = "/v1/gemini/v1beta/models"
GENERATE = f"{BASE}/{MODEL}:generateContent"
STREAM = f"{BASE}/{MODEL}:streamGenerateContent"
BODY = (
    b'{"contents":[{"parts":[{"text":"hi \xc3\xa9"}]}], "generationConfig":{"maxOutputTokens":99}}'
)
JSON = [("content-type", "application/json; charset=UTF-8")]
COUNTS = {"promptTokenCount": 100, "candidatesTokenCount": 20, "totalTokenCount": 120}
COST = 100 * 300 + 20 * 2_500
"""Of COUNTS: 0.30 and 2.50 USD per million tokens."""


@contextmanager
def gemini_site(folder: Path) -> Iterator[Site]:
    """A proxy whose `gemini` is the stub."""
    with running_site(folder, {}) as site:
        site.proxy.use_provider("gemini", site.stub.url)
        yield site


def chunk(text: str, end: str | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}}
    if end:
        candidate["finishReason"] = end
    return {"candidates": [candidate], "usageMetadata": COUNTS, "modelVersion": MODEL}


CHUNKS = [chunk("é「"), chunk('後}"{'), chunk("😀", "STOP")]
EVENTS = [f"data: {json.dumps(one, ensure_ascii=False)}\r\n\r\n".encode() for one in CHUNKS]
ARRAY = "[{}\n]\n".format(
    "\n,\r\n".join(json.dumps(one, ensure_ascii=False, indent=2) for one in CHUNKS)
).encode()
ANSWER = json.dumps(chunk("hello", "STOP"), indent=2).encode()


def in_pieces(whole: bytes, size: int, head: list[tuple[str, str]], *, ends: bool = True) -> Any:  # noqa: ANN401
    """Answer with an array in pieces; without `ends`, break off after the last one."""

    async def handle(_request: SeenRequest, out: Out) -> None:
        await out.head(200, head)
        for at in range(0, len(whole), size):
            await out.chunk(whole[at : at + size])
        if ends:
            await out.end()
        else:
            out.abort()

    return handle


def ask(site: Site, path: str, body: bytes = BODY, **headers: str) -> tuple[Got, Visitor]:
    visitor = site.visitor()
    return site.ask(visitor, path, body, headers), visitor
