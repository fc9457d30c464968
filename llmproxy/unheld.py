"""Owns the reporting rows of requests that never had a hold nor went upstream: refused, or our own.

Must not touch money.
"""

from functools import partial

from llmproxy import ledger
from llmproxy.accounts import Principal
from llmproxy.clock import arrival_ms
from llmproxy.errors import ApiError
from llmproxy.order import Services
from llmproxy.routes import Route

ROWS_PER_S_MAX = 20
REASON_CHARS_MAX = 500


class UnheldRows:
    """Writes the rows, only so many a second: they cost clients nothing, nor may they us."""

    def __init__(self, services: Services) -> None:
        """Start with none written in this second."""
        self._services = services
        self._second = 0
        self._written = 0

    def record(
        self,
        request_id: bytes,
        route: Route,
        principal: Principal,
        model: str = "",
        error: ApiError | None = None,
    ) -> None:
        """Leave a row for a refused request, or one that we answered, without waiting for it."""
        clock = self._services.clock
        second = int(clock.monotonic_s())
        if second != self._second:
            self._second, self._written = second, 0
        self._written += 1
        if self._written > ROWS_PER_S_MAX:
            return
        status, reason = (error.status, error.message) if error else (200, None)
        record = partial(
            ledger.record_unheld,
            api_key_id=principal.api_key_id,
            endpoint=route.endpoint.name if route.endpoint else "models",
            outcome=unsent(principal, route.provider, model, status=status, reason=reason),
            now_ms=arrival_ms(request_id),
            state="refused" if error else "settled",
        )
        self._services.writer.offer(record, request_id)


def unsent(
    principal: Principal, provider: str, model: str, *, status: int = 0, reason: str | None = None
) -> ledger.Outcome:
    """Return the reporting row of a request that was never sent to its provider."""
    return ledger.Outcome(
        user_id=principal.user_id,
        provider=provider,
        model=model,
        is_stream=False,
        status=status,
        duration_ms=0,
        reason=reason[:REASON_CHARS_MAX] if reason else None,
    )
