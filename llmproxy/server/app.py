"""Owns the application: the proxy as bare ASGI, and Litestar for health and all other pages."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from litestar import HttpMethod, Litestar, MediaType, Request, Response, Router, route
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ASGIApp

from llmproxy.clock import Clock, RequestIds, request_id_text
from llmproxy.dashboard.address import PREFIX, is_dashboard
from llmproxy.dashboard.site import Site
from llmproxy.errors import (
    ApiError,
    LlmproxyError,
    proxy_error,
    unknown_path,
    websocket_unsupported,
    wrong_method,
)
from llmproxy.headers import Headers, asks_websocket
from llmproxy.live_keys import Pool
from llmproxy.metrics import CONTENT_TYPE
from llmproxy.relay import Relay, Snapshot
from llmproxy.server.cycle import CYCLE
from llmproxy.server.description import PAGE_ERRORS, PROBE_ERRORS, Document
from llmproxy.server.metrics_page import MetricsPage
from llmproxy.server.protocol import PROBE_PATHS
from llmproxy.server.proxy import Door, serve_request
from llmproxy.server.self_service import KEY_PATH, USAGE_PATH, SelfService
from llmproxy.shapes import Health, Readiness
from llmproxy.storage.database import Tx
from llmproxy.storage.writer import Writer

READY_EVERY_S = 1.0
READY_TIMEOUT_S = 2.0
PROXY_PREFIX = b"/v1/"
METRICS_PATH = b"/metrics"
READING = [HttpMethod.GET, HttpMethod.HEAD]

_log = logging.getLogger("llmproxy.server")


class Parts(NamedTuple):
    """What the application is built around: objects that live as long as the process."""

    relay: Relay
    self_service: SelfService
    door: Door
    writer: Writer[Snapshot]
    pool: Pool
    metrics_page: MetricsPage
    metrics_port: int
    """Requests that come to this port get `/metrics` and the probes alone; 0: none do."""
    dashboard: Site | None
    """None when it is switched off: its paths lead nowhere then."""
    dashboard_port: int
    """Requests that come to this port get the dashboard alone, others never; 0: all may."""


def build_app(parts: Parts) -> ASGIApp:
    """Return the application."""
    door, proxied = parts.door, parts.relay.handle
    own = dict.fromkeys((KEY_PATH, USAGE_PATH), parts.self_service.handle)
    pages, dashboard = _build_pages(parts)
    here = None if parts.dashboard_port else dashboard
    apart: dict[int, ASGIApp] = {}
    if parts.metrics_port:
        apart[parts.metrics_port] = _serve_metrics(parts.metrics_page, pages)
    if dashboard is not None and parts.dashboard_port:
        apart[parts.dashboard_port] = _serve_dashboard(dashboard)

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        # The hot path goes past the framework, whose layers would cost it 30 µs and more. Never
        # cancelled by a disconnect: a client that leaves does not stop its metering.
        path = scope["raw_path"]  # only HTTP comes here
        serve_apart = apart.get(scope["server"][1])
        if serve_apart is not None:
            await serve_apart(scope, receive, send)
        elif path.startswith(PROXY_PREFIX):
            await serve_request(door, own.get(path, proxied), scope, scope[CYCLE]())
        elif asks_websocket(scope["headers"]):
            await _refuse(websocket_unsupported(), send)
        elif here is not None and is_dashboard(scope["path"]):
            await here(scope, receive, send)
        else:
            await pages(scope, receive, send)

    return app


_ONLY_METRICS = ApiError(
    404, "unknown_path", "Only /metrics, /healthz and /readyz are served on this port."
)


def _serve_metrics(page: MetricsPage, pages: ASGIApp) -> ASGIApp:
    """Return what answers on the port of the metrics."""

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        path = scope["raw_path"]
        if path in PROBE_PATHS:
            await pages(scope, receive, send)
        elif path != METRICS_PATH:
            await _refuse(_ONLY_METRICS, send)
        elif scope["method"] not in {"GET", "HEAD"}:
            await _refuse(wrong_method("GET, HEAD"), send)
        else:
            await _send(200, [(b"content-type", CONTENT_TYPE.encode())], await page.text(), send)

    return app


def _serve_dashboard(dashboard: ASGIApp) -> ASGIApp:
    """Return what answers on the port of the dashboard."""

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        if asks_websocket(scope["headers"]):
            await _refuse(websocket_unsupported(), send)
        else:
            await dashboard(scope, receive, send)

    return app


async def _refuse(error: ApiError, send: Any) -> None:  # noqa: ANN401 - ASGI
    request_id = request_id_text(RequestIds().new(Clock().now_ms()))
    await _send(error.status, error.headers(request_id), error.body(request_id), send)


async def _send(status: int, headers: Headers, body: bytes, send: Any) -> None:  # noqa: ANN401 - ASGI
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


class _Dashboard:
    """The dashboard, made when it is first asked for.

    Its modules, routes and templates take a third of a second of CPU, which a start need not wait
    for.
    """

    def __init__(self, site: Site, document: Document) -> None:
        self._site = site
        self._document = document
        self._app: Litestar | None = None
        self._making = asyncio.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        async with self._making:
            if self._app is None:
                await self._site.prepare()
                self._app = await asyncio.to_thread(self._make)
        await self._app(scope, receive, send)

    def _make(self) -> Litestar:
        from llmproxy.dashboard.routes import answer_error, dashboard_routes  # noqa: PLC0415

        routes = dashboard_routes(self._site, self._document.get)
        return _app([_lead_to_dashboard, *routes], partial(answer_error, self._site))


def _build_pages(parts: Parts) -> tuple[Litestar, _Dashboard | None]:
    """Return what answers beside the proxy, and the dashboard, None where it is switched off."""
    probe = _DatabaseProbe(parts.writer)
    has_pages = parts.dashboard is not None and not parts.dashboard_port

    @route(
        "/",
        http_method=READING,
        summary="Nothing for clients that look whether anybody is there; pages for browsers",
        media_type=MediaType.TEXT,  # reference wire.md F.2
        responses=PAGE_ERRORS,
        sync_to_thread=False,
    )
    def base(request: Request[Any, Any, Any]) -> Response[str]:
        # People want a page. The way there is relative: the public address may have a path.
        if has_pages and "text/html" in request.headers.get("accept", ""):
            return Response("", status_code=303, headers={"location": "dashboard"})
        return Response("")

    @route(
        "/healthz",
        http_method=READING,
        summary="Whether the server runs",
        responses=PROBE_ERRORS,
        sync_to_thread=False,
    )
    def healthz() -> Health:
        return Health(status="ok")

    not_ready = ResponseSpec(
        Readiness, description="It cannot; `reason` says why.", generate_examples=False
    )

    @route(
        "/readyz",
        http_method=READING,
        summary="Whether the server can serve: write to its database, and use a provider",
        responses={**PROBE_ERRORS, 503: not_ready},
    )
    async def readyz() -> Response[Readiness]:
        reason = await _why_not_ready(parts.relay, probe, parts.pool)
        if reason is None:
            return Response(Readiness(status="ready"))
        return Response(Readiness(status="not ready", reason=reason), status_code=503)

    @route(
        "/openapi.json",
        http_method=READING,
        summary="This description",
        media_type=MediaType.JSON,
        responses=PAGE_ERRORS,
    )
    async def openapi() -> dict[str, Any]:
        return await document.get()

    handlers = [base, healthz, readyz, openapi]
    document = Document(handlers)
    site = parts.dashboard
    return _app(handlers), None if site is None else _Dashboard(site, document)


@route("/", http_method=READING, sync_to_thread=False)
def _lead_to_dashboard() -> Response[str]:
    return Response("", status_code=303, headers={"location": "dashboard"})


_Answer = Callable[[Request[Any, Any, Any], Exception], Response[bytes]]


def _app(
    handlers: Sequence[HTTPRouteHandler | Router], answer_page: _Answer | None = None
) -> Litestar:
    """Return an application; what goes wrong on the dashboard is answered by `answer_page`."""

    def answer(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        # Not by request.url, which no host need make sense for.
        is_page = request.scope["path"].startswith(f"{PREFIX}/")
        if answer_page is not None and is_page:
            return answer_page(request, error)
        return _answer_exception(request, error)

    return Litestar(
        route_handlers=handlers,
        exception_handlers={Exception: answer},
        openapi_config=None,
        logging_config=None,
    )


async def _why_not_ready(relay: Relay, probe: "_DatabaseProbe", pool: Pool) -> str | None:
    if relay.is_draining:
        return "shutting down"
    if not await probe.can_write():
        return "the database cannot be used"
    if not pool.has_usable_key(Clock().now_ms()):
        return "no provider has a usable key; add one: llmproxy provider-keys add PROVIDER"
    return None


class _DatabaseProbe:
    """Tries whether the database can be written; anybody may ask, so not with every question."""

    def __init__(self, writer: Writer[Snapshot]) -> None:
        self._writer = writer
        self._write: asyncio.Future[None] | None = None
        self._begun_s = 0.0

    async def can_write(self) -> bool:
        """Say whether a row can be written durably: by a write that is under way, or a fresh one.

        All who ask meanwhile share it, whatever comes of it.
        """
        if self._writer.is_broken:
            return False
        now_s = asyncio.get_running_loop().time()
        if self._write is None or (self._write.done() and now_s - self._begun_s > READY_EVERY_S):
            self._write, self._begun_s = self._writer.submit(_write_one_row), now_s
        patience_s = self._begun_s + READY_TIMEOUT_S - now_s
        try:
            # Shielded: who asks no longer takes it from nobody else.
            await asyncio.wait_for(asyncio.shield(self._write), max(0, patience_s))
        except (LlmproxyError, TimeoutError):
            return False
        return True


def _write_one_row(tx: Tx) -> None:
    """Change a row and change it back: on a full disk everybody can read, so reading proves little.

    (An update to the same value is left out by SQLite.)
    """
    for _ in range(2):
        tx.execute("UPDATE boots SET pid = -pid WHERE id = (SELECT max(id) FROM boots)")


def _answer_exception(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer what Litestar itself refuses in our own envelope."""
    del request
    request_id = request_id_text(RequestIds().new(Clock().now_ms()))
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:
        own = unknown_path()
    elif status == 405:
        own = wrong_method("GET, HEAD")
    elif status < 500:
        own = ApiError(status, "invalid_request", "The request could not be served.")
    else:
        _log.error("%s: internal error", request_id, exc_info=error)
        own = proxy_error(500, "an internal error", request_id, should_retry=False)
    headers = {name.decode(): value.decode() for name, value in own.headers(request_id)}
    return Response(own.body(request_id), status_code=status, headers=headers)
