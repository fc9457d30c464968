"""Owns what a look at a price change shows of last week's requests: their cost by the new price.

Priced page by page in the reader's thread, with rests between, in which other pages are read and
the serving loop has the interpreter. Of very many requests only the newest are gone through. It is
advice: where they cannot be read, the price can be looked at and set without.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from litestar import Request

from llmproxy.catalog import Catalog, Model
from llmproxy.clock import Clock
from llmproxy.dashboard.errors import BusyError
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.dashboard.site import Site
from llmproxy.errors import DatabaseError
from llmproxy.rerating import DAY_MS, DAYS, Span
from llmproxy.storage.database import Tx

USERS_SHOWN_MAX = 20
RERATING_S_MAX = 8.0
"""An operator waits no longer for the page; the older requests are left out then."""
WAIT_S_MAX = 8.0
"""Nor longer than that for those of others, of which only one is gone through at a time."""
_log = logging.getLogger("llmproxy.dashboard")


class Week(NamedTuple):
    """The last days' requests as far as they were gone through, the newest first."""

    span: Span
    could_be_read: bool
    """Where not, `span` has what was read before."""
    had_to_wait: bool = False
    """Others' were gone through all the time; nothing of this one was."""

    @property
    def has_begun(self) -> bool:
        """Say whether any of it was gone through."""
        return self.span.seen_since_ms < self.span.until_ms


class WeekByPrice:
    """Prices the last days' requests of one model again, for one operator at a time."""

    def __init__(self, site: Site, *, wait_s_max: float = WAIT_S_MAX) -> None:
        """Begin with nobody waiting."""
        self._site = site
        self._wait_s_max = wait_s_max
        self._one = asyncio.Lock()

    async def rate(self, request: Request[Any, Any, Any], catalog: Catalog, model: Model) -> Week:
        """Return what the requests of the last days would have cost; changes no charge.

        Args:
            request: an operator's.
            catalog: with the new price in it.
            model: the one that has it.
        """
        site = self._site
        until_ms = site.clock.now_ms()
        span = Span(catalog, since_ms=until_ms - DAYS * DAY_MS, until_ms=until_ms, only=model)

        async def rate_page(span: Span) -> None:
            await site.read_as_admin(request, _rate_page, span)

        try:
            async with asyncio.timeout(self._wait_s_max):
                await self._one.acquire()
        except TimeoutError:
            return Week(span, could_be_read=False, had_to_wait=True)
        try:
            could_be_read = await go_through(span, rate_page, site.clock, site.office.is_stopping)
        finally:
            self._one.release()
        return Week(span, could_be_read)


async def go_through(
    span: Span,
    rate_page: Callable[[Span], Awaitable[None]],
    clock: Clock,
    is_stopping: Callable[[], bool],
    seconds_max: float = RERATING_S_MAX,
) -> bool:
    """Rate a span page by page, with rests between, until it is done or there is no more time.

    Returns:
        Whether it could be read; where not, the span has the pages before.
    """
    began_s = clock.monotonic_s()
    while True:
        page_began_s = clock.monotonic_s()
        try:
            await rate_page(span)
        except (BusyError, DatabaseError) as error:
            _log.warning("a new price was shown without all of the last days' costs: %s", error)
            return False
        now_s = clock.monotonic_s()
        if span.is_done or now_s - began_s >= seconds_max or is_stopping():
            return True
        await asyncio.sleep(now_s - page_began_s)  # as long as it has worked


def _rate_page(tx: Tx, signed_in: SignedIn, span: Span) -> None:
    del signed_in
    span.rate_page(tx)
