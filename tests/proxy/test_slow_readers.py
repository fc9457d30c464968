"""Clients that read slowly, and clients that stop reading, in every dialect.

The answers are recorded ones, made longer than all buffers on the way by comments, which every
dialect may have and none bills.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fixtures import CATALOG, STREAMS, Case
from tests.proxy.conftest import running_site
from tests.proxy.helpers import Site, Visitor
from tests.support.raw_client import RawClient
from tests.support.stub_provider import Out, SeenRequest

NAMES = [
    *("openai-chat", "openai-chat-asked", "openai-completions"),
    *("openai-responses", "anthropic-messages"),
]
STALL_S = 1.0
COMMENT = b": " + "still thinking – 考え中 ".encode() * 4000 + b"\n\n"
SLOW_COMMENTS = 100
"""Over 10 MB, taken in more time than a client has that does not read at all."""
STOPPED_COMMENTS = 280
"""Over 30 MB: what is left unread fits into no buffer."""
CUT = "x-fixture"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy on which a client that takes nothing for a second counts as gone."""
    environ = {
        "LLMPROXY_CATALOG_FILE": str(CATALOG),
        "LLMPROXY_STALL_TIMEOUT_S": str(int(STALL_S)),
    }
    with running_site(tmp_path_factory.mktemp("slow"), environ) as site:
        yield site


class Long:
    """Gives the recorded stream that a request names, with comments behind its first event."""

    def __init__(self, comments: int) -> None:
        self.comments = comments
        self.was_read = {name: threading.Event() for name in NAMES}

    async def __call__(self, request: SeenRequest, out: Out) -> None:
        name = (request.header(CUT) or b"").decode()
        first, *rest = STREAMS[name].events
        await out.head(200, STREAMS[name].answer_headers)
        await out.chunk(first)
        for _ in range(self.comments):
            await out.chunk(COMMENT)
        for event in rest:
            await out.chunk(event)
        await out.end()
        self.was_read[name].set()

    def passed(self, case: Case) -> bytes:
        first = case.events[0]
        return first + COMMENT * self.comments + case.passed().removeprefix(first)


def send_all(site: Site) -> list[tuple[Case, Visitor, RawClient]]:
    sent = []
    for name in NAMES:
        case, visitor = STREAMS[name], site.visitor()
        headers = {**case.request_headers, CUT: name}
        sent.append((case, visitor, site.send(visitor, case.path, case.request, headers)))
    return sent


def check_paid(site: Site, case: Case, visitor: Visitor) -> None:
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=case.nanousd)


def test_a_client_that_reads_slowly_but_steadily_gets_everything(site: Site) -> None:
    site.stub.handle = long = Long(SLOW_COMMENTS)

    def read_slowly(client: RawClient) -> tuple[bytes, bool]:
        taken = bytearray()
        with client:
            client.recv_head()
            for _, piece in client.recv_chunks():
                taken += piece
                time.sleep(0.01)
        return bytes(taken), client.clean_end

    sent = send_all(site)
    started = time.monotonic()
    with ThreadPoolExecutor(len(sent)) as threads:
        read = list(threads.map(read_slowly, [client for _, _, client in sent]))
    assert time.monotonic() - started > STALL_S
    for (case, visitor, _), (taken, is_clean) in zip(sent, read, strict=True):
        assert is_clean
        assert taken == long.passed(case)
        check_paid(site, case, visitor)


def test_a_client_that_stops_reading_is_gone_and_pays_what_the_provider_reports(
    site: Site,
) -> None:
    site.stub.handle = long = Long(STOPPED_COMMENTS)
    started = time.monotonic()
    sent = send_all(site)
    bodies = []
    for _, _, client in sent:
        client.recv_head()
        bodies.append(client.recv_chunks())
        next(bodies[-1])  # it begins well
    for (case, visitor, client), body in zip(sent, bodies, strict=True):
        with client:
            assert long.was_read[case.fixture].wait(20)
            assert time.monotonic() - started >= STALL_S
            check_paid(site, case, visitor)
            list(body)
            assert not client.clean_end  # what it has is not taken for the whole
