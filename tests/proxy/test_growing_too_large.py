"""A growing stream is broken off for an event without an end: what came whole before it passes."""

from collections.abc import Iterator

import pytest

from llmproxy.cover import PIECE_BYTES
from tests.proxy.conftest import running_site
from tests.proxy.helpers import CHAT, Site, chat
from tests.proxy.test_growing_piles import Pile
from tests.support.answers import openai_chat_stream, openai_usage

EVENT_BYTES_MAX = 8000
LOWERED = f"""
from llmproxy.dialects import sse

sse.EVENT_BYTES_MAX = {EVENT_BYTES_MAX}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy that takes events of 8,000 bytes, not of 64 MiB: as many as come at once."""
    home = tmp_path_factory.mktemp("lowered")
    (home / "sitecustomize.py").write_text(LOWERED)  # Python reads it when it starts
    environ = {"PYTHONPATH": str(home), "LLMPROXY_HOLD_STREAM_OUTPUT_TOKENS": "1000"}
    with running_site(home, environ) as site:
        yield site


def test_events_that_were_whole_before_one_without_an_end_pass(site: Site) -> None:
    """Their 300 bytes of text are held: as 150 tokens at most, of 1,000."""
    events = openai_chat_stream([" word"] * 60)[:-3]
    whole = b"".join(events)
    assert len(whole) > 2 * PIECE_BYTES
    site.stub.handle = Pile([whole, b"data: " + b"x" * (EVENT_BYTES_MAX + 1)])
    ann = site.visitor()
    got = site.ask(ann, CHAT, chat(stream=True, max_tokens=4000))
    name, told = got.last_event()
    assert (name, told["error"]["code"]) == (b"error", "upstream_interrupted")
    row = site.ended(ann)
    assert (row["state"], row["basis"]) == ("settled", "estimate")
    assert "an event has more than 8,000 bytes" in row["reason"]
    # They are read in pieces of 4 KiB: what is in one with the last of them does not pass.
    passed = got.body.partition(b"\n\nevent: error")[0]
    assert len(passed) > len(whole) - PIECE_BYTES - 300
    assert whole.startswith(passed)


def test_an_answer_that_is_whole_passes_though_one_without_an_end_follows(site: Site) -> None:
    """What comes behind the last word counts for nothing, and takes nothing back."""
    events = openai_chat_stream([" word"] * 60, usage=openai_usage(10, 60))
    whole = b"".join(events)
    comment = b": " + b"x" * PIECE_BYTES + b"\n\n"  # fills the piece that the last word is in
    site.stub.handle = Pile([whole, comment, b"data: " + b"x" * (EVENT_BYTES_MAX + 1)])
    ann = site.visitor()
    asked = {"stream_options": {"include_usage": True}}
    got = site.ask(ann, CHAT, chat(stream=True, max_tokens=4000, **asked))
    assert got.clean_end
    assert got.body.startswith(whole)
    site.assert_paid(ann, state="settled", basis="usage", nanousd=10 * 2500 + 60 * 10_000)
