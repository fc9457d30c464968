"""Owns the OpenAPI description of our own endpoints, as Litestar makes it from their signatures.

`/v1/key`, `/v1/usage` and `/metrics` are answered past the framework (app.py): what stands for them
here is never called, it only says what they take and return. Types, bounds and names are those
that the answering code uses itself; tests/service/test_openapi.py asks whether all of it is true.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from litestar import Litestar, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import (
    Components,
    Example,
    OpenAPIHeader,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Schema,
    SecurityScheme,
    Server,
    ServerVariable,
)
from litestar.params import QueryParameter

from llmproxy.metrics import CONTENT_TYPE
from llmproxy.server.usage_query import (
    CURSOR_CHARS_MAX,
    LIMIT,
    LIMIT_MAX,
    SPAN_DAYS,
    TIME_PATTERN,
    Grouping,
)
from llmproxy.shapes import ErrorEnvelope, Format, KeyStanding, RequestsPage, SumsPage

API_VERSION = "1"
"""That of the paths; the program's own is nobody's business."""
METRICS_PORT = "9100"
_SCHEMES = {
    "bearer": SecurityScheme(type="http", scheme="bearer"),
    "x-api-key": SecurityScheme(type="apiKey", name="x-api-key", security_scheme_in="header"),
    "api-key": SecurityScheme(type="apiKey", name="api-key", security_scheme_in="header"),
    "x-goog-api-key": SecurityScheme(
        type="apiKey", name="x-goog-api-key", security_scheme_in="header"
    ),
    "key": SecurityScheme(type="apiKey", name="key", security_scheme_in="query"),
}
_ANY_OF_THEM: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]


def _errors(wording: Mapping[int, str]) -> dict[int, ResponseSpec]:
    return {
        status: ResponseSpec(ErrorEnvelope, description=text, generate_examples=False)
        for status, text in wording.items()
    }


_HEAD_ERRORS = {
    400: "The request is not proper HTTP.",
    408: "The request did not come in time.",
    431: "The request's head is too large.",
}
_OVERLOADED = {503: "The proxy has too many connections now."}
_PAGE_ERRORS = {
    **_HEAD_ERRORS,
    426: "WebSocket was asked for.",
    500: "An internal error.",
}
PROBE_ERRORS = _errors(_PAGE_ERRORS)
"""Of pages that are answered however many connections there are."""
PAGE_ERRORS = _errors(_PAGE_ERRORS | _OVERLOADED)
_METRICS_ERRORS = _errors(_HEAD_ERRORS | _OVERLOADED)
_KEY_ERRORS = {
    **_PAGE_ERRORS,
    401: "No API key was given, or an unknown, expired or revoked one.",
    403: "The key's user is disabled, or the key may not be used from this address.",
    503: "The ledger cannot be read, or the proxy has too many connections now.",
}
_USAGE_ERRORS = {
    **_KEY_ERRORS,
    400: "A parameter is unknown, given twice or wrong, or the span is too long to be read.",
}


@dataclass
class _UsageOperation(Operation):
    """Adds the table, which Litestar cannot know of: a handler has one media type."""

    def __post_init__(self) -> None:
        answer = (self.responses or {})["200"]
        assert isinstance(answer, OpenAPIResponse)
        assert answer.content is not None
        text = Schema(type=OpenAPIType.STRING)
        answer.content["text/csv"] = OpenAPIMediaType(schema=text)
        answer.headers = {
            name: OpenAPIHeader(schema=text, required=False, description=f"With CSV: {what}.")
            for name, what in (
                ("x-llmproxy-next-cursor", "next_cursor, if there is one"),
                ("x-llmproxy-pruned-before", "pruned_before, if the answer lacks requests"),
            )
        }


@dataclass
class _MetricsOperation(Operation):
    """Says that `/metrics` is on a port of its own."""

    def __post_init__(self) -> None:
        self.servers = [
            Server(
                url="http://{host}:{port}",
                description="The settings metrics_host and metrics_port; off unless set.",
                variables={
                    "host": ServerVariable(default="127.0.0.1"),
                    "port": ServerVariable(default=METRICS_PORT),
                },
            )
        ]


@get(
    "/v1/key",
    summary="The API key, its user's credit, and its limits",
    security=_ANY_OF_THEM,
    responses=_errors(_KEY_ERRORS),
    sync_to_thread=False,
)
def _key() -> KeyStanding:
    raise NotImplementedError


@get(
    "/v1/usage",
    summary="The user's requests, or sums over them",
    security=_ANY_OF_THEM,
    responses=_errors(_USAGE_ERRORS),
    operation_class=_UsageOperation,
    sync_to_thread=False,
)
def _usage(
    *,
    since: Annotated[
        str,
        QueryParameter(
            examples=[Example(value="2026-11-01")],
            required=False,
            name="from",
            pattern=f"^{TIME_PATTERN}$",
            description="Requests that arrived not before this date (its midnight) or time, UTC "
            f"unless it says otherwise. The last {SPAN_DAYS} days unless given.",
        ),
    ],
    to: Annotated[
        str,
        QueryParameter(
            examples=[Example(value="2026-12-01T00:00:00Z")],
            required=False,
            pattern=f"^{TIME_PATTERN}$",
            description="Requests that arrived before this date or time.",
        ),
    ],
    group: Annotated[
        Grouping,
        QueryParameter(description="One row for each request, or one of sums for each of these."),
    ] = "none",
    format_: Annotated[
        Format,
        QueryParameter(
            required=False, name="format", description="What the Accept header says unless given."
        ),
    ],
    limit: Annotated[
        int, QueryParameter(ge=1, le=LIMIT_MAX, description="The most rows of a page.")
    ] = LIMIT,
    cursor: Annotated[
        str,
        QueryParameter(
            examples=[Example(value="req_01a2194cbfdd70e7986215d91db33ab7")],
            required=False,
            max_length=CURSOR_CHARS_MAX,
            description="`next_cursor` of the page before; all else as before.",
        ),
    ],
) -> RequestsPage | SumsPage:
    raise NotImplementedError


@get(
    "/metrics",
    summary="Metrics for Prometheus",
    media_type=CONTENT_TYPE,
    responses=_METRICS_ERRORS,
    operation_class=_MetricsOperation,
    sync_to_thread=False,
)
def _metrics() -> str:
    raise NotImplementedError


class Document:
    """The OpenAPI document, made when it is first asked for."""

    def __init__(self, pages: Sequence[HTTPRouteHandler]) -> None:
        """Take the pages that it is to describe, beside what is answered past the framework."""
        self._pages = pages
        self._made: asyncio.Future[dict[str, Any]] | None = None

    async def get(self) -> dict[str, Any]:
        """Return the document, ready to be written as JSON."""
        if self._made is None:
            # In a thread: it takes a tenth of a second. All who ask meanwhile share it.
            loop = asyncio.get_running_loop()
            self._made = loop.run_in_executor(None, describe, self._pages)
        return await asyncio.shield(self._made)


def describe(pages: Sequence[HTTPRouteHandler]) -> dict[str, Any]:
    """Return the OpenAPI document of these pages and of what is answered past the framework."""
    config = OpenAPIConfig(
        title="llmproxy",
        version=API_VERSION,
        description=(
            "What llmproxy answers itself; HEAD is answered wherever GET is. The endpoints of "
            "providers under /v1/{provider}/ are not described here: they are those of OpenAI "
            "and Anthropic."
        ),
        components=Components(security_schemes=dict(_SCHEMES)),
        operation_id_creator=_operation_id,
        use_handler_docstrings=True,
    )
    app = Litestar([*pages, _key, _usage, _metrics], openapi_config=config, logging_config=None)
    document = app.openapi_schema
    for item in (document.paths or {}).values():
        item.head = None  # the same as GET, without a body
    return document.to_schema()


def _operation_id(handler: HTTPRouteHandler, method: str, path: object) -> str:
    del path
    return f"{method.lower()}_{handler.handler_name.strip('_')}"
