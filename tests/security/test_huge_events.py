"""S10: an event without an end is cut off before it fills the memory, and told."""

import asyncio
from pathlib import Path

import pytest

from llmproxy.dialects import sse
from llmproxy.dialects.openai_chunks import ChunkStreamReader
from llmproxy.dialects.sse import EventTooLargeError
from tests.proxy.helpers import CHAT, Site, chat
from tests.support.stub_provider import Out, SeenRequest


@pytest.mark.parametrize("holds_back", [True, False])
def test_an_event_that_never_ends_is_refused(
    holds_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "EVENT_BYTES_MAX", 1000)
    reader = ChunkStreamReader(withholds_usage=holds_back)  # which has its stream, not the reverse
    stream = reader.events
    for _ in range(10):
        assert stream.feed(b"data: " + b"x" * 900 + b"\n\n") != b""
    stream.feed(b"data: " + b"x" * 900)
    with pytest.raises(EventTooLargeError, match="1,000 bytes"):
        stream.feed(b"x" * 200)


@pytest.mark.slow
def test_a_provider_that_sends_one_line_without_end_is_broken_off(site: Site) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "text/event-stream")])
        await out.chunk(b'data: {"choices":[{"delta":{"content":"Hello"}}]}\n\ndata: ')
        for _ in range(200):
            await out.chunk(b"x" * 1024 * 1024)
            await asyncio.sleep(0)
        raise AssertionError("all of it was taken")

    site.stub.handle = handle
    visitor = site.visitor()
    got = site.ask(visitor, CHAT, chat(stream=True))
    name, told = got.last_event()
    assert (name, told["error"]["code"]) == (b"error", "upstream_interrupted")
    row = site.ended(visitor)
    assert (row["state"], row["basis"]) == ("settled", "estimate")
    status = Path(f"/proc/{site.proxy.pid}/status").read_text()
    (peak_kib,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    assert int(peak_kib) < 600_000
