"""Recorded answers without a usage, through the real server: what passes, and what is paid."""

import asyncio

import pytest

from tests.fixtures import WITHOUT_USAGE, Case
from tests.proxy.helpers import Site, Visitor
from tests.support.stub_provider import Out, SeenRequest


class Recorded:
    """Gives a recorded answer, event by event."""

    def __init__(self, case: Case) -> None:
        self.case = case

    async def __call__(self, request: SeenRequest, out: Out) -> None:
        del request
        await out.head(200, self.case.answer_headers)
        for event in self.case.events:
            await out.chunk(event)
            await asyncio.sleep(0.003)
        await out.end()


def check_paid(site: Site, case: Case, visitor: Visitor) -> None:
    row = site.assert_paid(visitor, state=case.state, basis=case.basis, nanousd=case.nanousd)
    assert (row["provider"], row["endpoint"]) == (case.provider, case.endpoint)
    assert (row["upstream_status"], row["raw_usage"]) == (200, None)


@pytest.mark.parametrize("name", WITHOUT_USAGE)
def test_it_passes_byte_for_byte_and_is_paid_as_was_worked_out(
    recorded_site: Site, name: str
) -> None:
    case, site = WITHOUT_USAGE[name], recorded_site
    site.stub.handle = Recorded(case)
    visitor = site.visitor()
    got = site.ask(visitor, case.path, case.request)
    assert (got.status, got.body) == (200, case.answer)
    check_paid(site, case, visitor)


@pytest.mark.parametrize(
    "name", [name for name, case in WITHOUT_USAGE.items() if case.basis == "estimate"]
)
def test_whoever_leaves_pays_the_same(recorded_site: Site, name: str) -> None:
    case, site = WITHOUT_USAGE[name], recorded_site
    site.stub.handle = Recorded(case)
    visitor = site.visitor()
    before = len(site.stub.requests)
    with site.send(visitor, case.path, case.request):
        site.stub.wait_for_requests(before + 1)
    check_paid(site, case, visitor)
