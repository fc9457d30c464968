"""Recorded answers through the real server, to clients that stay and to clients that leave.

Whatever the client does, the provider is read to its end: every row has exactly the usage that the
provider reported, and costs what was worked out by hand.
"""

import asyncio
import json
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from llmproxy.money import format_usd, parse_usd
from tests.fixtures import CATALOG, EVERY, Case
from tests.proxy.conftest import running_site
from tests.proxy.helpers import Site, Visitor
from tests.support.raw_client import RawClient
from tests.support.stub_provider import Out, SeenRequest

CREDIT = "1000"
CUT = "x-fixture-cut"
"""A header that tells the provider after how many pieces it must wait."""
PIECES_OF_PLAIN = 3
NOTICED_S = 0.05
"""Time for the proxy to notice that its clients have left; nothing depends on it but coverage."""
GAP_S = 0.003
"""Between the pieces that come when the client has left: they are to be read one by one."""
PER = {"web_search": 1000, "image": 1000, "audio_second": 3600}
"""Of how many the rate is the price, where it is not of a million."""
RESET_EVERY = 3
"""Of so many cut points one is left with a reset too."""


def pieces_of(case: Case) -> list[bytes]:
    """The events of a stream; a plain answer comes in three pieces."""
    if case.is_stream:
        return case.events
    size = -(-len(case.answer) // PIECES_OF_PLAIN)
    return [case.answer[at : at + size] for at in range(0, len(case.answer), size)]


class Recorded:
    """Gives a recorded answer; waits for `go` after as many pieces as the request says."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.go = threading.Event()

    async def __call__(self, request: SeenRequest, out: Out) -> None:
        cut = request.header(CUT)
        count = None if cut is None else int(cut)
        if count == 0:
            await self._wait()
        await out.head(200, self.case.answer_headers)
        for number, piece in enumerate(pieces_of(self.case), 1):
            await out.chunk(piece)
            if number == count:
                await self._wait()
            elif self.go.is_set():
                await asyncio.sleep(GAP_S)
        await out.end()

    async def _wait(self) -> None:
        while not self.go.is_set():
            await asyncio.sleep(0.005)


def rich_visitor(site: Site) -> Visitor:
    return Visitor(*site.books.user(CREDIT))


def check_row(case: Case, row: dict[str, Any]) -> None:
    assert (row["state"], row["basis"], row["reason"]) == ("settled", "usage", None), row
    assert json.loads(row["usage"]) == case.usage
    assert (row["cost_nanousd"], row["charged_nanousd"]) == (case.nanousd, case.nanousd)
    assert (row["status"], row["upstream_status"]) == (200, 200)
    assert (row["provider"], row["model"]) == (case.provider, case.model)
    assert (row["endpoint"], bool(row["is_stream"])) == (case.endpoint, case.is_stream)
    rated = sum(
        line["quantity"] * line["rate"] * Fraction(10**6, PER.get(line["usage_class"], 10**6))
        for line in json.loads(row["receipt"])
    )
    assert -(-rated // 10**6) == case.nanousd  # the receipt's lines add up to the cost


@pytest.mark.parametrize("name", EVERY)
def test_a_recorded_answer_passes_byte_for_byte_and_is_paid_exactly(
    recorded_site: Site, name: str
) -> None:
    case, site = EVERY[name], recorded_site
    site.stub.handle = Recorded(case)
    visitor = rich_visitor(site)
    got = site.ask(visitor, case.path, case.request, case.request_headers)
    assert (got.status, got.clean_end) == (200, True)
    assert got.body == case.passed()
    for header, value in case.answer_headers:
        expected = "no-cache" if header == "cache-control" else value
        assert got.header(header) == expected.encode()
    if not case.is_stream:
        assert got.header("x-llmproxy-cost-usd") == format_usd(case.nanousd).encode()
    seen = site.last_request()
    for header, value in case.request_headers.items():
        assert seen.header(header) == value.encode()
    check_row(case, site.ended(visitor))
    assert site.books.wallet(visitor.name) == (parse_usd(CREDIT) - case.nanousd, 0)


def take(client: RawClient, wanted: bytes) -> None:
    """Read until exactly this much of the body has come."""
    client.recv_head()
    taken = b""
    for _, piece in client.recv_chunks():
        taken += piece
        if len(taken) >= len(wanted):
            break
    assert taken == wanted


def ended_rows(site: Site, visitor: Visitor, count: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 10
    while len(rows := site.books.rows(visitor.name)) < count:
        assert time.monotonic() < deadline, f"{len(rows)} of {count} requests have ended"
        time.sleep(0.01)
    return rows


@pytest.mark.parametrize("name", EVERY)
def test_clients_that_leave_after_any_event_pay_exactly_what_the_provider_reported(
    recorded_site: Site, name: str
) -> None:
    """All cut points at once: each has a client of its own, and none of them stays."""
    case, site = EVERY[name], recorded_site
    site.stub.handle = recorded = Recorded(case)
    visitor = rich_visitor(site)
    counts = range(len(pieces_of(case)) + 1)
    cuts = [(count, False) for count in counts]
    cuts += [(count, True) for count in counts if count % RESET_EVERY == 0]
    before = len(site.stub.requests)
    clients = [
        site.send(visitor, case.path, case.request, {**case.request_headers, CUT: str(count)})
        for count, _ in cuts
    ]
    site.stub.wait_for_requests(before + len(cuts))
    for client, (count, is_reset) in zip(clients, cuts, strict=True):
        # A plain answer is metered before any of it is sent.
        passed = case.passed(count) if case.is_stream else b""
        if passed:
            take(client, passed)
        if is_reset:
            client.abort()
        else:
            client.close()
    time.sleep(NOTICED_S)
    recorded.go.set()
    for row in ended_rows(site, visitor, len(cuts)):
        check_row(case, row)
    paid = len(cuts) * case.nanousd
    assert site.books.wallet(visitor.name) == (parse_usd(CREDIT) - paid, 0)


DRAINS_MAX = 2


def test_of_more_clients_that_leave_than_may_be_drained_the_rest_is_estimated(
    tmp_path: Path,
) -> None:
    case, count, leavers = EVERY["openai-chat-asked-stream"], 3, 5
    environ = {
        "LLMPROXY_CATALOG_FILE": str(CATALOG),
        "LLMPROXY_DRAINS_MAX": str(DRAINS_MAX),
    }
    with running_site(tmp_path, environ) as site:
        site.stub.handle = recorded = Recorded(case)
        visitor = rich_visitor(site)
        clients = [
            site.send(visitor, case.path, case.request, {CUT: str(count)}) for _ in range(leavers)
        ]
        for client in clients:
            take(client, case.passed(count))
            client.close()
        cut_off = ended_rows(site, visitor, leavers - DRAINS_MAX)
        # At the priority tier, which the stream had told; `Éb`, three bytes, had been seen.
        estimate = -(-len(case.request) // 3) * 4_250 + 1 * 17_000
        for row in cut_off:
            assert (row["state"], row["basis"]) == ("settled", "estimate")
            assert row["reason"] == "the client left and 2 other answers were being drained"
            assert row["charged_nanousd"] == estimate
        recorded.go.set()
        before = {row["id"] for row in cut_off}
        drained = [row for row in ended_rows(site, visitor, leavers) if row["id"] not in before]
        assert len(drained) == DRAINS_MAX
        for row in drained:
            check_row(case, row)
