"""Chat completions for tests: answers and streams with a usage record, read."""

from typing import Any

from llmproxy.dialects.base import Reading
from llmproxy.dialects.openai_chat import OpenAIChat
from llmproxy.dialects.openai_chunks import ChunkStreamReader
from tests.support.answers import data_event, openai_chat

CHAT = OpenAIChat()
DONE = b"data: [DONE]\n\n"


def read(usage: object, **fields: Any) -> Reading:  # noqa: ANN401
    return CHAT.read_answer(openai_chat(usage=usage, **fields))


def run(*events: bytes, withholds: bool = True) -> tuple[bytes, ChunkStreamReader]:
    """What passes of a stream, and its reader."""
    reader = CHAT.stream_reader(withholds_usage=withholds)
    passed = b"".join(reader.events.feed(event) for event in events)
    return passed + reader.events.finish(), reader


def chunk(*, choices: object = None, **fields: object) -> bytes:
    return data_event({"model": "gpt-4o-2024-08-06", "choices": choices or [], **fields})


def content(text: str, finish: str | None = None) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]
