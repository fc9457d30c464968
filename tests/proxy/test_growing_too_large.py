"""A growing stream is broken off for an event without an end: what came whole before it passes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llmproxy.cover import PIECE_BYTES
from tests.proxy.conftest import running_site
from tests.proxy.helpers import CHAT, Site, chat
from tests.proxy.stuffed import Stuffed
from tests.proxy.test_growing_piles import Pile
from tests.support.answers import openai_chat_stream, openai_usage
from tests.support.raw_client import RawClient

EVENT_BYTES_MAX = 8000
LOWERED = """
from llmproxy.dialects import sse

sse.EVENT_BYTES_MAX = {}
"""


@contextmanager
def taking_events_of(event_bytes_max: int, home: Path) -> Iterator[Site]:
    """A proxy that takes no longer events, where others take 64 MiB."""
    (home / "sitecustomize.py").write_text(LOWERED.format(event_bytes_max))  # read at its start
    environ = {"PYTHONPATH": str(home), "LLMPROXY_HOLD_STREAM_OUTPUT_TOKENS": "1000"}
    with running_site(home, environ) as site:
        yield site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy that takes events of 8,000 bytes: as many as come at once."""
    with taking_events_of(EVENT_BYTES_MAX, tmp_path_factory.mktemp("lowered")) as site:
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


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other buffers")
def test_the_provider_is_hung_up_on_though_the_client_does_not_read(tmp_path: Path) -> None:
    """What it generates meanwhile nobody would pay for: it must not wait for the client."""
    provider = Stuffed(b"data: " + b"x" * 300_000)
    with taking_events_of(300_000, tmp_path) as site:
        site.stub.handle = provider
        ann = site.visitor()
        with RawClient(site.proxy.port, takes_little=True) as client:
            body = chat(stream=True, max_tokens=4000)
            client.post(CHAT, body, {"authorization": f"Bearer {ann.key}"})
            client.recv_head()
            parts = client.recv_chunks()
            assert len(next(parts)[1]) < 100_000
            provider.may_go_on.set()
            assert provider.hung_up.wait(10)
            rest = b"".join(piece for _, piece in parts)
            assert client.clean_end
        assert b"upstream_interrupted" in rest.rpartition(b"data: ")[2]
        assert "an event has more than 300,000 bytes" in site.ended(ann)["reason"]
