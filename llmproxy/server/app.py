"""Owns the application: the proxy as bare ASGI, and Litestar for health and all other pages."""

import asyncio
import logging
from typing import Any

from litestar import Litestar, MediaType, Request, Response, get
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Receive, Scope, Send

from llmproxy.clock import Clock, RequestIds, request_id_text
from llmproxy.errors import (
    ApiError,
    LlmproxyError,
    proxy_error,
    unknown_path,
    wrong_method,
)
from llmproxy.live_keys import Pool
from llmproxy.relay import Relay, Snapshot
from llmproxy.server.proxy import Site, serve_request
from llmproxy.storage.database import Tx
from llmproxy.storage.writer import Writer

READY_TIMEOUT_S = 2.0
PROXY_PREFIX = b"/v1/"

_log = logging.getLogger("llmproxy.server")


def build_app(site: Site, writer: Writer[Snapshot], pool: Pool) -> ASGIApp:
    """Return the application around objects that live as long as the process."""
    pages = _build_pages(site.relay, writer, pool)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # The hot path goes past the framework, whose layers would cost it 30 µs and more. Never
        # cancelled by a disconnect: a client that leaves does not stop its metering.
        if scope["raw_path"].startswith(PROXY_PREFIX):  # only HTTP comes here
            await serve_request(site, scope, receive, send)  # type: ignore[arg-type]
        else:
            await pages(scope, receive, send)

    return app


def _build_pages(relay: Relay, writer: Writer[Snapshot], pool: Pool) -> Litestar:
    @get("/healthz", media_type=MediaType.JSON, sync_to_thread=False)
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @get("/readyz", media_type=MediaType.JSON)
    async def readyz() -> Response[dict[str, str]]:
        reason = await _why_not_ready(relay, writer, pool)
        if reason is None:
            return Response({"status": "ready"})
        return Response({"status": "not ready", "reason": reason}, status_code=503)

    return Litestar(
        route_handlers=[healthz, readyz],
        exception_handlers={Exception: _answer_exception},
        openapi_config=None,
        logging_config=None,
    )


async def _why_not_ready(relay: Relay, writer: Writer[Snapshot], pool: Pool) -> str | None:
    if relay.is_draining:
        return "shutting down"
    try:
        await asyncio.wait_for(writer.submit(_read_one_row), READY_TIMEOUT_S)
    except (LlmproxyError, TimeoutError):
        return "the database cannot be used"
    if not pool.has_usable_key(Clock().now_ms()):
        return "no provider has a usable key; add one: llmproxy provider-keys add PROVIDER"
    return None


def _read_one_row(tx: Tx) -> None:
    tx.execute("SELECT id FROM boots ORDER BY id DESC LIMIT 1").fetchone()


def _answer_exception(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer what Litestar itself refuses in our own envelope."""
    del request
    request_id = request_id_text(RequestIds().new(Clock().now_ms()))
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:
        own = unknown_path()
    elif status == 405:
        allowed = error.headers if isinstance(error, HTTPException) else None
        own = wrong_method((allowed or {}).get("Allow") or "GET")
    elif status < 500:
        own = ApiError(status, "invalid_request", "The request could not be served.")
    else:
        _log.error("%s: internal error", request_id, exc_info=error)
        own = proxy_error(500, "an internal error", request_id, should_retry=False)
    headers = {name.decode(): value.decode() for name, value in own.headers(request_id)}
    return Response(own.body(request_id), status_code=status, headers=headers)
