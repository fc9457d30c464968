"""One event of a growing stream is long: none of it that is not held passes before its end.

Until it ends nobody knows how much of it is text, so its bytes stand for as many.
"""

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest

from tests.fixtures import CATALOG
from tests.proxy.conftest import running_site
from tests.proxy.gemini import BASE, JSON, chunk
from tests.proxy.helpers import CHAT, Site
from tests.proxy.test_growing import dear_chat, visitor
from tests.support.answers import data_event, openai_usage
from tests.support.stub_provider import Out, SeenRequest

INPUT, OUTPUT = 10_000, 100_000
HELD_TOKENS = 256
PASSES_BYTES = HELD_TOKENS * 2
"""As many bytes of text are held."""
EVENT_STREAM = [("content-type", "text/event-stream")]
PIECE_BYTES = 100
ASKS_USAGE = {"stream_options": {"include_usage": True}}
"""So that nothing is to be withheld, and all passes as it comes."""
ARRAY = f"{BASE}/dear:streamGenerateContent"
GEMINI_BODY = b'{"contents":[],"generationConfig":{"maxOutputTokens":128000}}'


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """As `dear` of the others, with a model of Gemini's too."""
    home = tmp_path_factory.mktemp("long")
    catalog = json.loads(CATALOG.read_bytes())
    entry = {"in_price": "10", "out_price": "100", "max_output_tokens": 128_000}
    catalog["models"]["openai/dear"] = catalog["models"]["gemini/dear"] = entry
    (home / "catalog.json").write_text(json.dumps(catalog))
    environ = {
        "LLMPROXY_CATALOG_FILE": str(home / "catalog.json"),
        "LLMPROXY_HOLD_STREAM_OUTPUT_TOKENS": str(HELD_TOKENS),
    }
    with running_site(home, environ) as site:
        site.proxy.use_provider("gemini", site.stub.url)
        yield site


class Slow:
    """Sends the beginning of a stream in pieces; the rest, or its break, when it may go on."""

    def __init__(
        self, beginning: bytes, rest: bytes, head: list[tuple[str, str]] = EVENT_STREAM
    ) -> None:
        self._beginning, self._rest, self._head = beginning, rest, head
        self.may_go_on = threading.Event()

    async def __call__(self, request: SeenRequest, out: Out) -> None:
        await out.head(200, self._head)
        for at in range(0, len(self._beginning), PIECE_BYTES):
            await out.chunk(self._beginning[at : at + PIECE_BYTES])
        await asyncio.to_thread(self.may_go_on.wait, 20)
        if self._rest:
            await out.chunk(self._rest)
            await out.end()
        else:
            out.abort()


def one_event(text: str) -> bytes:
    return data_event({"choices": [{"index": 0, "delta": {"content": text}}]})


def end(tokens: int) -> bytes:
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": openai_usage(10, tokens)}
    return data_event(last) + data_event(usage) + b"data: [DONE]\n\n"


LONG = one_event("word " * 2000)
"""10,000 bytes of text, as which 5,000 tokens are held: half a dollar."""


@pytest.mark.parametrize("fields", [ASKS_USAGE, {}])
def test_it_passes_as_it_came_when_it_has_ended_and_is_held(
    site: Site, fields: dict[str, object]
) -> None:
    """Where usage is withheld, events are held back anyway until they end, up to 16 KiB."""
    site.stub.handle = slow = Slow(LONG[:-1], LONG[-1:] + end(2000))
    slow.may_go_on.set()
    ann = visitor(site, "2")
    got = site.ask(ann, CHAT, dear_chat(**fields))
    assert got.body.startswith(LONG)
    assert got.body.endswith(b"data: [DONE]\n\n")
    row = site.assert_row(ann, state="settled", basis="usage", cost=10 * INPUT + 2000 * OUTPUT)
    assert row["hold_nanousd"] >= row["cost_nanousd"]


@pytest.mark.parametrize("fields", [ASKS_USAGE, {}])
def test_none_of_it_passes_that_is_not_held_where_the_credit_ends(
    site: Site, fields: dict[str, object]
) -> None:
    """0.1 USD, which pays for fewer than 1,000 tokens; its 30,000 bytes may be 15,000."""
    event = one_event("word " * 6000)
    site.stub.handle = slow = Slow(event[:-1], event[-1:] + end(6000))
    slow.may_go_on.set()
    ann = visitor(site, "0.1")
    got = site.ask(ann, CHAT, dear_chat(**fields))
    name, told = got.last_event()
    assert (name, told["error"]["code"]) == (b"error", "insufficient_credit")
    assert len(got.body.partition(b"\n\nevent: error")[0]) <= PASSES_BYTES
    row = site.ended(ann)
    assert (row["charged_nanousd"], row["reason"]) == (10**8, "the credit ended before the answer")


def test_nor_where_the_provider_breaks_it_off(site: Site) -> None:
    """What nobody can read costs nothing, so none of it beyond the hold has passed either."""
    site.stub.handle = slow = Slow(LONG[:9_000], b"")
    slow.may_go_on.set()
    ann = visitor(site, "2")
    got = site.ask(ann, CHAT, dear_chat(**ASKS_USAGE))
    assert got.last_event()[1]["error"]["code"] == "upstream_interrupted"
    assert len(got.body.partition(b"\n\nevent: error")[0]) <= PASSES_BYTES
    site.assert_row(ann, state="released", basis="none", cost=0)


def test_what_came_whole_before_it_passes_at_once(site: Site) -> None:
    """Though the beginning of the long one comes in the same piece."""
    word = one_event("word")
    site.stub.handle = slow = Slow(word + LONG[:9_000], LONG[9_000:] + end(2000))
    ann = visitor(site, "2")
    with site.send(ann, CHAT, dear_chat(**ASKS_USAGE)) as client:
        client.recv_head()
        taken = b""
        chunks = client.recv_chunks()
        while len(taken) < len(word):
            taken += next(chunks)[1]
        slow.may_go_on.set()
        taken += b"".join(piece for _, piece in chunks)
    assert taken == word + LONG + end(2000)
    site.assert_row(ann, state="settled", basis="usage", cost=10 * INPUT + 2000 * OUTPUT)


def array(*texts: str) -> bytes:
    """A Gemini array of chunks with these texts, whose usage is that of the last."""
    chunks = [chunk(text) for text in texts[:-1]] + [chunk(texts[-1], "STOP")]
    counts = {"promptTokenCount": 10, "candidatesTokenCount": 2000, "totalTokenCount": 2010}
    return json.dumps([{**one, "usageMetadata": counts} for one in chunks]).encode()


def test_an_object_of_an_array_passes_as_an_event_does(site: Site) -> None:
    whole = array("word " * 2000)
    site.stub.handle = slow = Slow(whole[:-9], whole[-9:], JSON)
    slow.may_go_on.set()
    rich, poor = visitor(site, "2"), visitor(site, "0.1")
    assert site.ask(rich, ARRAY, GEMINI_BODY).body == whole
    site.assert_row(rich, state="settled", basis="usage", cost=10 * INPUT + 2000 * OUTPUT)
    got = site.ask(poor, ARRAY, GEMINI_BODY)
    assert whole.startswith(got.body)
    assert not got.clean_end
    assert len(got.body) <= PASSES_BYTES
    assert site.ended(poor)["reason"] == "the credit ended before the answer"


def test_of_an_array_that_comes_at_once_the_beginning_passes_that_is_held(site: Site) -> None:
    """Of 100 objects of 100 bytes of text, 50 tokens each at most; 0.1 USD pays for 930 or so."""
    whole = array(*["word " * 20] * 100)

    async def handle(request: SeenRequest, out: Out) -> None:
        head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"
        await out.send(head.format(len(whole)).encode() + whole)

    site.stub.handle = handle
    ann = visitor(site, "0.1")
    got = site.ask(ann, ARRAY, GEMINI_BODY)
    assert whole.startswith(got.body)
    assert not got.clean_end
    row = site.ended(ann)
    assert row["reason"] == "the credit ended before the answer"
    texts = got.body.count(b"word " * 20)
    assert texts * 50 * OUTPUT <= row["hold_nanousd"]
    # They are read in pieces of 4 KiB, so not all of the 18 that are held pass.
    assert texts >= 5
